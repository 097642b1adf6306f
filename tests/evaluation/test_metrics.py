"""The slice protocol, by hand."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from mri_seg.evaluation.metrics import SLICE_SCORES, SliceProtocolMetric, slice_scores

EMPTY: set[tuple[int, int]] = set()
SQUARE = {(0, 0), (0, 1), (1, 0), (1, 1)}
RIGHT = {(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)}  # shares two pixels with the square


def volume(*slices: set[tuple[int, int]]) -> torch.Tensor:
    """A volume ``(1, 1, 4, 5, D)`` with the pixels given set in each slice."""
    result = torch.zeros(1, 1, 4, 5, len(slices))
    for depth, pixels in enumerate(slices):
        for row, column in pixels:
            result[0, 0, row, column, depth] = 1
    return result


def scores(pred: set[tuple[int, int]], label: set[tuple[int, int]]) -> list[float]:
    return slice_scores(volume(pred), volume(label))[0].tolist()


class TestOneSlice:
    def test_nothing_to_find_and_nothing_found(self) -> None:
        assert scores(EMPTY, EMPTY) == [1, 1, 1]

    def test_nothing_to_find_and_something_found(self) -> None:
        assert scores(SQUARE, EMPTY) == pytest.approx([0, 0, 1], abs=1e-6)

    def test_score_of_a_slice_whose_tumour_is_missed(self) -> None:
        assert scores(EMPTY, SQUARE) == pytest.approx([0, 1, 0], abs=1e-6)

    def test_score_of_a_slice_whose_tumour_is_found(self) -> None:
        assert scores(SQUARE, SQUARE) == pytest.approx([1, 1, 1])

    def test_tumour_found_in_part(self) -> None:
        # 2 pixels of the intersection, 6 predicted, 4 labelled
        assert scores(RIGHT, SQUARE) == pytest.approx([2 * 2 / 10, 2 / 6, 2 / 4], abs=1e-6)

    def test_tumour_beside_the_prediction(self) -> None:
        assert scores({(3, 4)}, SQUARE) == pytest.approx([0, 0, 0], abs=1e-5)

    def test_smoothing_is_a_millionth_of_a_pixel(self) -> None:
        assert scores(EMPTY, {(0, 0)})[0] == pytest.approx(1e-6 / (1 + 1e-6), rel=1e-9)


class TestSlices:
    def test_slices_are_scored_one_by_one(self) -> None:
        found = slice_scores(volume(EMPTY, RIGHT, SQUARE), volume(EMPTY, SQUARE, SQUARE))
        assert found.shape == (3, 3)
        assert found.dtype == torch.float64
        assert found[:, 0].tolist() == pytest.approx([1, 0.4, 1], abs=1e-6)

    def test_slices_of_a_batch_follow_each_other_volume_by_volume(self) -> None:
        pred = torch.cat([volume(SQUARE, EMPTY), volume(RIGHT, SQUARE)])
        label = torch.cat([volume(SQUARE, SQUARE), volume(SQUARE, EMPTY)])
        assert slice_scores(pred, label)[:, 0].tolist() == pytest.approx([1, 0, 0.4, 0], abs=1e-6)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
    def test_slices_may_be_of_any_type(self, dtype: torch.dtype) -> None:
        found = slice_scores(volume(RIGHT).to(dtype), volume(SQUARE).to(dtype))
        assert found[0, 0].item() == pytest.approx(0.4, abs=1e-6)

    @pytest.mark.parametrize(
        ("pred", "label"),
        [
            ((1, 1, 4, 5, 2), (1, 1, 4, 5, 3)),
            ((1, 1, 4, 5), (1, 1, 4, 5)),
            ((1, 2, 4, 5, 2), (1, 2, 4, 5, 2)),
            ((1, 4, 5, 2), (1, 4, 5, 2)),
        ],
    )
    def test_slices_of_other_shapes_are_refused(self, pred: tuple[int, ...], label: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"must be binary volumes \(B, 1, H, W, D\), got \[1, .*\] and \[1, "):
            slice_scores(torch.zeros(pred), torch.zeros(label))


class TestSliceProtocolMetric:
    def test_slice_protocol_averages_over_slices_not_over_volumes(self) -> None:
        metric = SliceProtocolMetric("dice")
        metric(volume(SQUARE, SQUARE, SQUARE), volume(SQUARE, SQUARE, SQUARE))
        metric(volume(RIGHT), volume(SQUARE))
        assert metric.aggregate().item() == pytest.approx((3 + 0.4) / 4, abs=1e-6)

    @pytest.mark.parametrize(("score", "expected"), [("dice", 0.4), ("precision", 1 / 3), ("recall", 0.5)])
    def test_slice_protocol_gives_the_score_asked_for(self, score: str, expected: float) -> None:
        metric = SliceProtocolMetric(score)
        metric(volume(RIGHT), volume(SQUARE))
        assert metric.aggregate().item() == pytest.approx(expected, abs=1e-6)

    def test_slice_protocol_takes_lists_of_volumes_as_engines_give_them(self) -> None:
        metric = SliceProtocolMetric()
        metric([MetaTensor(volume(SQUARE, RIGHT)[0])], [MetaTensor(volume(SQUARE, SQUARE)[0])])
        assert metric.aggregate().item() == pytest.approx((1 + 0.4) / 2, abs=1e-6)

    def test_slice_protocol_forgets_when_reset(self) -> None:
        metric = SliceProtocolMetric()
        metric(volume(EMPTY), volume(SQUARE))
        metric.reset()
        metric(volume(SQUARE), volume(SQUARE))
        assert metric.aggregate().item() == pytest.approx(1)

    def test_slice_protocol_has_no_average_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="no slice"):
            SliceProtocolMetric().aggregate()

    def test_slice_protocol_needs_a_label(self) -> None:
        with pytest.raises(ValueError, match="needs a label"):
            SliceProtocolMetric()(volume(SQUARE))

    def test_slice_protocol_refuses_scores_it_does_not_know(self) -> None:
        with pytest.raises(ValueError, match=r"'dice', 'precision', 'recall'\), got 'iou'"):
            SliceProtocolMetric("iou")

    def test_scores_are_named_in_the_order_of_the_columns(self) -> None:
        assert SLICE_SCORES == ("dice", "precision", "recall")
