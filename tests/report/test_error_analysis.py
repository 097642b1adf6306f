"""Kinds of errors on masks made by hand, and that they partition all false pixels of any masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_seg.report.archive import ArchivedCase
from mri_seg.report.error_analysis import KINDS, classify, count, false_lesions, missed_lesions

SHAPE = (32, 32, 5)
NUMBER = {kind: n for n, kind in enumerate(KINDS, start=1)}


def box(*bounds: tuple[int, int]) -> np.ndarray:
    """Mask of a box: first and last row, column and slice, the last left out."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(*pair) for pair in bounds)] = True
    return mask


def case(label: np.ndarray, pred: np.ndarray, image: np.ndarray | None = None) -> ArchivedCase:
    return ArchivedCase(
        case="a",
        image=np.zeros(label.shape, np.uint8) if image is None else image,
        label=label,
        pred=pred,
        probability=pred.astype(np.uint8) * 255,
        attention=np.zeros((0, *label.shape), np.uint8),
        spacing=(1.0, 1.0, 1.0),
        spacing_known=False,
        slice_spacing_known=False,
    )


def nothing() -> np.ndarray:
    return np.zeros(SHAPE, dtype=bool)


class TestMissedTumour:
    def test_missed_tumour_is_at_the_border_in_a_band_of_three_pixels(self) -> None:
        label, seen = box((4, 24), (4, 24), (2, 3)), box((13, 15), (13, 15), (2, 3))
        kinds = classify(case(label, seen))
        inside = box((7, 21), (7, 21), (2, 3))
        np.testing.assert_array_equal(kinds == NUMBER["border_missed"], label & ~inside)
        np.testing.assert_array_equal(kinds == NUMBER["inside_missed"], inside & ~seen)

    def test_missed_tumour_counts_the_border_within_the_slice_only(self) -> None:
        label = box((4, 24), (4, 24), (2, 3))  # healthy slices above and below are no border
        assert classify(case(label, box((4, 5), (4, 5), (2, 3))))[14, 14, 2] == NUMBER["inside_missed"]

    def test_missed_tumour_has_a_border_at_the_edge_of_the_picture_and_around_holes(self) -> None:
        label = box((0, 32), (0, 32), (0, 1))
        label[16, 16, 0] = False
        kinds = classify(case(label, box((8, 9), (8, 9), (0, 1))))
        assert [kinds[0, 16, 0], kinds[2, 10, 0], kinds[3, 10, 0]] == [NUMBER[k] for k in _BORDER_THEN_INSIDE]
        assert [kinds[16, 19, 0], kinds[18, 18, 0], kinds[18, 19, 0]] == [NUMBER[k] for k in _BORDER_THEN_INSIDE]

    def test_missed_tumour_is_a_whole_lesion_when_nothing_of_it_is_seen(self) -> None:
        seen, unseen = box((2, 6), (2, 6), (0, 2)), box((20, 30), (20, 30), (0, 2))
        kinds = classify(case(seen | unseen, seen))
        np.testing.assert_array_equal(kinds == NUMBER["lesion_missed"], unseen)

    def test_missed_tumour_belongs_to_a_lesion_seen_in_another_slice(self) -> None:
        label = box((10, 12), (10, 12), (0, 1)) | box((12, 14), (12, 14), (1, 2))  # they touch by a corner
        kinds = classify(case(label, box((10, 12), (10, 12), (0, 1))))
        assert set(np.unique(kinds)) == {0, NUMBER["border_missed"]}


_BORDER_THEN_INSIDE = ("border_missed", "border_missed", "inside_missed")


class TestFalseTumour:
    def test_false_tumour_has_spilled_where_its_lesion_overlaps_the_reference(self) -> None:
        label, pred = box((10, 20), (10, 20), (1, 3)), box((10, 20), (10, 26), (1, 4))
        np.testing.assert_array_equal(classify(case(label, pred)) == NUMBER["border_false_positive"], pred & ~label)

    def test_false_tumour_is_a_false_lesion_when_it_overlaps_nothing_even_beside_the_reference(self) -> None:
        label, beside = box((10, 20), (10, 20), (1, 3)), box((10, 20), (20, 22), (1, 3))
        kinds = classify(case(label, beside))
        np.testing.assert_array_equal(kinds == NUMBER["false_lesion"], beside)
        np.testing.assert_array_equal(kinds == NUMBER["lesion_missed"], label)

    def test_false_tumour_is_a_false_lesion_in_a_healthy_volume(self) -> None:
        assert count(case(nothing(), box((0, 2), (0, 3), (0, 1))))["false_lesion"] == 6


class TestKinds:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
    def test_partition_the_false_pixels(self, seed: int, of_label: float, of_pred: float, blocks: bool) -> None:
        random = np.random.default_rng(seed)
        label, pred = (random.random((8, 9, 4)) < share**2 for share in (of_label, of_pred))
        if blocks:  # lesions large enough to have an inside
            label, pred = (mask.repeat(5, axis=0).repeat(5, axis=1) for mask in (label, pred))
        kinds, counts = classify(case(label, pred)), count(case(label, pred))
        np.testing.assert_array_equal(kinds > 0, label != pred)
        assert kinds.dtype == np.uint8
        np.testing.assert_array_equal((kinds > 0) & (kinds <= NUMBER["lesion_missed"]), label & ~pred)
        false = counts["label_pixels"] + counts["pred_pixels"] - 2 * counts["overlap_pixels"]
        assert sum(counts[kind] for kind in KINDS) == false == (label != pred).sum()

    @pytest.mark.parametrize("mask", [nothing(), box((0, 32), (0, 32), (0, 5))])
    def test_errors_are_none_where_all_is_right(self, mask: np.ndarray) -> None:
        assert not classify(case(mask, mask)).any()

    def test_errors_are_counted_with_the_sizes_of_the_masks(self) -> None:
        label, pred = box((10, 20), (10, 20), (1, 2)), box((10, 20), (12, 22), (1, 2))
        expected = {
            "border_missed": 20,
            "inside_missed": 0,
            "lesion_missed": 0,
            "border_false_positive": 20,
            "false_lesion": 0,
        }
        sizes = {"label_pixels": 100, "pred_pixels": 100, "overlap_pixels": 80}
        assert count(case(label, pred)) == {"case": "a", **expected, **sizes}


class TestFalseLesions:
    def test_false_lesions_come_largest_first_with_the_slice_and_pixel_where_to_see_them(self) -> None:
        small = box((2, 4), (2, 4), (0, 1))
        large = box((20, 23), (10, 13), (2, 3)) | box((20, 25), (10, 15), (3, 4))
        found = false_lesions(case(box((10, 14), (2, 6), (0, 3)), small | large))
        assert [row["pixels"] for row in found] == [9 + 25, 4]
        assert {key: found[0][key] for key in ("case", "slice", "row", "column")} == {
            "case": "a",
            "slice": 4,
            "row": 22,
            "column": 12,
        }

    def test_false_lesions_are_placed_on_one_of_their_own_pixels(self) -> None:
        ring = box((10, 21), (10, 21), (0, 1)) & ~box((11, 20), (11, 20), (0, 1))
        found = false_lesions(case(nothing(), ring))[0]
        assert ring[found["row"], found["column"], found["slice"] - 1]

    def test_false_lesions_are_as_bright_as_they_are_against_healthy_tissue(self) -> None:
        random = np.random.default_rng(0)
        image = random.normal(100, 10, SHAPE)
        image[:, :8] = 0  # air
        lesion, tumour = box((5, 9), (20, 24), (1, 3)), box((20, 30), (12, 28), (0, 5))
        image[lesion], image[tumour] = 130, 400  # the tumour is not healthy tissue
        found = false_lesions(case(tumour, tumour | lesion, image.astype(np.float32)))
        assert found[0]["brightness"] == pytest.approx(3, abs=0.15)

    @pytest.mark.parametrize("outside", [np.nan, np.inf, -np.inf])
    def test_false_lesions_are_as_bright_in_a_skull_stripped_brain_as_in_dark_air(self, outside: float) -> None:
        image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
        lesion, air = box((15, 19), (20, 24), (1, 3)), box((0, 12), (0, 32), (0, 5))
        image[lesion] = 130
        image[air] = image[~air].min()
        dark = false_lesions(case(nothing(), lesion, image.copy()))
        image[air] = outside
        assert false_lesions(case(nothing(), lesion, image))[0]["brightness"] == dark[0]["brightness"]

    def test_false_lesions_have_no_brightness_where_healthy_tissue_does_not_vary(self) -> None:
        assert false_lesions(case(nothing(), box((2, 4), (2, 4), (0, 1))))[0]["brightness"] is None

    def test_false_lesions_are_none_where_prediction_overlaps_the_reference(self) -> None:
        assert false_lesions(case(box((2, 5), (2, 5), (0, 1)), box((4, 9), (4, 9), (0, 1)))) == []


class TestMissedLesions:
    def test_missed_lesions_are_those_of_the_reference_that_nothing_overlaps(self) -> None:
        seen, unseen = box((2, 6), (2, 6), (0, 2)), box((20, 30), (20, 30), (4, 5))
        found = missed_lesions(case(seen | unseen, seen))
        assert [(row["pixels"], row["slice"]) for row in found] == [(100, 5)]
