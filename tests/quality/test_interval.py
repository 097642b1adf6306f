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

    def test_errors_that_grow_faster_than_the_spread_make_the_interval_grow_faster(self) -> None:
        predicted, _, spreads = simulated(200, 0)
        errors = np.random.default_rng(2).normal(0, spreads**1.6)
        found = fit_volume_interval(predicted, predicted * np.exp(errors), spreads)
        proportional = fit_volume_interval(predicted, predicted * np.exp(errors), spreads, power=1.0)
        assert 1.2 < found.power < 2
        assert found(1.0, 0.1)[1] < proportional(1.0, 0.1)[1]

    def test_cases_of_one_spread_have_one_width(self) -> None:
        predicted, reference, _ = simulated(40, 0)
        assert fit_volume_interval(predicted, reference, [0.3] * 40).power == 1

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
