"""How often the gate lets through what it must not, beside what usual intervals would do, by simulation.

160 held-out cases; on each the candidate wins, loses or does as the incumbent. It is worse by exactly the margin of 0.05, which
the rule `not_worse` has to stop at level 0.05, and differs on few or on many cases.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from llmops_core.evaluation.intervals import lower_bound
from tests.benchmark.conftest import Report

CASES, MARGIN, ALPHA, RUNS = 160, 0.05, 0.05, 2_000
# Of Student's distribution with 159 degrees of freedom, at 0.95.
T_QUANTILE = 1.6545
# Share of cases that the candidate wins; it loses those and the margin.
WON = (0.0, 0.01, 0.03, 0.1)

Bound = Callable[[int, int], float]
"""Of the mean gain, by the cases that were won and lost."""


def gains(won: int, lost: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [won, lost, CASES - won - lost])


@cache
def ours(won: int, lost: int) -> float:
    return lower_bound(gains(won, lost), -1.0, ALPHA)


@cache
def t_interval(won: int, lost: int) -> float:
    values = gains(won, lost)
    return float(values.mean() - T_QUANTILE * values.std(ddof=1) / np.sqrt(CASES))


@cache
def bootstrap(won: int, lost: int) -> float:
    counts = np.random.default_rng(1).multinomial(CASES, np.array([won, lost, CASES - won - lost]) / CASES, 10_000)
    return float(np.quantile((counts[:, 0] - counts[:, 1]) / CASES, ALPHA))


def passing(bound: Bound, won: float, lost: float) -> float:
    """Share of candidates that pass."""
    drawn = np.random.default_rng(2026).multinomial(CASES, [won, lost, 1 - won - lost], RUNS)
    return float(np.mean([bound(int(w), int(x)) > -MARGIN for w, x, _ in drawn]))


def test_what_is_worse_by_the_margin_passes_no_more_often_than_alpha(report: Report) -> None:
    shares = {bound: [passing(bound, won, won + MARGIN) for won in WON] for bound in (ours, t_interval, bootstrap)}
    worst = {bound.__name__: max(found) for bound, found in shares.items()}
    report(
        f"candidates worse by the margin that the gate passes, at most of {len(WON)} times {RUNS:,}",
        f"{worst['ours']:.1%} (at least {min(shares[ours]):.1%})",
        f"{worst['t_interval']:.1%} by a t interval, {worst['bootstrap']:.1%} by a bootstrap",
        worst["ours"] / ALPHA,
        "at most 1",
    )
    assert worst["ours"] <= ALPHA
    assert worst["bootstrap"] > ALPHA


def test_an_equal_release_passes(report: Report) -> None:
    passed = passing(ours, 0.01, 0.01)
    report(
        "candidates as good as the incumbent that the gate passes, 2% of cases changed",
        f"{passed:.1%}",
        f"{passing(t_interval, 0.01, 0.01):.1%} by a t interval",
        passed,
        "none stated",
    )
