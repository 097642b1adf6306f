"""Expected Dice from the spread of the probability, and its range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mri_seg.quality.expected_dice import conformal_quantiles, fit_expected_dice, threshold_spread


def simulated(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spreads, and Dice that falls by 0.6 per unit of it."""
    draw = np.random.default_rng(seed)
    spreads = draw.uniform(0.05, 1.2, count)
    return spreads, (1 - spreads * draw.normal(0.6, 0.1, count)).clip(0, 1)


class TestSpread:
    def test_spread_is_the_ratio_of_two_volumes(self) -> None:
        probability = np.r_[np.full(99, 0.9), np.full(100, 0.5), np.full(1000, 0.1)]
        assert threshold_spread(probability) == pytest.approx(math.log(2))

    def test_sharp_and_empty_probabilities_have_no_spread(self) -> None:
        assert threshold_spread(np.zeros((4, 4, 2))) == 0
        assert threshold_spread(np.eye(4)) == 0


class TestExpectedDice:
    def test_slope_is_found_and_a_sharp_case_is_expected_to_be_perfect(self) -> None:
        estimate = fit_expected_dice(*simulated())
        assert estimate.slope == pytest.approx(0.6, abs=0.05)
        assert estimate(0.0)[0] == 1

    def test_ranges_hold_nine_of_ten_new_cases(self) -> None:
        estimate = fit_expected_dice(*simulated(400))
        ranges = [(estimate(spread), dice) for spread, dice in zip(*simulated(400, seed=1))]
        assert np.mean([low <= dice <= high for (_, low, high), dice in ranges]) > 0.85

    def test_range_stays_between_zero_and_one_and_holds_the_estimate(self) -> None:
        estimate = fit_expected_dice(*simulated())
        for spread in (0.0, 0.01, 0.5, 9.0):
            expected, low, high = estimate(spread)
            assert 0 <= low <= expected <= high <= 1

    def test_few_cases_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 10 cases in which something was found, got 9"):
            fit_expected_dice([0.1] * 9, [0.9] * 9)


class TestQuantiles:
    def test_ends_hold_the_scores_of_each_large_group(self) -> None:
        scores, groups = [*np.linspace(0, 1, 20), *np.linspace(5, 6, 20), 99.0], ["a"] * 20 + ["b"] * 20 + ["c"]
        low, high = conformal_quantiles(scores, groups)
        assert (low, high) == (0, 6)

    def test_small_groups_count_together(self) -> None:
        scores, groups = np.arange(12.0), [f"g{n % 4}" for n in range(12)]
        assert conformal_quantiles(scores, groups) == conformal_quantiles(scores)
