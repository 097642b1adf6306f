"""Change, velocity and categories from known figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mri_seg.follow_up.change_mask import GAINED, LOST, STABLE
from mri_seg.follow_up.growth import change_between, velocity_of
from mri_seg.follow_up.rano import response_of
from mri_seg.follow_up.repeatability import (
    critical_difference,
    interval,
    load_repeatability,
    repeatability_of,
    standard_deviation,
)
from mri_seg.follow_up.timeline import QUANTITIES
from mri_seg.measurements.lesions import mean_diameter

EXACT = {name: {"absolute_sd": 0.0, "relative_sd": 1e-6} for name in QUANTITIES}
ROUGH = {name: {"absolute_sd": 1.0, "relative_sd": 0.1} for name in QUANTITIES}
LEVELS = {**ROUGH, "by_expected_dice": [{"from": 0.9, **EXACT}, {"from": 0.0, **ROUGH}]}


class TestMeanDiameter:
    def test_mean_diameter_is_the_cube_root_of_twice_the_volume(self) -> None:
        assert mean_diameter(13.5) == pytest.approx(30.0)
        assert mean_diameter(0.0) == 0.0


class TestVelocity:
    def test_even_growth_is_its_slope(self) -> None:
        velocity = velocity_of([0, 1, 3], [30, 34, 42], "mean_diameter", EXACT)
        assert velocity is not None
        assert velocity.estimate.value == pytest.approx(4.0)
        assert velocity.at_start == pytest.approx(30.0)
        assert not velocity.within_error

    def test_two_scans_have_an_interval_from_the_known_error(self) -> None:
        error = {**EXACT, "mean_diameter": {"absolute_sd": 0.5, "relative_sd": 0.0}}
        velocity = velocity_of([0, 2], [30, 31], "mean_diameter", error)
        assert velocity is not None
        half = 1.959964 * 0.5 * math.sqrt(2) / 2
        assert velocity.estimate == pytest.approx((0.5, 0.5 - half, 0.5 + half))
        assert velocity.error == "repeatability"
        assert velocity.within_error

    def test_six_scans_take_the_interval_from_their_residuals(self) -> None:
        times, noise = np.arange(6.0), np.array([1, -1, 1, -1, 1, -1])
        few = velocity_of(times[:5], 30 + 2 * times[:5], "mean_diameter", EXACT)
        many = velocity_of(times, 30 + 2 * times + noise, "mean_diameter", EXACT)
        assert few is not None
        assert many is not None
        assert (few.error, many.error) == ("repeatability", "residuals")
        assert many.estimate.high - many.estimate.low > 0.5

    @pytest.mark.parametrize("years", [[0.0], [1.0, 1.0]])
    def test_scans_at_one_time_have_no_velocity(self, years: list[float]) -> None:
        assert velocity_of(years, [30.0] * len(years), "mean_diameter", ROUGH) is None

    def test_intervals_hold_the_truth_in_95_of_100_series(self) -> None:
        rng = np.random.default_rng(0)
        error = {**EXACT, "mean_diameter": {"absolute_sd": 1.0, "relative_sd": 0.0}}
        for times in ([0, 0.5], [0, 1, 2, 4], np.linspace(0, 5, 7)):
            hits = 0
            for _ in range(1000):
                values = 30 + 3 * np.asarray(times) + rng.normal(0, 1, len(times))
                velocity = velocity_of(times, values, "mean_diameter", error)
                assert velocity is not None
                hits += velocity.estimate.low <= 3 <= velocity.estimate.high
            assert 930 <= hits <= 970


class TestChange:
    def change(self, one: float, other: float, error: dict = ROUGH):
        before, now = np.arange(10) < 4, np.arange(10) >= 2
        labels = np.select([before & now, now, before], [STABLE, GAINED, LOST])
        values = [{name: interval(error, name, value) for name in QUANTITIES} for value in (one, other)]
        return change_between(0, 1, "baseline", values[0], values[1], labels, 0.5, error)

    def test_change_is_in_ml_and_percent(self) -> None:
        change = self.change(20, 30, EXACT)
        assert change.difference["volume"].value == pytest.approx(10)
        assert change.percent["volume"].value == pytest.approx(50)
        assert not change.within_error["volume"]

    def test_small_change_is_within_measurement_error(self) -> None:
        change = self.change(20, 22)
        assert change.within_error["volume"]
        assert change.difference["volume"].low < 0 < change.difference["volume"].high

    def test_voxels_are_gained_lost_and_stable(self) -> None:
        assert self.change(20, 22).voxels_ml == {"gained": 3.0, "lost": 1.0, "stable": 1.0}

    def test_change_from_nothing_has_no_percentage(self) -> None:
        assert self.change(0, 5).percent == {}

    def test_vanished_tumour_fell_by_all(self) -> None:
        assert self.change(20, 0, EXACT).percent["volume"].value == -100


class TestResponse:
    def category(self, *products: float, error: dict = EXACT, new: tuple = (), visible: bool = True) -> str:
        return response_of(products, new, error, visible=visible).category

    @pytest.mark.parametrize(
        ("product", "category"),
        [
            (499, "partial response"),
            (700, "minor response"),
            (760, "stable disease"),
            (1240, "stable disease"),
            (1260, "progressive disease"),
        ],
    )
    def test_category_follows_the_product_against_the_baseline(self, product: float, category: str) -> None:
        assert self.category(1000, product) == category

    def test_progression_is_against_the_smallest_so_far(self) -> None:
        assert self.category(1000, 600, 790) == "progressive disease"

    def test_progression_must_be_beyond_measurement_error(self) -> None:
        assert self.category(1000, 1260, error=ROUGH) == "stable disease"
        assert self.category(1000, 1500, error=ROUGH) == "progressive disease"

    def test_new_lesion_is_progression(self) -> None:
        assert self.category(1000, 900, new=("lesion 2, 3.0 mL",)) == "progressive disease"

    def test_vanished_tumour_is_a_complete_response(self) -> None:
        assert self.category(1000, 0, visible=False) == "complete response"

    def test_tumour_that_is_back_is_progression(self) -> None:
        assert self.category(1000, 0, 3000) == "progressive disease"
        assert self.category(1000, 0, 20, error=ROUGH) == "partial response"  # within measurement error of nothing

    def test_response_within_measurement_error_says_so(self) -> None:
        found = response_of((1000, 740), (), {**EXACT, "product": {"absolute_sd": 0.0, "relative_sd": 0.15}})
        assert found.category == "minor response"
        assert "within measurement error" in found.reason

    def test_tumour_that_never_was_is_stable(self) -> None:
        assert self.category(0, 0, visible=False) == "stable disease"

    @pytest.mark.parametrize("scans", [2, 4, 6])
    def test_stable_series_seldom_progress_by_chance(self, scans: int) -> None:
        rng = np.random.default_rng(scans)
        error = {**EXACT, "product": {"absolute_sd": 0.0, "relative_sd": 0.15}}
        found = [self.category(*1000 * (1 + rng.normal(0, 0.15, scans)), error=error) for _ in range(1000)]
        assert found.count("progressive disease") <= 50


class TestRepeatability:
    def test_shipped_file_is_read(self) -> None:
        found = load_repeatability()
        assert all(standard_deviation(found, name, 10.0) > 0 for name in QUANTITIES)

    def test_missing_number_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "error.json"
        file.write_text(json.dumps({**ROUGH, "product": {"absolute_sd": -1, "relative_sd": 0}}))
        with pytest.raises(ValueError, match=r"error\.json: product has absolute_sd -1"):
            load_repeatability(file)

    def test_error_is_that_of_heads_as_sure_as_the_least_sure_scan(self) -> None:
        assert repeatability_of(LEVELS, [0.95, 0.9])["volume"] == EXACT["volume"]
        assert repeatability_of(LEVELS, [0.95, 0.89])["volume"] == ROUGH["volume"]

    def test_error_is_that_of_all_heads_if_an_expected_dice_is_unknown(self) -> None:
        found = repeatability_of({**EXACT, "by_expected_dice": LEVELS["by_expected_dice"]}, [0.5, None])
        assert (found["volume"], found.get("from")) == (EXACT["volume"], None)

    def test_levels_of_expected_dice_must_fall_to_0(self, tmp_path: Path) -> None:
        file = tmp_path / "error.json"
        file.write_text(json.dumps({**ROUGH, "by_expected_dice": [{"from": 0.9, **ROUGH}]}))
        with pytest.raises(ValueError, match=r"by_expected_dice begins at \[0.9\], expected numbers that fall to 0"):
            load_repeatability(file)

    def test_smallest_of_several_needs_a_larger_difference(self) -> None:
        rng = np.random.default_rng(0)
        for earlier in (1, 3, 5):
            values = rng.normal(size=(100_000, earlier + 1))
            above = values[:, -1] - values[:, :-1].min(axis=1) > critical_difference(earlier)
            assert 0.023 < above.mean() < 0.027
