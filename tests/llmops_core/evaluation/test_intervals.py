"""Intervals against published values, and their coverage by simulation."""

import math

import numpy as np
import pytest

from llmops_core.evaluation.intervals import bootstrap, estimate, estimate_median, lower_bound, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_is_symmetric_and_stays_within_0_and_1() -> None:
    for successes in range(11):
        low, high = wilson(successes, 10)
        assert 0 <= low <= successes / 10 <= high <= 1
        assert wilson(10 - successes, 10) == pytest.approx((1 - high, 1 - low))


def test_no_values_give_no_estimate() -> None:
    assert estimate([]) is None
    assert estimate_median([]) is None


def test_hits_and_misses_get_wilsons_interval() -> None:
    found = estimate([1.0] * 15 + [0.0] * 133)
    assert found is not None
    assert found.value == pytest.approx(15 / 148)
    assert found.n == 148
    assert (found.low, found.high) == wilson(15, 148)


def test_fractions_get_the_bootstraps_interval() -> None:
    values = np.linspace(0, 1, 101)
    found = estimate(values)
    assert found is not None
    # The normal approximation: 0.5 ± 1.96 · sd / √n
    half = 1.96 * values.std() / np.sqrt(101)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.005)


def test_equal_values_do_not_claim_certainty() -> None:
    found = estimate([0.5])
    assert found is not None
    assert found.low < 0.1
    assert found.high > 0.9
    assert estimate([0.25] * 8) is not None


def test_an_interval_does_not_depend_on_the_order_nor_on_what_was_drawn_before() -> None:
    values = [0.2, 0.9, 0.4, 0.4, 1.0, 0.0]
    first = estimate(values)
    np.random.default_rng(1).random(10)
    assert estimate(values[::-1]) == first


def test_less_confidence_gives_a_narrower_interval() -> None:
    values = [0.2, 0.9, 0.4, 0.4, 1.0, 0.0]
    wide, narrow = estimate(values, alpha=0.01), estimate(values, alpha=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wilson(3, 10, alpha=0.01)[0] < wilson(3, 10, alpha=0.5)[0]


def test_many_values_are_resampled_in_blocks_with_the_same_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).beta(3, 1, size=300)
    whole = bootstrap(values, np.mean)
    monkeypatch.setattr("llmops_core.evaluation.intervals._BLOCK", 300 * 7)
    assert bootstrap(values, np.mean) == pytest.approx(whole, abs=1e-12)


def test_a_median_comes_with_an_interval_in_its_own_unit() -> None:
    found = estimate_median([10.0, 12.0, 11.0, 250.0, 9.0])
    assert found is not None
    assert found.value == 11
    assert 9 <= found.low <= 11 <= found.high <= 250


@pytest.mark.parametrize("values", [[float("nan")], [float("inf")], [[0.5]]])
def test_what_is_no_list_of_numbers_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        estimate(values)
    with pytest.raises(ValueError, match="finite numbers"):
        estimate_median(values)


def test_what_is_no_score_proportion_or_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        estimate([1.5])
    with pytest.raises(ValueError, match="no proportion"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="alpha"):
        wilson(1, 2, alpha=1)
    with pytest.raises(ValueError, match="alpha"):
        estimate([0.1, 0.2], alpha=0)


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    """300 samples of 60: with true coverage 0.95, a seed would give less than 0.91 once in 780 times."""
    generator = np.random.default_rng(11)
    binary = generator.random((300, 60)) < 0.8
    graded = generator.choice([0, 0.25, 0.5, 1], p=[0.4, 0.2, 0.1, 0.3], size=(300, 60))
    for samples, mean in ((binary, 0.8), (graded, 0.4)):
        found = [estimate(sample) for sample in samples]
        held = sum(e is not None and e.low <= mean <= e.high for e in found)
        assert 0.91 <= held / 300 <= 0.99


@pytest.mark.parametrize(("right", "of"), [(0, 20), (3, 20), (60, 100), (160, 160)])
def test_a_lower_bound_of_a_share_is_that_of_clopper_and_pearson(right: int, of: int) -> None:
    bound = lower_bound([1.0] * right + [0.0] * (of - right), 0.0, 0.05)
    # Of values above it, as many or more would come with probability alpha.
    at_least = sum(math.comb(of, k) * bound**k * (1 - bound) ** (of - k) for k in range(right, of + 1))
    assert bound == 0 if right == 0 else at_least == pytest.approx(0.05, abs=0.01)


def test_a_lower_bound_holds_for_skewed_scores_at_its_level() -> None:
    """Scores that are mostly full, and sometimes nearly nothing: where a t interval promises too much."""
    generator = np.random.default_rng(3)
    scores = [np.where(generator.random(60) < 0.04, 0.1, 1 - 0.02 * generator.random(60)) for _ in range(300)]
    truth = 0.04 * 0.1 + 0.96 * 0.99
    assert sum(lower_bound(sample, 0.0) > truth for sample in scores) / len(scores) <= 0.05 + 4 * 0.0126


def test_a_lower_bound_is_the_same_in_any_order_and_wants_values_that_can_be() -> None:
    assert lower_bound([0.2, 1.0, 0.5], 0.0) == lower_bound([1.0, 0.5, 0.2], 0.0)
    for values in ([], [-0.1]):
        with pytest.raises(ValueError, match="at least 0"):
            lower_bound(values, 0.0)
