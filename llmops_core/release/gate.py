"""The gate: what a release has to show on held-out cases before it reaches users.

A candidate is compared with the incumbent case by case (the same version of the same case on both sides), and each rule of
`evaluation.gate` asks for a one-sided bound of the mean difference at level `alpha` (`intervals.lower_bound`, which says why it
is that one). A candidate passes only if every rule passes, so no correction for several rules is needed: each of them alone
lets a bad candidate through with probability `alpha` at most (an intersection-union test; Berger 1982, Technometrics 24(4)).

The first release and fresh documents have no such comparison. They meet floors, by their values and not by a bound: whoever
sets a floor puts the reserve into it, and chance in a few cases must not keep fresh documents from users.

Knows frames and no lakehouse: `moves` brings the rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import polars as pl

from llmops_core.assistant.schema import Gate, GateRule
from llmops_core.evaluation.intervals import lower_bound
from llmops_core.evaluation.report import RETRIEVAL_SCORES, score_of
from llmops_core.release.manifest import Manifest

Outcome = Literal["passed", "failed", "inconclusive"]
Kind = Literal["first", "fresh documents", "candidate", "the same"]
"""What a release is for a channel: the first one; one that differs in its index alone; any other; the one on prod."""

LESS_IS_BETTER = ("empty_rate",)
NEED_RIGHT_ANSWERS = ("exact_match", "f1")


@dataclass(frozen=True, kw_only=True)
class RuleVerdict:
    """What one rule, or one floor, says."""

    metric: str
    mode: Literal["better", "not_worse", "floor"]
    asked: float
    """The rule's margin, or the floor."""
    outcome: Outcome
    cases: int
    """Held-out cases that measure the metric, on both sides if there are two."""
    candidate: float | None = None
    """Mean over these cases."""
    incumbent: float | None = None
    gain: float | None = None
    """Mean difference; above 0 the candidate is the better one, also where less is better."""
    bound: float | None = None
    """Lower confidence bound of the gain, 1 − alpha, one-sided."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Uses:
    """How often the held-out cases were looked at: each look makes them weaker evidence."""

    releases: int
    """Releases that were scored on them as they are now."""
    decisions: int
    """Events in which a decision about a release rests on held-out cases."""

    def __str__(self) -> str:
        return (
            f"held-out cases were used so far to score {self.releases} release(s) and for {self.decisions} decision(s)"
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate; `to_dict` goes into the event of the decision."""

    outcome: Outcome
    release_id: str
    incumbent_id: str | None
    """The release that it was compared with; None if with none."""
    kind: Kind
    why: str
    rules: tuple[RuleVerdict, ...] = ()
    alpha: float
    min_cases: int
    unscored: Mapping[str, int]
    """Release → how many held-out cases it was not yet scored on; such a release has to be evaluated first."""
    uses: Uses
    report_id: str | None = None
    """The candidate's report over the same rows."""
    snapshots: Mapping[str, int]
    """Table → snapshot that was judged on."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Verdict":
        """Read what `to_dict` gave."""
        rules = tuple(RuleVerdict(**rule) for rule in value["rules"])
        return cls(**{**value, "rules": rules, "uses": Uses(**value["uses"])})

    def headline(self) -> str:
        """The outcome with its reason, in a line."""
        against = f" against {self.incumbent_id[:12]}" if self.incumbent_id else ""
        return f"Gate {self.outcome} for release {self.release_id[:12]}{against}: {self.why}"

    def cells(self) -> list[list[str]]:
        """A table: a row a rule, the head first."""
        head = ["rule", "outcome", "candidate", "incumbent", "gain", "bound", "cases", "why"]
        return [head, *([_asks(rule), rule.outcome, *_numbers(rule), str(rule.cases), rule.why] for rule in self.rules)]

    def markdown(self) -> str:
        """Everything that a person wants to know, for the Dagster UI."""
        head, *rows = self.cells()
        lines = [head, ["---"] * len(head), *rows] if rows else []
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        method = f"Bound: lower one-sided {100 * (1 - self.alpha):g}% bound of the mean paired difference (Gaffke)."
        return "\n\n".join(part for part in (self.headline(), table, f"{method} The {self.uses}.") if part)


def decide(rules: Sequence[RuleVerdict]) -> Outcome:
    """One failure fails, what is left open leaves it open; only if all passed, and there are any, it is passed."""
    outcomes = {rule.outcome for rule in rules}
    if "failed" in outcomes:
        return "failed"
    return "passed" if outcomes == {"passed"} else "inconclusive"


def compare(
    gate: Gate, candidate: Manifest, incumbent: Manifest, cases: pl.DataFrame, results: pl.DataFrame
) -> tuple[RuleVerdict, ...]:
    """Ask every rule of two releases; `cases` of `CASE_SCHEMA` (held-out ones), `results` of table `evaluation_results`."""
    return tuple(_rule(gate, rule, candidate, incumbent, cases, results) for rule in gate.rules)


def meet_floors(
    gate: Gate, candidate: Manifest, cases: pl.DataFrame, results: pl.DataFrame, metrics: Collection[str]
) -> tuple[RuleVerdict, ...]:
    """Ask every floor of `metrics` of one release; frames as in `compare`."""
    return tuple(
        _floor(gate, metric, floor, _values(candidate.release_id, metric, cases, results))
        for metric, floor in gate.floors.items()
        if metric in metrics
    )


def same_retrieval(one: Manifest, other: Manifest) -> bool:
    """Whether both find the same for every question, so that there is nothing to be estimated."""
    condensed = "condensed" in (one.retrieval.query, other.retrieval.query)
    return (one.embedder, one.retrieval, one.index.version) == (
        other.embedder,
        other.retrieval,
        other.index.version,
    ) and (not condensed or one.generator == other.generator)


def trained_on(cases: pl.DataFrame, training: Collection[str]) -> list[str]:
    """Ids of the cases that are in a training set, which names cases by id or by hash."""
    found = cases.filter(pl.col("case_id").is_in(list(training)) | pl.col("case_hash").is_in(list(training)))
    return sorted(found["case_id"])


def uses(cases: pl.DataFrame, results: pl.DataFrame, events: pl.DataFrame) -> Uses:
    """Count the uses of held-out cases: `results` and `events` are the rows of their tables."""
    scored = results.join(cases, on=["case_id", "case_hash"], how="semi")
    judged = events.filter(pl.col("gate").str.json_path_match("$.rules[0].metric").is_not_null())
    # A decision of two steps (an approval that moves prod) is one.
    decisions = judged.select("release_id", "author", "gate").n_unique() if judged.height else 0
    return Uses(releases=scored["release_id"].n_unique(), decisions=decisions)


def _rule(
    gate: Gate,
    rule: GateRule,
    candidate: Manifest,
    incumbent: Manifest,
    cases: pl.DataFrame,
    results: pl.DataFrame,
) -> RuleVerdict:
    ours = _values(candidate.release_id, rule.metric, cases, results)
    theirs = _values(incumbent.release_id, rule.metric, cases, results)
    pairs = ours.join(theirs, on="case_id", suffix="_incumbent").sort("case_id")
    blank = RuleVerdict(
        metric=rule.metric, mode=rule.mode, asked=rule.margin, outcome="inconclusive", cases=pairs.height, why=""
    )
    if pairs.is_empty():
        return replace(blank, why=f"no held-out case measures it on both sides{_more_answers(rule.metric)}")
    sign = -1 if rule.metric in LESS_IS_BETTER else 1
    gains = sign * (pairs["value"] - pairs["value_incumbent"]).to_numpy()
    measured = replace(
        blank,
        candidate=float(pairs["value"].to_numpy().mean()),
        incumbent=float(pairs["value_incumbent"].to_numpy().mean()),
        gain=float(gains.mean()),
    )
    wanted = rule.margin if rule.mode == "better" else -rule.margin
    if rule.metric in RETRIEVAL_SCORES and same_retrieval(candidate, incumbent):
        outcome: Outcome = "passed" if rule.mode == "not_worse" else "failed"
        return replace(measured, bound=0.0, outcome=outcome, why="both retrieve alike, whatever is asked")
    measured = replace(measured, bound=lower_bound(gains, -1.0, gate.alpha))
    outcome, why = _outcome(gate, rule, measured, wanted)
    return replace(measured, outcome=outcome, why=why)


def _outcome(gate: Gate, rule: GateRule, measured: RuleVerdict, wanted: float) -> tuple[Outcome, str]:
    """Of a rule that was measured: `wanted` is the gain that the bound has to lie above."""
    assert measured.gain is not None
    assert measured.bound is not None
    if measured.cases < gate.min_cases:
        return "inconclusive", f"fewer than min_cases {gate.min_cases}{_more_answers(rule.metric)}"
    if measured.bound > wanted:
        return "passed", f"the gain is above {wanted:g} (bound {measured.bound:+.3f})"
    # At the margin itself: a candidate that is no better is not better.
    if measured.gain < wanted or (rule.mode == "better" and measured.gain <= wanted):
        return "failed", f"the gain {measured.gain:+.3f} is not above {wanted:g}"
    return "inconclusive", f"too few cases to tell that the gain is above {wanted:g} (bound {measured.bound:+.3f})"


def _floor(gate: Gate, metric: str, floor: float, values: pl.DataFrame) -> RuleVerdict:
    blank = RuleVerdict(
        metric=metric, mode="floor", asked=floor, outcome="inconclusive", cases=values.height, why="no held-out case"
    )
    if values.is_empty():
        return replace(blank, why=f"no held-out case measures it{_more_answers(metric)}")
    mean = float(values["value"].to_numpy().mean())
    if values.height < gate.min_cases:
        why = f"fewer than min_cases {gate.min_cases}{_more_answers(metric)}"
        return replace(blank, candidate=mean, why=why)
    less = metric in LESS_IS_BETTER
    met = mean <= floor if less else mean >= floor
    why = f"{mean:.3f} is {'at' if met else 'not at'} {'most' if less else 'least'} {floor:g}"
    return replace(blank, candidate=mean, outcome="passed" if met else "failed", why=why)


def _more_answers(metric: str) -> str:
    """Of metrics of answers, what makes more cases of them."""
    return "" if metric in RETRIEVAL_SCORES else " (evaluation.answers says how many cases are answered)"


def _values(release_id: str, metric: str, cases: pl.DataFrame, results: pl.DataFrame) -> pl.DataFrame:
    """Columns `case_id`, `value`: a row a held-out case that measures the metric.

    A case that the release fails on has the worst value: it would be better than it is, if what it cannot do did not count.
    """
    worst = 1.0 if metric in LESS_IS_BETTER else 0.0
    step = "retrieval: " if metric in RETRIEVAL_SCORES else "answer: "
    failed = pl.col("error").str.contains(step, literal=True).fill_null(value=False)
    asked = cases.filter(pl.col("answers").list.len() > 0) if metric in NEED_RIGHT_ANSWERS else cases
    return (
        results.filter(pl.col("release_id") == release_id)
        .join(asked.select("case_id", "case_hash"), on=["case_id", "case_hash"], how="semi")
        .select("case_id", value=pl.when(failed).then(worst).otherwise(score_of(metric)))
        .drop_nulls()
    )


def _asks(rule: RuleVerdict) -> str:
    if rule.mode == "floor":
        return f"{rule.metric} at {'most' if rule.metric in LESS_IS_BETTER else 'least'} {rule.asked:g}"
    margin = f", margin {rule.asked:g}" if rule.asked else ""
    return f"{rule.metric} {rule.mode}{margin}"


def _numbers(rule: RuleVerdict) -> list[str]:
    values = (rule.candidate, rule.incumbent)
    signed = (rule.gain, rule.bound)
    return [
        *("-" if value is None else f"{value:.3f}" for value in values),
        *("-" if value is None else f"{value:+.3f}" for value in signed),
    ]
