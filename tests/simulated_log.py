"""A request log as an experiment leaves it: users who ask again and again, slow hours, bad hours, and people who rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from llmops_core.release.arms import Experiment
from llmops_core.release.comparison import Log
from llmops_core.traffic.columns import TIME, ColumnType

SCHEMA: Mapping[str, ColumnType] = {
    "request_id": pl.String,
    "user": pl.String,
    "channel": pl.String,
    "experiment": pl.String,
    "shadow_of": pl.String,
    "started_at": TIME,
    "status": pl.Int32,
    "blank": pl.Boolean,
    "total_ms": pl.Float64,
}
FEEDBACK: Mapping[str, ColumnType] = {
    "feedback_id": pl.String,
    "request_id": pl.String,
    "at": TIME,
    "harm": pl.Float64,
}


@dataclass(frozen=True)
class Traffic:
    """How users behave, and what the canary does to its own: added to the chance of each harm, times the latency."""

    users: int = 600
    hours: float = 10
    before: int = 200
    errors: float = 0.0
    empty: float = 0.0
    slower: float = 1.0
    unhappy: float = 0.0
    rates: float = 0.2


def simulated(experiment: Experiment, traffic: Traffic, random: np.random.Generator) -> Log:
    """Requests of users who ask as often as a Pareto law says, each with a temper of his own.

    An hour of trouble and a slow hour fall on both arms.
    """
    asks = np.minimum(1 + random.pareto(1.1, traffic.users).astype(int), 200)
    of = np.repeat(np.arange(traffic.users), asks)
    names = np.array([f"{random.integers(1 << 60)}" for _ in range(traffic.users)])
    drawn = np.array([experiment.drawn(name) for name in names])
    # A user comes some time, and asks on from there.
    hours = random.uniform(0, traffic.hours, traffic.users)[of] + random.exponential(0.5, len(of))
    temper = random.beta(1, 2, traffic.users)[of]
    slowness = np.exp(random.normal(0, 0.7, traffic.users))[of]
    bad_hour = (hours % 7) < 0.5
    canary = drawn[of]
    chance = 0.02 + 0.3 * bad_hour * temper
    failed = random.random(len(of)) < chance + traffic.errors * canary
    blank = random.random(len(of)) < 0.03 * temper + traffic.empty * canary
    total = 80 * slowness * np.exp(np.minimum(random.standard_t(2, len(of)), 10)) * (1 + 3 * bad_hour)
    total = np.where(canary, total * traffic.slower, total)
    rows = _rows(experiment, experiment.began_at, names[of], hours, failed, blank, total, canary)
    unhappy = random.random(len(of)) < 0.2 + 0.5 * temper + traffic.unhappy * canary
    rated = np.nonzero(random.random(len(of)) < traffic.rates)[0]
    said = pl.DataFrame(
        {
            "feedback_id": [f"f{number:07}" for number in rated],
            "request_id": rows["request_id"].gather(rated),
            "at": rows["started_at"].gather(rated) + timedelta(seconds=20),
            "harm": unhappy[rated].astype(float),
        },
        schema=FEEDBACK,
    )
    earlier = np.arange(traffic.before)
    none = np.zeros(traffic.before, bool)
    usual = 80 * np.exp(np.minimum(random.standard_t(2, traffic.before), 10))
    start = experiment.began_at - timedelta(days=1)
    reference = _rows(experiment, start, earlier.astype(str), earlier / traffic.before, none, none, usual, none)
    reference = reference.with_columns(
        pl.lit(None, pl.String).alias("experiment"), ("before-" + pl.col("request_id")).alias("request_id")
    )
    return Log(pl.concat([reference, rows]), said)


def until(log: Log, moment: datetime) -> Log:
    """What was in the log at a moment."""
    return Log(log.requests.filter(pl.col("started_at") <= moment), log.feedback.filter(pl.col("at") <= moment))


def _rows(
    experiment: Experiment,
    start: datetime,
    users: np.ndarray,
    hours: np.ndarray,
    failed: np.ndarray,
    blank: np.ndarray,
    total: np.ndarray,
    canary: np.ndarray,
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "request_id": [f"q{number:07}" for number in range(len(users))],
            "user": users,
            "channel": np.where(canary, "canary", "prod"),
            "experiment": [experiment.experiment] * len(users),
            "shadow_of": [None] * len(users),
            "started_at": [start + timedelta(hours=float(hour)) for hour in hours],
            "status": np.where(failed, 503, 200),
            "blank": blank | failed,
            "total_ms": total,
        },
        schema=SCHEMA,
    )
