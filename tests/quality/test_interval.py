"""Intervals of volume."""

from __future__ import annotations

import numpy as np
import pytest

from mri_seg.quality.interval import fit_volume_interval


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted volumes, references whose error grows with the spread, and spreads."""
    draw = np.random.default_rng(seed)
    predicted, spreads = draw.uniform(100, 90000, count), draw.uniform(0.05, 1.0, count)
    return predicted, predicted * np.exp(draw.normal(0, spreads)), spreads


class TestInterval:
    def test_interval_holds_nine_of_ten_new_volumes(self) -> None:
        interval = fit_volume_interval(*simulated(500, 0))
        held = [low <= true <= high for p, true, s in zip(*simulated(500, 1)) for low, high in [interval(p, s)]]
        assert 0.85 < np.mean(held) < 0.95

    def test_certain_case_has_a_narrower_interval_around_its_volume(self) -> None:
        interval = fit_volume_interval(*simulated(100, 0))
        (low, high), (lower, higher) = interval(50.0, 0.1), interval(50.0, 0.8)
        assert 0 < lower < low < 50 < high < higher

    def test_errors_that_grow_faster_than_the_spread_leave_certain_cases_a_narrow_interval(self) -> None:
        predicted, _, spreads = simulated(200, 0)
        reference = predicted * np.exp(np.random.default_rng(2).normal(0, spreads**1.5))
        found = fit_volume_interval(predicted, reference, spreads)
        proportional = fit_volume_interval(predicted, reference, spreads, power=1.0)
        assert found(1.0, 0.1)[1] < proportional(1.0, 0.1)[1]

    def test_small_hospital_with_one_odd_case_does_not_rule_the_width(self) -> None:
        predicted, reference, spreads = simulated(62, 0)
        groups = ["a"] * 50 + ["b"] * 12
        reference[50:] = predicted[50:]
        reference[61] = predicted[61] * 1e6
        within = fit_volume_interval(predicted[:50], reference[:50], spreads[:50])
        assert fit_volume_interval(predicted, reference, spreads, groups).width < 2 * within.width

    def test_hospital_with_larger_errors_widens_the_interval(self) -> None:
        predicted, reference, spreads = simulated(60, 0)
        groups = ["a"] * 40 + ["b"] * 20
        reference[40:] = predicted[40:] * 9
        apart = fit_volume_interval(predicted, reference, spreads, groups)
        assert apart.width > fit_volume_interval(predicted[:40], reference[:40], spreads[:40]).width

    def test_cases_with_an_empty_mask_do_not_count(self) -> None:
        predicted, reference, spreads = simulated(12, 0)
        predicted[:3] = 0
        with pytest.raises(ValueError, match="got 9"):
            fit_volume_interval(predicted, reference, spreads)
