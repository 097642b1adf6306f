"""Temperature scaling, and the expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from mri_seg.quality.calibration import (
    LOGITS,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    near_masks,
    reliability,
    unsure_counts,
    voxel_counts,
)
from mri_seg.quality.expected_dice import threshold_spread


def overconfident(seed: int = 0, temperature: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too extreme by a temperature, and the reference drawn by the true ones."""
    draw = np.random.default_rng(seed)
    true = expit(draw.normal(0, 1.2, (64, 64, 12)))
    return expit(temperature * logit(true)).astype(np.float32), draw.random(true.shape) < true


def counts_of(seed: int, temperature: float = 2.0) -> np.ndarray:
    probability, label = overconfident(seed, temperature)
    return voxel_counts(probability, label, np.ones_like(label))


class TestFit:
    @pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0, 3.0])
    def test_temperature_of_simulated_voxels_is_found(self, temperature: float) -> None:
        found = fit_calibration([counts_of(seed, temperature) for seed in (0, 1)])
        assert (found.temperature, found.growth) == (pytest.approx(temperature, rel=0.1), 0)

    def test_calibration_error_of_other_voxels_falls_to_a_fraction(self) -> None:
        calibration, other = fit_calibration([counts_of(0)]), counts_of(1)
        before, after = (expected_calibration_error(reliability(other, how)) for how in (None, calibration.levels(0)))
        assert after < before / 5

    def test_temperature_grows_with_the_spread_where_unsure_cases_are_the_more_overconfident(self) -> None:
        temperatures, spreads = [1.5, 1.5, 3.0, 3.0], [0.1, 0.1, 0.8, 0.8]
        counts = [counts_of(n, value) for n, value in enumerate(temperatures)]
        found = fit_calibration(counts, counts, spreads)
        assert found.of_spread(0.1) == pytest.approx(1.5, rel=0.2)
        assert found.of_spread(0.8) == pytest.approx(3.0, rel=0.2)

    def test_cases_without_voxels_do_not_count(self) -> None:
        empty = np.zeros((2, len(LOGITS)), dtype=int)
        assert fit_calibration([counts_of(0), empty]) == fit_calibration([counts_of(0)])

    def test_sure_voxels_alone_give_a_finite_temperature(self) -> None:
        label = np.r_[np.zeros(90), np.ones(10)]
        counts = voxel_counts(np.where(label, 0.99999, 0.00001), label, np.ones(100, dtype=bool))
        assert 0 < fit_calibration([counts]).temperature < 14

    def test_no_voxels_at_all_are_refused(self) -> None:
        with pytest.raises(ValueError, match="near a tumour"):
            fit_calibration([np.zeros((2, len(LOGITS)), dtype=int)])


class TestMap:
    def test_masks_at_one_half_and_the_order_of_voxels_stay(self) -> None:
        probability, _ = overconfident()
        calibrated = Calibration(2.3, 0.3)(probability)
        np.testing.assert_array_equal(calibrated > 0.5, probability > 0.5)
        assert (np.diff(calibrated.ravel()[probability.ravel().argsort()]) >= 0).all()

    def test_voxels_and_levels_of_a_case_get_the_same_probability(self) -> None:
        probability, _ = overconfident()
        calibration, logits = Calibration(2.3, 0.3), np.clip(logit(probability), LOGITS[0], LOGITS[-1])
        by_level = np.interp(logits, LOGITS, calibration.levels(threshold_spread(probability)))
        np.testing.assert_allclose(calibration(probability), by_level, atol=0.002)

    def test_certain_voxels_stay_certain_without_a_warning(self) -> None:
        np.testing.assert_array_equal(Calibration(3.0)(np.array([0.0, 0.5, 1.0])), [0.0, 0.5, 1.0])


class TestReliability:
    def test_bins_hold_the_observed_fractions(self) -> None:
        probability = np.repeat([0.1, 0.9], 100).astype(np.float32)
        label = np.r_[np.arange(100) < 30, np.arange(100) < 90]
        bins = reliability(voxel_counts(probability, label, np.ones(200, dtype=bool)))
        np.testing.assert_allclose(bins[bins[:, 0] > 0], [[100, 10, 30], [100, 90, 90]], atol=0.5)
        assert expected_calibration_error(bins) == pytest.approx(0.1, abs=0.005)

    def test_sure_voxels_are_left_out_of_the_unsure_ones(self) -> None:
        probability = np.array([0.001, 0.4, 0.999], dtype=np.float32)
        counts = voxel_counts(probability, probability > 0.5, np.ones(3, dtype=bool))
        assert unsure_counts(counts).sum() == 1

    def test_calibrated_probability_says_which_voxels_are_unsure(self) -> None:
        probability = np.array([0.02, 0.4], dtype=np.float32)
        counts = voxel_counts(probability, probability > 0.5, np.ones(2, dtype=bool))
        assert unsure_counts(counts, Calibration(2.0).levels(0.0)).sum() == 2

    def test_error_without_voxels_is_not_a_number(self) -> None:
        assert np.isnan(expected_calibration_error(reliability(np.zeros((2, len(LOGITS))))))


class TestNearMasks:
    def test_only_voxels_in_the_plane_of_a_mask_are_near(self) -> None:
        label, mask = np.zeros((40, 40, 3), dtype=bool), np.zeros((40, 40, 3), dtype=bool)
        label[20, 20, 1], mask[20, 24, 1] = True, True
        near = near_masks(label, mask)
        assert not near[..., [0, 2]].any()
        assert (near[20, 9:36, 1].all(), near[20, 8, 1], near[20, 36, 1]) == (True, False, False)
