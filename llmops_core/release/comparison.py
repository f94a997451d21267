"""Whether the canary does harm: a test on the request log that may be looked at any time.

**What is compared.** Each user counts once for each metric, with the first request that has the metric: a user who asks a
hundred times says no more than one who asks once, since only the user was drawn by lot. The harm of a request is a number x
from 0 to 1: `errors` 1 if it failed, `empty` 1 if its answer is blank, `latency` the share of prod's requests of the days
before that were faster, `feedback` 1 for a thumb down (or 1 - score).

**The test.** A bet for each user: with p the canary's share of users, Z = 1 if the user is in it, and m the harm that is usual
(from prod's log before the experiment), the gain is g = (Z - p)(x - m). Under the hypothesis that the canary does a user no more
harm than prod, E[g] <= 0 whatever was seen before, because the arm is drawn by a hash that knows neither user nor hour: time
of day, trends and heavy users fall on both arms alike. So the wealth prod(1 + λg) is a non-negative supermartingale for each
fixed λ, and so is its mean over several λ; by Ville's inequality it ever exceeds 1/α with a probability of at most α, at
whatever moments one looks. α is split over the metrics. In shadow mode both releases answer the same request, and the gain is
the difference of their harms.

All λ, m and p are fixed when the experiment begins, so the product does not depend on the order of its factors: rows that reach
the lakehouse late, from a gateway that was away, only add factors, and any process computes the same from the same log. (What
could still change a factor: an earlier request of a user already counted that arrives after a later one, over another gateway.)

Sources: Waudby-Smith & Ramdas, 'Estimating means of bounded random variables by betting', JRSS-B 86 (2024), for bets and their
mixture; Duan, Ramdas & Wasserman, 'Interactive rank testing by betting', CLeaR 2022, and Ham, Bojinov, Lindon & Tingley,
'Design-based confidence sequences' (2022), for bets on the assignment.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.arms import Experiment, Metric, Mode
from llmops_core.release.channels import CANARY

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

REFERENCE = timedelta(days=7)
"""How far before the experiment prod's log tells what is usual."""
# Fewer requests say too little of how slow the slow ones are.
REFERENCE_REQUESTS = 50
# What is usual while prod's log says little; it weighs as much as so many requests. A wrong value costs only sensitivity.
USUAL: Mapping[Metric, float] = {"errors": 0.02, "empty": 0.02, "latency": 0.5, "feedback": 0.3}
USUAL_WEIGHT = 20
# Shares of the largest stake that cannot lose everything: large ones catch gross harm within a few users, small ones subtle harm.
STAKES = (0.5, 0.25, 0.12, 0.06, 0.03)

# More is not told apart: a float would overflow some time.
MOST = 1e12

SHADOW, PROD = "shadow", "prod"
CLIENT_LEFT = 499
SHADOW_METRICS: tuple[Metric, ...] = ("errors", "empty")
"""Nobody rates a copy, and it waits where a user would not."""

Outcome = Literal["passed", "rolled_back", "waiting"]
State = Literal["harm", "no harm", "waiting", "not in use"]


@dataclass(frozen=True)
class Arm:
    """What an arm shows of a metric."""

    users: int
    harm: float | None
    """Mean over its users, 0 to 1."""


@dataclass(frozen=True)
class Compared:
    """A metric in both arms."""

    metric: Metric
    state: State
    wealth: float
    """Of the bet that the canary does harm, from 1."""
    needed: float
    """The wealth at which harm is declared: 1 / its part of alpha."""
    prod: Arm
    canary: Arm
    why: str
    """What it waits for, or what was found; empty if all is well."""


@dataclass(frozen=True)
class Comparison:
    """What the log says of an experiment at one look."""

    outcome: Outcome
    reason: str
    metrics: tuple[Compared, ...]
    requests: Mapping[str, int]
    """Arm → its requests, of which each user's first counts."""
    outside: int
    """Requests to prod that are in no arm: without `user`, or while the canary was not loaded."""
    hours_left: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "metrics": [asdict(metric) for metric in self.metrics]}


@dataclass(frozen=True)
class Log:
    """The part of the request log that an experiment is judged by."""

    requests: pl.DataFrame
    """One row a request to prod or canary: `request_id`, `user`, `channel`, `experiment`, `shadow_of`, `started_at`,
    `status`, `blank` (of the answer), `total_ms`."""
    feedback: pl.DataFrame
    """One row a message: `feedback_id`, `request_id`, `at`, `harm` (null: it rates nothing)."""


def read_log(lakehouse: Lakehouse, assistant: str, experiment: Experiment) -> Log:
    """Read what came since `REFERENCE` before the experiment."""
    since = experiment.began_at - REFERENCE
    requests = (
        lakehouse.table(assistant, "traffic_requests")
        .scan()
        .filter(pl.col("started_at") >= since, pl.col("channel").is_in([PROD, CANARY, SHADOW]))
        .select(
            *("request_id", "user", "channel", "experiment", "shadow_of", "started_at", "status"),
            (pl.col("answer").fill_null("").str.strip_chars() == "").alias("blank"),
            pl.col("timings_ms").str.json_path_match("$.total").cast(pl.Float64).alias("total_ms"),
        )
        .collect()
    )
    feedback = (
        lakehouse.table(assistant, "traffic_feedback")
        .scan()
        .filter(pl.col("at") >= since)
        .select(
            *("feedback_id", "request_id", "at"),
            (1 - pl.coalesce("score", (pl.col("thumbs") + 1) / 2)).alias("harm"),
        )
        .collect()
    )
    return Log(requests, feedback)


def compare(experiment: Experiment, log: Log, now: datetime) -> Comparison:
    """Judge an experiment by the log: harm ends it at once; it passes when every metric has enough in both arms."""
    plan = experiment.plan
    ours = log.requests.filter(pl.col("experiment") == experiment.experiment)
    before = log.requests.filter(pl.col("channel") == PROD, pl.col("started_at") < experiment.began_at)
    metrics: tuple[Metric, ...] = plan.metrics
    if plan.mode == "shadow":
        metrics = tuple(metric for metric in metrics if metric in SHADOW_METRICS)
    compared = tuple(_compared(experiment, metric, len(metrics), ours, before, log.feedback) for metric in metrics)
    second = _second_arm(plan.mode)
    hours_left = plan.max_hours - (now - experiment.began_at) / timedelta(hours=1)
    outcome, reason = _verdict(compared, hours_left, plan.max_hours)
    since = log.requests.filter(pl.col("channel") == PROD, pl.col("started_at") >= experiment.began_at)
    return Comparison(
        outcome,
        reason,
        compared,
        {arm: ours.filter(pl.col("channel") == arm).height for arm in (PROD, second)},
        since.filter(pl.col("experiment").is_null()).height,
        max(0.0, hours_left),
    )


def wealth_path(gains: Floats, largest_loss: float) -> Floats:
    """The wealth after each bet; `gains` are at least -`largest_loss`.

    The mean of prod(1 + λg) over `STAKES`, λ = stake / largest_loss (Waudby-Smith & Ramdas 2024, section 4).
    """
    stakes = np.array(STAKES)[:, None] / largest_loss
    logs = np.logaddexp.reduce(np.cumsum(np.log1p(stakes * gains[None, :]), axis=1), axis=0)
    wealth: Floats = np.exp(np.minimum(logs - np.log(len(STAKES)), np.log(MOST)))
    return wealth


def bets(in_canary: np.ndarray[tuple[int], np.dtype[np.bool_]], harm: Floats, share: float, usual: float) -> Floats:
    """The wealth after each user of an experiment by share; all arguments by user, `usual` strictly between 0 and 1."""
    gains: Floats = (in_canary - share) * (harm - usual)
    return wealth_path(gains, max(share * (1 - usual), (1 - share) * usual))


def _compared(
    experiment: Experiment,
    metric: Metric,
    of: int,
    ours: pl.DataFrame,
    before: pl.DataFrame,
    feedback: pl.DataFrame,
) -> Compared:
    plan = experiment.plan
    needed = of / plan.alpha
    reference = before["total_ms"].drop_nulls().sort()
    nothing = Arm(0, None)
    if metric == "latency" and len(reference) < REFERENCE_REQUESTS:
        why = (
            f"what is slow is not known: prod answered {len(reference)} requests in the {REFERENCE.days} days before the canary,"
            f" and it takes {REFERENCE_REQUESTS}"
        )
        return Compared(metric, "waiting", 1.0, needed, nothing, nothing, why)
    harmed = _harm(metric, ours, reference, feedback)
    if plan.mode == "shadow":
        prod, second, path = _pairs(harmed)
    else:
        usual = _usual(metric, _harm(metric, before, reference, feedback))
        users = _first_of_each(harmed)
        in_canary = (users["channel"] == CANARY).to_numpy()
        harm = users["harm"].to_numpy()
        prod, second = _arm(harm[~in_canary]), _arm(harm[in_canary])
        path = bets(in_canary, harm, plan.share, usual)
    wealth = float(path[-1]) if len(path) else 1.0
    in_use = metric != "feedback" or not (harmed.is_empty() and _harm(metric, before, reference, feedback).is_empty())
    state, why = _state(metric, wealth >= needed, in_use, prod, second, plan.min_requests, _second_arm(plan.mode))
    return Compared(metric, state, wealth, needed, prod, second, why)


def _state(
    metric: Metric, is_harm: bool, in_use: bool, prod: Arm, second: Arm, min_requests: int, name: str
) -> tuple[State, str]:
    if is_harm:
        return "harm", (
            f"harm in {metric}: {second.harm or 0:.3f} on average for {second.users} users of {name},"
            f" {prod.harm or 0:.3f} for {prod.users} of prod"
        )
    if not in_use:
        return "not in use", "nobody gives any, so it is not compared"
    # Few rate anything: where some do, each arm must have been rated.
    least = 1 if metric == "feedback" else min_requests
    short = [
        f"{arm.users} of {least} in {arm_name}" for arm_name, arm in ((PROD, prod), (name, second)) if arm.users < least
    ]
    return ("waiting", ", ".join(short)) if short else ("no harm", "")


def _verdict(compared: tuple[Compared, ...], hours_left: float, max_hours: float) -> tuple[Outcome, str]:
    if harms := [metric.why for metric in compared if metric.state == "harm"]:
        return "rolled_back", "; ".join(harms)
    waiting = "; ".join(f"{metric.metric}: {metric.why}" for metric in compared if metric.state == "waiting")
    if not waiting:
        unused = "".join(f"; {metric.metric}: {metric.why}" for metric in compared if metric.state == "not in use")
        return "passed", f"no harm found{unused}"
    if hours_left <= 0:
        return "rolled_back", f"too little data after {max_hours:g} hours: {waiting}"
    return "waiting", waiting


def _harm(metric: Metric, rows: pl.DataFrame, reference: pl.Series, feedback: pl.DataFrame) -> pl.DataFrame:
    """The rows that have the metric, with `harm`, in the order in which they count."""
    status = pl.col("status")
    if metric == "feedback":
        rated = feedback.filter(pl.col("harm").is_not_null()).sort("at", "feedback_id")
        # The first word on a request: a later one would change what was counted already.
        first = rated.unique("request_id", keep="first", maintain_order=True)
        return rows.join(first, on="request_id", how="inner").sort("at", "feedback_id")
    if metric == "errors":
        # Whoever left before the answer says nothing of it.
        kept = rows.filter(status != CLIENT_LEFT).with_columns((status != 200).cast(pl.Float64).alias("harm"))
    elif metric == "empty":
        kept = rows.filter(status == 200).with_columns(pl.col("blank").cast(pl.Float64).alias("harm"))
    else:
        # One that failed at once was not fast; of one whose client left it is known that it took longer.
        kept = rows.filter(status.is_in([200, CLIENT_LEFT]), pl.col("total_ms").is_not_null())
        slower = [reference.search_sorted(kept["total_ms"], side) for side in ("left", "right")]
        kept = kept.with_columns(((slower[0] + slower[1]) / (2 * max(1, len(reference)))).alias("harm"))
    return kept.sort("started_at", "request_id")


def _first_of_each(harmed: pl.DataFrame) -> pl.DataFrame:
    return harmed.unique("user", keep="first", maintain_order=True)


def _pairs(harmed: pl.DataFrame) -> tuple[Arm, Arm, Floats]:
    """Prod's harm, the copies', and the wealth, over each user's first request that has both."""
    copies = harmed.filter(pl.col("channel") == SHADOW)
    originals = harmed.filter(pl.col("channel") == PROD).select(
        "request_id", pl.col("harm").alias("harm_of_prod"), pl.col("started_at").alias("asked_at")
    )
    pairs = copies.join(originals, left_on="shadow_of", right_on="request_id", how="inner").sort(
        "asked_at", "shadow_of"
    )
    users = _first_of_each(pairs)
    prod, copy = users["harm_of_prod"].to_numpy(), users["harm"].to_numpy()
    return _arm(prod), _arm(copy), wealth_path(copy - prod, 1.0)


def _usual(metric: Metric, before: pl.DataFrame) -> float:
    """The harm that is usual on prod, never 0 or 1."""
    if metric == "latency":
        return USUAL[metric]
    total = float(before["harm"].sum()) + USUAL[metric] * USUAL_WEIGHT
    return total / (before.height + USUAL_WEIGHT)


def _arm(harm: Floats) -> Arm:
    return Arm(len(harm), float(harm.mean()) if len(harm) else None)


def _second_arm(mode: Mode) -> str:
    return SHADOW if mode == "shadow" else CANARY
