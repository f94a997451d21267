"""The one function before every move of a release towards users, whoever asks: a command, a build, an API.

It weighs the evidence (see gate.py), refuses what the evidence does not carry, and writes who, when, why and on which report
into the event of the move. `dev` is free. A person may decide what the gate leaves open, with a reason, and may overrule it,
which is an event of its own kind (`override`); what moves by itself may do neither.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.errors import GateError, InvalidRequestError
from llmops_core.evaluation.cases import cases_from
from llmops_core.evaluation.report import RETRIEVAL_SCORES
from llmops_core.evaluation.score import outstanding, report_of, store_report
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.canary import beginning, refreshing
from llmops_core.release.channels import CANARY, CHANNELS, Pointer, Step, fold
from llmops_core.release.gate import (
    Kind,
    Outcome,
    RuleVerdict,
    Verdict,
    compare,
    decide,
    meet_floors,
    trained_on,
    uses,
)
from llmops_core.release.index_making import made_alike
from llmops_core.release.manifest import Manifest, Release
from llmops_core.release.objections import left_to_canary, one_candidate, rejection
from llmops_core.release.registry import Releases
from llmops_core.release.rollback import past

GATED = ("staging", "prod", CANARY)
"""Channels that nothing reaches without evidence."""
READ = ("evaluation_cases", "evaluation_results")


@dataclass(frozen=True)
class Mover:
    """Who asks for a move, and how."""

    author: str
    reason: str = ""
    person: bool = True
    """False: it happens by itself, so what a person has to decide is refused."""
    override: bool = False
    """Whether a refusal is overruled."""


@dataclass(frozen=True)
class Moved:
    """A channel that points to a release now."""

    channel: str
    release: Release
    action: str
    verdict: Verdict | None
    """None where no evidence is asked for: on dev, or if the channel was there already."""


def promote(
    lakehouse: Lakehouse,
    assistant: Assistant,
    reference: str,
    channel: str,
    by: Mover,
    provenance: Provenance,
    *,
    expected: Mapping[str, Pointer] | None = None,
    training: Collection[str] = (),
) -> Moved:
    """Point a channel to a release if the evidence carries it; `expected` is the state that the mover decided on.

    `training` names cases, by id or hash, that the release was trained on. Raises `GateError` with what to do,
    `ConflictError` if somebody moved the channel meanwhile, `NotFoundError` for an unknown release.
    """
    return _move(lakehouse, assistant, reference, channel, by, provenance, expected, training)


def approve(lakehouse: Lakehouse, assistant: Assistant, reference: str, by: Mover, provenance: Provenance) -> Moved:
    """A person's word that a release may serve, and what follows from it, in one commit; raises as `promote` does.

    It meets some of the users first, as the canary. Where there is nothing to compare it with, or fresh documents alone are
    new in it, it goes to prod.
    """
    releases = Releases(lakehouse, assistant.name)
    release, seen = releases.get(reference), releases.channels.state()
    prod = releases.get(seen["prod"].release_id) if "prod" in seen else None
    channel = CANARY if _kind(lakehouse, release.manifest, prod, prod) == "candidate" else "prod"
    return _move(lakehouse, assistant, release.release_id, channel, by, provenance, seen, (), "approve")


def reject(lakehouse: Lakehouse, assistant: Assistant, reference: str, by: Mover, provenance: Provenance) -> Release:
    """A person's word that a release must not serve: from now on only an override promotes it.

    Raises `InvalidRequestError` without a reason, or for a release that serves.
    """
    releases = Releases(lakehouse, assistant.name)
    release = releases.get(reference)
    if not by.reason.strip():
        raise InvalidRequestError("A rejection is kept with its reason: give one with --message WHY")
    # Fresh documents give the canary's release another id, and it is the same candidate.
    same = one_candidate(releases, release.manifest)

    def check(events: pl.DataFrame) -> None:
        now = fold(events)
        for channel in GATED:
            there = now[channel].release_id if channel in now else None
            if there == release.release_id or (channel == CANARY and there in same):
                way = "canary stop" if channel == CANARY else f"rollback --channel {channel}"
                raise InvalidRequestError(
                    f"Release {release.number} is on {channel}. Take it back first: llmops release {way} --message WHY"
                )

    releases.channels.take(
        [Step(None, release.release_id, "reject")],
        author=by.author,
        reason=by.reason,
        provenance=provenance,
        expected={},
        check=check,
    )
    return release


def assess(
    lakehouse: Lakehouse,
    assistant: Assistant,
    candidate: Release,
    channel: str,
    provenance: Provenance,
    *,
    state: Mapping[str, Pointer] | None = None,
    training: Collection[str] = (),
) -> Verdict:
    """What the gate says of a release for a channel, on the rows that are stored; the candidate's report is kept as evidence.

    The incumbent is the release on prod, for staging too: it is what users have.
    """
    releases = Releases(lakehouse, assistant.name)
    now = releases.channels.state() if state is None else state
    known = {release.release_id: release for release in releases.all()}
    prod, there = (known[now[name].release_id] if name in now else None for name in ("prod", channel))
    kind = _kind(lakehouse, candidate.manifest, prod, there)
    incumbent = prod if kind == "candidate" else None
    snapshots = {name: lakehouse.table(assistant.name, name).snapshot_id() for name in READ}
    cases, results = (lakehouse.table(assistant.name, name).read(snapshots[name]) for name in READ)
    held_out, gate = cases.filter(pl.col("split") == "held_out"), assistant.evaluation.gate
    asked = _asked(assistant, kind)
    unscored: dict[str, int] = {}
    report_id = None
    if asked:
        scored = [candidate.manifest, *([incumbent.manifest] if incumbent else [])]
        unscored = _unscored(assistant, scored, held_out, results, asked)
        report_id = _report(lakehouse, assistant, candidate.release_id, cases, results, provenance)
    rules: tuple[RuleVerdict, ...] = ()
    if not asked:
        outcome, why = _unasked(assistant, kind)
    elif unscored:
        numbers = " and ".join(str(known[release_id].number) for release_id in unscored)
        outcome, why = "inconclusive", f"release {numbers} is not evaluated on the present cases"
    elif leaked := trained_on(held_out, training):
        outcome, why = "failed", f"held-out cases are in a training set: {', '.join(leaked)}"
    else:
        manifest = candidate.manifest
        rules = (
            compare(gate, manifest, incumbent.manifest, held_out, results)
            if incumbent
            else meet_floors(gate, manifest, held_out, results, asked)
        )
        outcome = decide(rules)
        why = ", ".join(f"{rule.metric}: {rule.why}" for rule in rules if rule.outcome == outcome)
    return Verdict(
        outcome=outcome,
        release_id=candidate.release_id,
        incumbent_id=incumbent.release_id if incumbent else None,
        kind=kind,
        why=why,
        rules=rules,
        alpha=gate.alpha,
        min_cases=gate.min_cases,
        unscored=unscored,
        uses=uses(held_out, results, releases.channels.events()),
        report_id=report_id,
        snapshots={name: snapshot for name, snapshot in snapshots.items() if snapshot is not None},
    )


def _move(
    lakehouse: Lakehouse,
    assistant: Assistant,
    reference: str,
    channel: str,
    by: Mover,
    provenance: Provenance,
    expected: Mapping[str, Pointer] | None,
    training: Collection[str],
    *before: str,
) -> Moved:
    """Weigh, and take the steps: decisions `before` about the release, then the move, in one commit."""
    releases = Releases(lakehouse, assistant.name)
    release = releases.get(reference)
    seen = releases.channels.state() if expected is None else expected
    if channel not in (*CHANNELS, CANARY):
        raise InvalidRequestError(f"There is no channel {channel!r}. Channels are: {', '.join((*CHANNELS, CANARY))}")
    if by.override and not by.reason.strip():
        raise InvalidRequestError("An override is kept with its reason: give one with --message WHY")
    there = channel in seen and seen[channel].release_id == release.release_id
    verdict, check = None, None
    action = "begin" if channel == CANARY else "promote"
    if channel in GATED and not there:
        verdict = assess(lakehouse, assistant, release, channel, provenance, state=seen, training=training)
        refused = _refusal(assistant, releases, release, channel, by, verdict)
        if refused and not by.override:
            raise GateError(f"{assistant.name}: release {release.number} is not moved to {channel}. {refused}")
        action = "override" if refused else action
        if not by.override:
            # Somebody may reject it while it is assessed.
            check = partial(_unless_rejected, assistant, releases, release, channel, verdict)
    move = Step(channel, release.release_id, action)
    if channel == CANARY and verdict and verdict.kind == "fresh documents":
        move = refreshing(release.release_id, seen)
    elif channel == CANARY:
        move = beginning(assistant.release.canary, release.release_id, seen, action)
    steps = [*(Step(None, release.release_id, decision) for decision in before), move]
    releases.channels.take(
        steps,
        author=by.author,
        reason=by.reason,
        provenance=provenance,
        expected=seen,
        report_id=verdict.report_id if verdict else None,
        gate=verdict.to_dict() if verdict else None,
        check=check,
    )
    return Moved(channel, release, move.action, verdict)


def _meant(releases: Releases, release: Release, verdict: Verdict) -> set[str]:
    """The releases that a word against this one is about: against fresh documents it is about them alone."""
    if verdict.kind == "fresh documents":
        return {release.release_id}
    return one_candidate(releases, release.manifest)


def _command(release: Release, channel: str) -> str:
    """The command by which a person makes the move."""
    if channel == CANARY:
        return f"llmops release approve {release.number}"
    return f"llmops release promote {release.number} {channel}"


def _unless_rejected(
    assistant: Assistant,
    releases: Releases,
    release: Release,
    channel: str,
    verdict: Verdict,
    events: pl.DataFrame,
) -> None:
    """Raise `GateError` if somebody has rejected the release by now."""
    if rejected := rejection(events, _meant(releases, release, verdict), channel):
        raise GateError(
            f"{assistant.name}: release {release.number} is not moved to {channel}. {rejected['author']} rejected it meanwhile:"
            f" {rejected['reason']}. To overrule that: {_command(release, channel)} --override --message WHY"
        )


def _refusal(
    assistant: Assistant, releases: Releases, release: Release, channel: str, by: Mover, verdict: Verdict
) -> str | None:
    """Why this mover may not make this move, and what to do; None if nothing speaks against it."""
    events = releases.channels.events()
    promote_it = _command(release, channel)
    overrule = f"{promote_it} --override --message WHY"
    meant = _meant(releases, release, verdict)
    if rejected := rejection(events, meant, channel):
        return f"{rejected['author']} rejected it: {rejected['reason']}. To overrule that: {overrule}"
    if verdict.outcome == "failed":
        return f"{verdict.headline()}. Make a better one, or overrule the gate: {overrule}"
    if verdict.unscored:
        commands = "; ".join(f"llmops evaluate --release {release_id[:12]}" for release_id in verdict.unscored)
        return f"{verdict.headline()}. Evaluate first: {commands}. To go without: {overrule}"
    if verdict.outcome == "inconclusive" and not (by.person and by.reason.strip()):
        return f"{verdict.headline()}. A person decides, with a reason: {promote_it} --message WHY"
    if by.person:
        return None
    if meant & past(events, channel).taken_back:
        return f"It was there and was taken back. A person may put it there again: {promote_it}"
    if channel == "prod" and verdict.kind == "candidate" and meant & left_to_canary(events):
        return f"Its canary runs, or was taken back. A person may put it there: {promote_it}"
    if verdict.kind == "fresh documents" and assistant.release.index_only == "manual":
        return f"A person promotes fresh documents (release.index_only): {promote_it}"
    if verdict.kind == "candidate" and assistant.release.approval == "required":
        return f"{verdict.headline()}. A person approves it (release.approval): llmops release approve {release.number}"
    return None


def _kind(lakehouse: Lakehouse, candidate: Manifest, prod: Release | None, there: Release | None) -> Kind:
    if prod is None:
        return "first"
    if prod.manifest == candidate:
        return "the same"
    others = [known.manifest for known in (prod, there) if known and candidate.differs_in_index_alone(known.manifest)]
    fresh = any(made_alike(lakehouse, candidate.assistant, candidate.index, other.index) for other in others)
    return "fresh documents" if fresh else "candidate"


def _asked(assistant: Assistant, kind: Kind) -> list[str]:
    """The metrics that a release of this kind is asked about; none without a case file that could answer."""
    gate = assistant.evaluation.gate
    if assistant.evaluation.cases is None or kind == "the same":
        return []
    if kind == "candidate":
        return [rule.metric for rule in gate.rules]
    return [metric for metric in gate.floors if kind == "first" or metric in RETRIEVAL_SCORES]


def _unasked(assistant: Assistant, kind: Kind) -> tuple[Outcome, str]:
    """What is said of a release that is asked nothing."""
    if kind == "the same":
        return "passed", "it is on prod already"
    if kind != "candidate" and not assistant.evaluation.gate.floors:
        return "passed", f"{kind}, and assistant.yaml sets no floor"
    if assistant.evaluation.cases is None:
        return "inconclusive", "assistant.yaml names no case file (evaluation.cases)"
    if kind == "candidate":
        return "inconclusive", "assistant.yaml has no rule to compare by (evaluation.gate.rules)"
    return "passed", f"{kind}, and no floor is about retrieval"


def _unscored(
    assistant: Assistant, releases: Sequence[Manifest], held_out: pl.DataFrame, results: pl.DataFrame, asked: list[str]
) -> dict[str, int]:
    """Release → how many held-out cases it has yet to be scored on; all of them are unscored while there is no case."""
    answers = assistant.evaluation.answers if set(asked) - set(RETRIEVAL_SCORES) else 0
    cases = cases_from(held_out)
    work = {r.release_id: outstanding(results.lazy(), r.release_id, cases, answers).retrieve for r in releases}
    return {release_id: len(left) for release_id, left in work.items() if left or not cases}


def _report(
    lakehouse: Lakehouse,
    assistant: Assistant,
    release_id: str,
    cases: pl.DataFrame,
    results: pl.DataFrame,
    provenance: Provenance,
) -> str | None:
    """The id of the report over these rows; None if there is none to report."""
    report = report_of(release_id, results, cases_from(cases), assistant.evaluation.gate.alpha)
    table = lakehouse.table(assistant.name, "evaluation_reports")
    return store_report(table, report, provenance) if report.cases else None
