"""Precision, recall and calibration against answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_seg.report.archive import ArchivedCase
from mri_seg.report.curves import calibration, precision_recall, probability_counts


def counts_of(healthy: dict[int, int], tumour: dict[int, int]) -> np.ndarray:
    """Counts from voxels by probability from 0 to 255."""
    counts = np.zeros((2, 256), dtype=np.int64)
    for side, voxels in zip(counts, (healthy, tumour)):
        for level, number in voxels.items():
            side[level] = number
    return counts


def case(probability: np.ndarray, label: np.ndarray) -> ArchivedCase:
    return ArchivedCase(
        case="a",
        image=np.zeros(label.shape, np.uint8),
        label=label,
        pred=probability >= 128,
        probability=probability,
        attention=np.zeros((0, *label.shape), np.uint8),
        spacing=(1.0, 1.0, 1.0),
        spacing_known=False,
        slice_spacing_known=False,
    )


class TestProbabilityCounts:
    def test_probability_counts_are_voxels_by_probability_healthy_then_tumour(self) -> None:
        probability = np.array([0, 0, 255, 128], dtype=np.uint8).reshape(2, 2, 1)
        label = np.array([False, False, True, False]).reshape(2, 2, 1)
        expected = counts_of({0: 2, 128: 1}, {255: 1})
        np.testing.assert_array_equal(probability_counts(case(probability, label)), expected)

    def test_probability_counts_of_cases_add_up(self) -> None:
        probability = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
        label = probability > 100
        assert sum(map(probability_counts, [case(probability, label)] * 3)).sum() == 3 * 256


class TestPrecisionRecall:
    def test_precision_recall_has_the_known_answers(self) -> None:
        thresholds, precision, recall = precision_recall(counts_of({0: 90, 200: 5}, {100: 2, 200: 5, 255: 3}))
        assert [len(v) for v in (thresholds, precision, recall)] == [256] * 3
        assert precision[[0, 100, 101, 255]] == pytest.approx([10 / 105, 10 / 15, 8 / 13, 1])
        assert recall[[0, 100, 101, 255]] == pytest.approx([1, 1, 0.8, 0.3])

    def test_precision_recall_has_half_among_its_thresholds_as_probabilities_were_before_rounding(self) -> None:
        probability = np.linspace(0, 1, 20001)
        levels = (probability * 255).round().astype(np.uint8)  # as they are kept
        thresholds, _, _ = precision_recall(counts_of({}, {0: 1}))
        assert thresholds[[0, 128]].tolist() == [0, 0.5]
        np.testing.assert_array_equal(levels >= 128, probability >= 0.5)

    def test_precision_is_one_where_nothing_counts_as_tumour(self) -> None:
        _, precision, recall = precision_recall(counts_of({10: 4}, {20: 4}))
        assert (precision[21:] == 1).all()
        assert (recall[21:] == 0).all()

    def test_recall_is_not_a_number_without_tumour(self) -> None:
        _, precision, recall = precision_recall(counts_of({0: 5, 200: 1}, {}))
        assert np.isnan(recall).all()
        assert precision[200] == 0

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_recall_falls_as_the_threshold_rises(self, seed: int) -> None:
        thresholds, precision, recall = precision_recall(np.random.default_rng(seed).integers(0, 50, (2, 256)))
        assert (np.diff(thresholds) > 0).all()
        assert (np.diff(recall) <= 0).all()
        assert ((precision >= 0) & (precision <= 1)).all()

    def test_precision_recall_refuses_counts_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(2, 256\).*got \(256,\)"):
            precision_recall(np.zeros(256))


class TestCalibration:
    def test_calibration_of_honest_probability_has_no_error(self) -> None:
        result = calibration(counts_of({51: 80, 102: 60, 204: 20}, {51: 20, 102: 40, 204: 80}))
        assert result["expected_error"] == pytest.approx(0, abs=1e-12)
        assert result["expected_error_above_floor"] == pytest.approx(0, abs=1e-12)

    def test_error_is_the_voxels_mean_difference(self) -> None:
        result = calibration(counts_of({0: 300, 255: 50}, {255: 50}))  # 100 voxels told 1, half of them tumour
        assert result["expected_error"] == pytest.approx(0.5 * 100 / 400)

    def test_error_above_the_floor_leaves_out_what_is_plainly_healthy(self) -> None:
        result = calibration(counts_of({0: 10**6, 255: 50}, {255: 50}))
        assert result["expected_error"] < 1e-4
        assert result["expected_error_above_floor"] == pytest.approx(0.5)
        assert result["floor"] == 0.05

    def test_floor_is_the_lowest_probability_counted(self) -> None:
        counts = counts_of({12: 7, 13: 1}, {})  # 12 / 255 < 0.05 < 13 / 255
        assert calibration(counts)["expected_error_above_floor"] == pytest.approx(13 / 255)

    def test_bins_have_ends_means_and_numbers(self) -> None:
        bins = calibration(counts_of({26: 1, 51: 3, 255: 1}, {40: 1, 255: 3}), bins=5)["bins"]
        assert [row["voxels"] for row in bins] == [2, 3, 0, 0, 4]  # 51 / 255 = 0.2 begins the second
        assert [(row["lower"], row["upper"]) for row in bins] == [(n / 5, (n + 1) / 5) for n in range(5)]
        assert bins[0]["probability"] == pytest.approx(33 / 255)
        assert bins[0]["observed"] == 0.5
        assert bins[2]["observed"] is None
        assert bins[4]["observed"] == 0.75

    def test_calibration_of_no_voxels_has_no_error(self) -> None:
        result = calibration(np.zeros((2, 256), dtype=np.int64))
        assert result["expected_error"] is None
        assert result["expected_error_above_floor"] is None

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40))
    def test_bins_hold_every_voxel(self, seed: int, bins: int) -> None:
        counts = np.random.default_rng(seed).integers(0, 50, (2, 256))
        result = calibration(counts, bins)
        assert sum(row["voxels"] for row in result["bins"]) == counts.sum()
        for row in result["bins"]:
            assert row["probability"] is None or row["lower"] <= row["probability"] <= row["upper"] + 1e-9
        assert 0 <= result["expected_error"] <= 1

    def test_calibration_refuses_fewer_than_one_bin(self) -> None:
        with pytest.raises(ValueError, match="bins must be 1 or more, got 0"):
            calibration(np.zeros((2, 256)), bins=0)
