"""The gate's verdict: what passes, what fails, what a person has to decide, and how often it is wrong."""

import json
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from llmops_core.assistant.schema import Gate
from llmops_core.ids import canonical_json
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.release import gate
from llmops_core.release.gate import RuleVerdict, Uses, Verdict
from tests.llmops_core.release.evaluated import case_rows, result_rows
from tests.llmops_core.release.test_manifest import manifest

CASES = 160
OLD, NEW = manifest(), manifest("i2", prompt=2)
NOT_WORSE = {"metric": "recall_at_5", "mode": "not_worse", "margin": 0.05}
BETTER = {"metric": "recall_at_5", "mode": "better"}


def settings(*rules: dict[str, Any], **more: Any) -> Gate:
    return Gate.model_validate({"rules": rules, **more})


def scores(wins: int, losses: int, n: int = CASES) -> tuple[list[float], list[float]]:
    """Scores of the candidate and of the incumbent: one case in two is found by both, but for the first ones."""
    theirs = [0.0] * wins + [1.0] * losses + [float(number % 2) for number in range(n - wins - losses)]
    ours = [1.0] * wins + [0.0] * losses + theirs[wins + losses :]
    return ours, theirs


def compared(rule: dict[str, Any], wins: int, losses: int, n: int = CASES, **more: Any) -> RuleVerdict:
    ours, theirs = scores(wins, losses, n)
    results = pl.concat([result_rows(NEW.release_id, ours), result_rows(OLD.release_id, theirs)])
    (found,) = gate.compare(settings(rule, **more), NEW, OLD, case_rows(n), results)
    return found


@pytest.mark.parametrize(
    ("rule", "wins", "losses", "outcome"),
    [
        (NOT_WORSE, 0, 0, "passed"),
        (NOT_WORSE, 3, 3, "passed"),
        (NOT_WORSE, 0, 16, "failed"),
        (NOT_WORSE, 8, 12, "inconclusive"),
        (BETTER, 0, 0, "failed"),
        (BETTER, 10, 10, "failed"),
        (BETTER, 2, 1, "inconclusive"),
        (BETTER, 12, 1, "passed"),
        (BETTER | {"margin": 0.05}, 12, 1, "inconclusive"),
        (BETTER | {"margin": 0.05}, 20, 1, "passed"),
        (BETTER | {"margin": 0.05}, 8, 0, "failed"),
    ],
)
def test_a_rule_passes_on_its_bound_and_fails_on_its_value(
    rule: dict[str, Any], wins: int, losses: int, outcome: str
) -> None:
    found = compared(rule, wins, losses)
    assert found.outcome == outcome, found
    assert found.cases == CASES
    assert found.gain == pytest.approx((wins - losses) / CASES)
    assert found.candidate is not None
    assert found.incumbent is not None
    assert found.candidate - found.incumbent == pytest.approx(found.gain)
    assert found.bound is not None
    assert found.bound < (wins - losses) / CASES


def test_with_fewer_cases_than_asked_for_a_person_decides_however_clear_it_looks() -> None:
    assert compared(NOT_WORSE, 0, 50, 99).outcome == "inconclusive"
    assert compared(NOT_WORSE, 0, 50, 99, min_cases=99).outcome == "failed"


def test_where_nothing_differs_so_many_cases_are_needed_as_would_show_the_margin() -> None:
    """Of n cases without a loss, the rate of losses is below 1 − alpha ** (1 / n) at most."""
    margin = NOT_WORSE | {"margin": 0.02}
    assert compared(margin, 0, 0, 100).outcome == "inconclusive"
    assert compared(margin, 0, 0, 160).outcome == "passed"


def test_two_releases_that_retrieve_alike_need_no_estimate() -> None:
    prompt = manifest(prompt=2)
    results = pl.concat([result_rows(release.release_id, [1.0] * 100) for release in (OLD, prompt)])
    rules = settings({**NOT_WORSE, "margin": 0}, BETTER)
    same, better = gate.compare(rules, prompt, OLD, case_rows(100), results)
    assert (same.outcome, better.outcome) == ("passed", "failed")
    condensed = OLD.retrieval.model_copy(update={"query": "condensed"})
    first = OLD.model_copy(update={"retrieval": condensed})
    other = first.model_copy(update={"generator": first.generator.model_copy(update={"revision": "other"})})
    assert gate.same_retrieval(first, first.model_copy(update={"prompt": prompt.prompt}))
    assert not gate.same_retrieval(first, other)


def test_of_blank_answers_less_is_better() -> None:
    rule = {"metric": "empty_rate", "mode": "not_worse", "margin": 0.1}
    blank = [True] * 20 + [False] * 80
    none = [False] * 100

    def outcome(ours: list[bool], theirs: list[bool]) -> str:
        empty = [result_rows(release.release_id, [1.0] * 100) for release in (NEW, OLD)]
        results = pl.concat(
            [rows.with_columns(empty=pl.Series(values)) for rows, values in zip(empty, (ours, theirs), strict=True)]
        )
        (found,) = gate.compare(settings(rule), NEW, OLD, case_rows(100), results)
        assert found.gain == pytest.approx(np.mean(theirs) - np.mean(ours))
        return found.outcome

    assert (outcome(none, blank), outcome(blank, none)) == ("passed", "failed")


def test_a_case_that_the_candidate_fails_on_counts_as_its_worst_and_not_as_absent() -> None:
    errors = dict.fromkeys(range(20), "retrieval: InvalidRequestError: too long")
    ours: list[float | None] = [None] * 20 + [1.0] * 80
    results = pl.concat(
        [result_rows(NEW.release_id, ours, error=errors), result_rows(OLD.release_id, [1.0] * 100)],
    )
    (found,) = gate.compare(settings(NOT_WORSE), NEW, OLD, case_rows(100), results)
    assert (found.outcome, found.cases, found.candidate) == ("failed", 100, 0.8)
    (answered,) = gate.compare(settings({**NOT_WORSE, "metric": "f1"}), NEW, OLD, case_rows(100), results)
    assert (answered.outcome, answered.cases) == ("inconclusive", 0)
    assert "evaluation.answers" in answered.why


def test_only_the_same_version_of_the_same_held_out_case_is_compared() -> None:
    ours, theirs = scores(0, 0)
    other = result_rows(OLD.release_id, theirs).with_columns(
        case_hash=pl.when(pl.col("case_id") < "c010").then(pl.lit("older")).otherwise("case_hash")
    )
    results = pl.concat([result_rows(NEW.release_id, ours), other])
    (found,) = gate.compare(settings(NOT_WORSE), NEW, OLD, case_rows(CASES).head(120), results)
    assert found.cases == 110


def test_floors_are_met_by_values() -> None:
    results = result_rows(NEW.release_id, [1.0] * 80 + [0.0] * 20)
    limits = settings(floors={"recall_at_5": 0.8, "recall_at_1": 0.1, "empty_rate": 0.05})
    asked = gate.meet_floors(limits, NEW, case_rows(100), results, ["recall_at_5", "recall_at_1"])
    assert {rule.metric: rule.outcome for rule in asked} == {"recall_at_5": "passed", "recall_at_1": "inconclusive"}
    (above,) = gate.meet_floors(settings(floors={"recall_at_5": 0.81}), NEW, case_rows(100), results, ["recall_at_5"])
    assert (above.outcome, above.candidate) == ("failed", 0.8)
    (few,) = gate.meet_floors(settings(floors={"recall_at_5": 0.1}), NEW, case_rows(99), results, ["recall_at_5"])
    assert few.outcome == "inconclusive"
    blank = results.with_columns(empty=pl.Series([True] * 6 + [False] * 94))
    (most,) = gate.meet_floors(limits, NEW, case_rows(100), blank, ["empty_rate"])
    assert (most.outcome, most.candidate) == ("failed", 0.06)


def test_the_gate_passes_only_if_every_rule_does() -> None:
    passed, open_, failed = (compared(NOT_WORSE, 0, losses) for losses in (0, 5, 16))
    assert (passed.outcome, open_.outcome, failed.outcome) == ("passed", "inconclusive", "failed")
    assert gate.decide([passed, passed]) == "passed"
    assert gate.decide([passed, open_]) == "inconclusive"
    assert gate.decide([passed, open_, failed]) == "failed"
    assert gate.decide([]) == "inconclusive"


def test_cases_of_a_training_set_are_found_by_id_and_by_hash() -> None:
    assert gate.trained_on(case_rows(5), ["c001", "h003", "elsewhere"]) == ["c001", "c003"]


def test_uses_of_held_out_cases_are_counted_from_what_is_stored() -> None:
    results = pl.concat(
        [
            result_rows("one", [1.0]),
            result_rows("two", [1.0]),
            result_rows("old", [1.0]).with_columns(case_hash=pl.lit("x")),
        ]
    )
    judged = canonical_json({"rules": [{"metric": "recall_at_5"}]})
    events = pl.DataFrame(
        [
            {"event_id": "1", "release_id": "one", "author": "me", "gate": judged, "action": "approve"},
            {"event_id": "2", "release_id": "one", "author": "me", "gate": judged, "action": "promote"},
            {"event_id": "3", "release_id": "two", "author": "me", "gate": judged, "action": "promote"},
            {"event_id": "4", "release_id": "two", "author": "me", "gate": canonical_json({"rules": []})},
            {"event_id": "5", "release_id": "two", "author": "me", "gate": None},
        ],
        schema=TABLES["release_events"].frame_schema,
    )
    assert gate.uses(case_rows(5), results, events) == Uses(releases=2, decisions=2)
    assert gate.uses(case_rows(5), results.clear(), events.clear()) == Uses(releases=0, decisions=0)


def test_a_verdict_reads_back_from_its_json_and_shows_every_rule() -> None:
    verdict = Verdict(
        outcome="failed",
        release_id=NEW.release_id,
        incumbent_id=OLD.release_id,
        kind="candidate",
        why="it is worse",
        rules=(compared(NOT_WORSE, 0, 16),),
        alpha=0.05,
        min_cases=100,
        unscored={},
        uses=Uses(releases=2, decisions=1),
        report_id="r",
        snapshots={"evaluation_results": 2**62 + 1},
    )
    assert Verdict.from_dict(json.loads(canonical_json(verdict.to_dict()))) == verdict
    text = verdict.markdown()
    assert "| recall_at_5 not_worse, margin 0.05 | failed | 0.450 | 0.550 | -0.100 |" in text
    assert "used so far to score 2 release(s) and for 1 decision(s)" in text


# How often it is wrong, and how often it sees: the outcome of a rule depends on wins and losses alone.

RUNS = 2_000
ALPHA = 0.05
# Four standard deviations of a share of 2,000 at 5 %. The draws are seeded, so it holds or it does not.
TOLERANCE = 4 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5


@cache
def outcome_of(wins: int, losses: int) -> str:
    return compared(NOT_WORSE, wins, losses).outcome


def shares(win: float, loss: float) -> dict[str, float]:
    """The shares of outcomes when a case is won and lost with these probabilities."""
    draws = np.random.default_rng(7).multinomial(CASES, [win, loss, 1 - win - loss], size=RUNS)
    outcomes = [outcome_of(int(wins), int(losses)) for wins, losses, _ in draws]
    return {name: outcomes.count(name) / RUNS for name in ("passed", "failed", "inconclusive")}


@pytest.mark.parametrize(("win", "loss"), [(0.0, 0.05), (0.01, 0.06), (0.05, 0.1)])
def test_a_release_that_is_worse_by_the_margin_passes_with_probability_alpha_at_most(win: float, loss: float) -> None:
    assert shares(win, loss)["passed"] <= ALPHA + TOLERANCE


def test_equal_releases_pass_and_much_worse_ones_fail() -> None:
    assert shares(0.01, 0.01)["passed"] > 0.8
    assert shares(0.01, 0.01)["failed"] < 0.01
    dropped = shares(0.02, 0.12)
    assert dropped["passed"] == 0
    assert dropped["failed"] > 0.95
