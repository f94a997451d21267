"""The canary: a release that meets some of prod's users first, from its beginning to its end.

An experiment is the events of the channel `canary` from one that begins it to the one that points it to nothing. Fresh documents
replace the release on both sides meanwhile, and the experiment goes on. Its plan is kept with its events: `assistant.yaml` may
change meanwhile, the experiment does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from llmops_core.assistant.schema import Canary
from llmops_core.errors import ConflictError, InvalidRequestError, NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.arms import Experiment, Plan
from llmops_core.release.channels import CANARY, Channels, Pointer, Step
from llmops_core.release.comparison import Comparison, compare, read_log
from llmops_core.release.index_making import made_alike
from llmops_core.release.objections import one_candidate, rejection
from llmops_core.release.registry import Releases

PROD = "prod"
NONE_RUNS = "No canary is running. One begins with: llmops release approve RELEASE"

End = Literal["passed", "rolled_back", "stopped"]


@dataclass(frozen=True)
class Look:
    """An experiment as it stands: the channels that were seen, and what the log says."""

    experiment: Experiment
    seen: Mapping[str, Pointer]
    comparison: Comparison

    def headline(self) -> str:
        """What there is, and what it waits for, in one line."""
        plan, said = self.experiment.plan, self.comparison
        arms = ", ".join(f"{name} {count:,}" for name, count in said.requests.items())
        bets = ", ".join(f"{metric.metric} {metric.wealth:.3g} of {metric.needed:g}" for metric in said.metrics)
        verdict = {"passed": "Passed", "rolled_back": "Rolled back", "waiting": "Waiting"}[said.outcome]
        return (
            f"{verdict}: {said.reason}. Release {self.experiment.release_id[:12]} in mode {plan.mode} with {plan.share:.0%} of"
            f" users; requests: {arms}, in no arm {said.outside:,}; bets on harm: {bets}; {said.hours_left:.1f} of"
            f" {plan.max_hours:g} hours left."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        began_at = self.experiment.began_at.isoformat(timespec="seconds")
        return {**self.experiment.to_dict(), "began_at": began_at, **self.comparison.to_dict()}


def running(state: Mapping[str, Pointer]) -> Experiment | None:
    """The experiment that runs in this state of the channels."""
    pointer = state.get(CANARY)
    if pointer is None or pointer.experiment is None or pointer.plan is None:
        return None
    return Experiment(pointer.experiment, pointer.release_id, Plan.from_dict(pointer.plan))


def beginning(section: Canary, release_id: str, seen: Mapping[str, Pointer], action: str = "begin") -> Step:
    """The step by which a release begins to meet prod's users, as `release.canary` of `assistant.yaml` says now.

    Raises `InvalidRequestError` if there is nothing on prod to compare with or it is this release, `ConflictError` if another
    canary runs.
    """
    if other := running(seen):
        raise ConflictError(
            f"A canary of release {other.release_id} is running. Wait for its verdict (llmops release canary), or end it:"
            " llmops release canary stop"
        )
    prod = seen.get(PROD)
    if prod is None or prod.release_id == release_id:
        said = "is empty" if prod is None else "has this release already"
        raise InvalidRequestError(f"Channel prod {said}: a canary is compared with another release that serves.")
    plan = Plan(
        section.mode,
        section.share,
        section.min_requests,
        section.max_hours,
        section.alpha,
        tuple(section.metrics),
        prod.release_id,
    )
    return Step(CANARY, release_id, action, plan=plan.to_dict())


def refreshing(release_id: str, seen: Mapping[str, Pointer]) -> Step:
    """The step that puts fresh documents on the canary's side; the experiment goes on."""
    pointer = seen[CANARY]
    return Step(CANARY, release_id, "refresh", pointer.experiment, pointer.plan)


def end(
    channels: Channels,
    how: End,
    *,
    author: str,
    reason: str,
    provenance: Provenance,
    seen: Mapping[str, Pointer] | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> Experiment:
    """End the canary; if it passed, prod moves to its release in the same commit, so that no kill comes between the two.

    Raises `NotFoundError` if none runs, `ConflictError` if prod (where it matters) or canary moved since `seen`.
    """
    seen = channels.state() if seen is None else seen
    found = running(seen)
    if found is None:
        raise NotFoundError(NONE_RUNS)
    steps = [Step(PROD, found.release_id, "promote")] if how == "passed" else []
    steps.append(Step(CANARY, None, how, found.experiment, found.plan.to_dict()))
    channels.take(steps, author=author, reason=reason, provenance=provenance, expected=seen, gate=verdict)
    return found


def read_at(lakehouse: Lakehouse, assistant: str) -> str:
    """Names the state of all that a look reads; while it stays the same, only the hours change what a look says."""
    tables = ("release_events", "traffic_requests", "traffic_feedback")
    return " ".join(str(lakehouse.table(assistant, name).snapshot_id()) for name in tables)


def look(lakehouse: Lakehouse, assistant: str, now: datetime | None = None) -> Look | None:
    """What the log says of the canary that runs; None if none does."""
    releases = Releases(lakehouse, assistant)
    seen = releases.channels.state()
    experiment = running(seen)
    if experiment is None:
        return None
    comparison = compare(experiment, read_log(lakehouse, assistant, experiment), now or datetime.now(UTC))
    if void := _other_prod(lakehouse, releases, experiment, seen) or _rejected(releases, experiment):
        comparison = replace(comparison, outcome="rolled_back", reason=void)
    return Look(experiment, seen, comparison)


def conclude(
    lakehouse: Lakehouse, assistant: str, *, author: str, provenance: Provenance, now: datetime | None = None
) -> Look | None:
    """Look, and end the canary if there is a verdict; the look, None if no canary runs.

    May be run again after it was killed: it then finds no canary, or the same one with the same log.
    """
    found = look(lakehouse, assistant, now)
    if found is None or found.comparison.outcome == "waiting":
        return found
    end(
        Channels(lakehouse, assistant),
        found.comparison.outcome,
        author=author,
        reason=f"canary {found.comparison.outcome.replace('_', ' ')}: {found.comparison.reason}",
        provenance=provenance,
        seen=found.seen,
        verdict=found.comparison.to_dict(),
    )
    return found


def _other_prod(
    lakehouse: Lakehouse, releases: Releases, experiment: Experiment, seen: Mapping[str, Pointer]
) -> str | None:
    """Why the comparison is void, if prod has another release than at the beginning, apart from fresh documents."""
    now = seen[PROD].release_id if PROD in seen else None
    base = experiment.plan.base
    if now == base:
        return None
    if now:
        serves, served = (releases.get(release_id).manifest for release_id in (now, base))
        if serves.differs_in_index_alone(served) and made_alike(
            lakehouse, serves.assistant, serves.index, served.index
        ):
            return None
    return f"prod was moved to another release ({now}) than the one that the canary began beside"


def _rejected(releases: Releases, experiment: Experiment) -> str | None:
    """Why no user may meet it any more, if a person rejected it, with these documents or others, since it was approved."""
    meant = one_candidate(releases, releases.get(experiment.release_id).manifest)
    rejected = rejection(releases.channels.events(), meant, CANARY)
    return f"{rejected['author']} rejected it: {rejected['reason']}" if rejected else None
