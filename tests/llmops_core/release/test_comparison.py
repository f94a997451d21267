"""The comparison of a canary: what it finds, what it does not, and that a look costs nothing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from llmops_core.release.arms import Experiment, Plan
from llmops_core.release.comparison import Compared, Comparison, Log, bets, compare
from tests.simulated_log import FEEDBACK, SCHEMA, Traffic, simulated, until

PLAN = Plan("share", 0.3, 50, 24, 0.05, ("errors", "latency", "empty", "feedback"), "r0")
EXPERIMENT = Experiment("01a20ee5-8987-70df-b17d-e9fccc1d5e0c", "r1", PLAN)
END = EXPERIMENT.began_at + timedelta(hours=12)


def judged(traffic: Traffic, seed: int = 1, **plan: Any) -> Comparison:
    experiment = replace(EXPERIMENT, plan=replace(PLAN, **plan))
    return compare(experiment, simulated(experiment, traffic, np.random.default_rng(seed)), END)


def of(comparison: Comparison, metric: str) -> Compared:
    return next(compared for compared in comparison.metrics if compared.metric == metric)


@pytest.mark.parametrize("usual", [0.05, 0.2, 0.6])
def test_false_rollbacks_are_as_rare_as_alpha_says_at_a_look_after_each_user(usual: float) -> None:
    """With a harm that hangs on the hour, a share that makes few users bear much, and whatever was taken for usual."""
    random = np.random.default_rng(7)
    false = 0
    for _ in range(400):
        users, share = 800, 0.1
        rate = 0.05 + 0.4 * (np.arange(users) % 200 < 40)
        harm = (random.random(users) < rate).astype(float)
        path = bets(random.random(users) < share, harm, share, usual)
        false += bool((path >= 1 / 0.05).any())
    assert false <= 0.05 * 400


def test_looking_every_hour_at_traffic_with_heavy_users_rolls_back_no_more_than_alpha() -> None:
    random = np.random.default_rng(11)
    false = 0
    for _ in range(40):
        log = simulated(EXPERIMENT, Traffic(), random)
        looks = (
            compare(EXPERIMENT, until(log, EXPERIMENT.began_at + timedelta(hours=h)), END) for h in range(1, 13, 2)
        )
        false += any(metric.state == "harm" for look in looks for metric in look.metrics)
    assert false <= 0.05 * 40


@pytest.mark.parametrize(
    ("metric", "traffic"),
    [
        ("errors", Traffic(errors=0.3)),
        ("empty", Traffic(empty=0.3)),
        ("latency", Traffic(slower=8)),
        ("feedback", Traffic(unhappy=0.5, rates=0.9, users=1500)),
    ],
)
def test_harm_in_one_metric_rolls_back_and_says_which(metric: str, traffic: Traffic) -> None:
    found = judged(traffic)
    assert found.outcome == "rolled_back"
    assert f"harm in {metric}" in found.reason
    harmed = of(found, metric)
    assert harmed.wealth >= harmed.needed == 4 / 0.05
    assert (harmed.canary.harm or 0) > (harmed.prod.harm or 0)


def test_a_canary_that_is_better_passes() -> None:
    assert judged(Traffic(slower=0.3, unhappy=-0.2, rates=0.5)).outcome == "passed"


def test_one_user_is_no_evidence_however_often_he_fails() -> None:
    log = simulated(EXPERIMENT, Traffic(), np.random.default_rng(3))
    canary = log.requests.filter(pl.col("channel") == "canary")
    busy = pl.concat([canary.head(1)] * 1000).with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias("request_id"), pl.lit(503, pl.Int32).alias("status")
    )
    found = compare(EXPERIMENT, Log(pl.concat([log.requests, busy]), log.feedback), END)
    assert of(found, "errors").wealth < of(found, "errors").needed / 2
    assert found.requests["canary"] == canary.height + 1000


def test_rows_that_come_late_and_in_any_order_give_the_same() -> None:
    log = simulated(EXPERIMENT, Traffic(), np.random.default_rng(5))
    mixed = Log(
        log.requests.sample(fraction=1, shuffle=True, seed=1), log.feedback.sample(fraction=1, shuffle=True, seed=2)
    )
    again = compare(EXPERIMENT, mixed, END)
    for one, other in zip(compare(EXPERIMENT, log, END).metrics, again.metrics, strict=True):
        assert one.wealth == pytest.approx(other.wealth, rel=1e-9)
        assert (one.prod.users, one.canary.users, one.state) == (other.prod.users, other.canary.users, other.state)


def test_too_little_data_waits_and_then_rolls_back() -> None:
    log = simulated(EXPERIMENT, Traffic(users=60), np.random.default_rng(1))
    waiting = compare(EXPERIMENT, log, END)
    assert (waiting.outcome, round(waiting.hours_left)) == ("waiting", 12)
    assert "of 50 in canary" in waiting.reason
    late = compare(EXPERIMENT, log, EXPERIMENT.began_at + timedelta(hours=25))
    assert late.outcome == "rolled_back"
    assert late.reason.startswith("too little data after 24 hours")


def test_no_data_at_all_waits() -> None:
    empty = Log(pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=FEEDBACK))
    assert compare(EXPERIMENT, empty, END).outcome == "waiting"


def test_a_metric_that_is_not_available_never_passes() -> None:
    found = judged(Traffic(before=20))
    assert found.outcome == "waiting"
    assert "what is slow is not known" in found.reason
    experiment = replace(EXPERIMENT, plan=PLAN)
    log = simulated(experiment, Traffic(before=20), np.random.default_rng(1))
    assert compare(experiment, log, EXPERIMENT.began_at + timedelta(hours=24)).outcome == "rolled_back"


def test_feedback_is_compared_where_anybody_gives_any() -> None:
    unused = judged(Traffic(rates=0.0))
    assert (unused.outcome, of(unused, "feedback").state) == ("passed", "not in use")
    assert "nobody gives any" in unused.reason
    log = simulated(EXPERIMENT, Traffic(rates=0.5), np.random.default_rng(1))
    of_prod = log.requests.filter(pl.col("channel") == "prod")["request_id"]
    one_sided = Log(log.requests, log.feedback.filter(pl.col("request_id").is_in(of_prod.implode())))
    found = compare(EXPERIMENT, one_sided, END)
    assert (found.outcome, found.reason) == ("waiting", "feedback: 0 of 1 in canary")


def test_a_client_who_left_is_no_error_and_was_kept_waiting() -> None:
    log = simulated(EXPERIMENT, Traffic(), np.random.default_rng(1))
    left = log.requests.with_columns(
        pl.when(pl.col("channel") == "canary", pl.col("started_at") > EXPERIMENT.began_at)
        .then(pl.lit(499))
        .otherwise(pl.col("status"))
        .cast(pl.Int32)
        .alias("status"),
        pl.when(pl.col("channel") == "canary").then(60_000.0).otherwise(pl.col("total_ms")).alias("total_ms"),
    )
    found = compare(EXPERIMENT, Log(left, log.feedback), END)
    assert of(found, "errors").canary.users == 0
    assert of(found, "latency").state == "harm"


def test_copies_are_compared_with_their_originals() -> None:
    plan = replace(PLAN, mode="shadow", share=1.0)
    experiment = replace(EXPERIMENT, plan=plan)
    log = simulated(EXPERIMENT, Traffic(), np.random.default_rng(1))
    asked = log.requests.filter(pl.col("started_at") >= experiment.began_at).with_columns(
        pl.lit("prod").alias("channel")
    )
    copies = asked.with_columns(
        pl.lit("shadow").alias("channel"),
        pl.col("request_id").alias("shadow_of"),
        ("copy-" + pl.col("request_id")).alias("request_id"),
    )
    same = compare(experiment, Log(pl.concat([asked, copies]), log.feedback), END)
    assert (same.outcome, {metric.metric for metric in same.metrics}) == ("passed", {"errors", "empty"})
    assert of(same, "errors").wealth == 1.0
    every_fifth = pl.int_range(pl.len()) % 5 == 0
    worse = copies.with_columns(
        pl.when(every_fifth).then(500).otherwise(pl.col("status")).cast(pl.Int32).alias("status")
    )
    found = compare(experiment, Log(pl.concat([asked, worse]), log.feedback), END)
    assert (found.outcome, of(found, "errors").state) == ("rolled_back", "harm")
