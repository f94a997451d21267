"""How sure a mean is: a value never comes without the range that the number of cases allows.

Knows nothing of cases and metrics, only of numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
WEIGHTINGS = 10_000
_SEED = 20_002
_BLOCK = 4_000_000  # numbers drawn at once, 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean or median of `n` values and its confidence interval, `low` to `high`."""

    value: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float] | NDArray[Any], alpha: float = 0.05) -> Estimate | None:
    """Estimate a mean of scores within 0 and 1, with an interval of confidence 1 − `alpha`; `None` without values.

    Wilson's interval where every value is 0 or 1, the bootstrap's otherwise. Values that are all equal also get Wilson's, since
    resampling them would claim certainty; for them it is too wide rather than too narrow, because no variable within 0 and 1
    varies more than one that is 0 or 1. Raises `ValueError` for a value that is no score.
    """
    scores = _finite(values)
    if scores.size == 0:
        return None
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"scores lie within 0 and 1, not {scores.min()} to {scores.max()}")
    if np.isin(scores, (0.0, 1.0)).all() or scores.min() == scores.max():
        low, high = wilson(float(scores.sum()), scores.size, alpha)
    else:
        low, high = bootstrap(scores, np.mean, alpha)
    return Estimate(float(scores.mean()), low, high, scores.size)


def estimate_median(values: Sequence[float] | NDArray[Any], alpha: float = 0.05) -> Estimate | None:
    """Estimate a median of any numbers with the bootstrap's interval of confidence 1 − `alpha`; `None` without values."""
    numbers = _finite(values)
    if numbers.size == 0:
        return None
    low, high = bootstrap(numbers, np.median, alpha)
    return Estimate(float(np.median(numbers)), low, high, numbers.size)


def wilson(successes: float, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Score interval of a proportion `successes` / `n`.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22(158), without continuity
    correction: it stays within 0 and 1 and keeps its confidence for few cases and extreme proportions.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is no proportion")
    z = NormalDist().inv_cdf(1 - _valid(alpha) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may leave the bound of 0 of n at 1e-18 and the like.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap(values: NDArray[np.float64], statistic: Callable[..., Any], alpha: float = 0.05) -> tuple[float, float]:
    """Percentile interval of `statistic` (a numpy reduction with `axis`) over `RESAMPLES` resamples of `values`.

    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. The generator is seeded and the values are sorted
    first, so that the same values give the same interval, in whatever order they come. With very few values it is somewhat
    too narrow; `n` says so.
    """
    ordered = np.sort(values)
    generator = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // ordered.size)
    resampled = [
        statistic(ordered[generator.integers(ordered.size, size=(min(block, RESAMPLES - done), ordered.size))], axis=1)
        for done in range(0, RESAMPLES, block)
    ]
    low, high = np.quantile(np.concatenate(resampled), (_valid(alpha) / 2, 1 - alpha / 2))
    return float(low), float(high)


def lower_bound(values: Sequence[float] | NDArray[Any], least: float, alpha: float = 0.05) -> float:
    """One-sided lower confidence bound, 1 − `alpha`, of the mean of which `values` are a sample; none is below `least`.

    The values and one more, `least`, are weighted at random, all weights that sum to 1 being equally likely; the bound is the
    `alpha` quantile of `WEIGHTINGS` such means. Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on
    the mean of a nonnegative variable", Mathematical Methods of Statistics 14(4). Of values that are `least` or one other it
    is the exact bound of Clopper and Pearson, so it also holds where all values are equal or nearly so: there the bootstrap
    and the t interval claim a certainty that a hundred cases do not give. The weights are seeded and the values sorted first.
    Raises `ValueError` without values, or for one below `least`.
    """
    numbers = _finite(values)
    if numbers.size == 0 or numbers.min() < least:
        raise ValueError(f"expected values of at least {least}")
    ordered = np.concatenate([[least], np.sort(numbers)])
    generator = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // ordered.size)
    means = []
    for done in range(0, WEIGHTINGS, block):
        weights = generator.standard_exponential((min(block, WEIGHTINGS - done), ordered.size))
        means.append(weights @ ordered / weights.sum(axis=1))
    return float(np.quantile(np.concatenate(means), _valid(alpha)))


def _finite(values: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError("expected a list of finite numbers")
    return numbers


def _valid(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    return alpha
