"""Measurements of lesions whose answers are known, in any orientation and unit."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from drawn_masks import ellipse, ragged
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff

from mri_seg.measurements.diameters import diameters
from mri_seg.measurements.lesions import label_lesions, measure, slice_axis, summary_row

AXIAL = np.array([[0, -1.0, 0, 90], [-1.0, 0, 0, 80], [0, 0, 1.0, -40], [0, 0, 0, 1]])
"""Rows to posterior, columns to the patient's left, slices to superior, voxels of 1 mm."""

TURNS = [
    np.array([*zip(axes, signs)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""The 48 ways to order and direct three axes."""


def volume(*slices: np.ndarray) -> np.ndarray:
    return np.stack(slices, axis=-1)


class TestLabelLesions:
    def test_voxels_that_touch_at_a_corner_are_one_lesion(self) -> None:
        mask = np.zeros((4, 4, 4), dtype=np.uint8)
        mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = 1
        labels, count = label_lesions(mask)
        assert count == 2
        assert labels.shape == mask.shape
        assert labels[0, 0, 0] == labels[1, 1, 1] != labels[3, 3, 3]

    def test_nothing_has_no_lesion(self) -> None:
        labels, count = label_lesions(np.zeros((3, 4, 5)))
        assert count == 0
        assert not labels.any()


class TestMeasure:
    @pytest.fixture
    def mask(self) -> np.ndarray:
        """A box of 4 x 10 voxels in slices 3 to 5, wider in slice 4, and a voxel far away in slice 8."""
        mask = np.zeros((20, 30, 9), dtype=np.uint8)
        mask[4:8, 10:20, 2:5] = 1
        mask[4:8, 10:24, 3] = 1
        mask[18, 2, 7] = 1
        return mask

    def test_measurements_hold_volumes_and_slices(self, mask: np.ndarray) -> None:
        found = measure(mask, AXIAL * [[0.5], [2.0], [3.0], [1]], case="one")
        assert found["case"] == "one"
        assert found["spacing_mm"] == [2.0, 0.5, 3.0]
        assert found["volume_ml"] == pytest.approx(137 * 3 / 1000)
        assert found["lesion_count"] == 2
        large, small = found["lesions"]
        assert large["volume_ml"] == pytest.approx(136 * 3 / 1000)
        assert small["volume_ml"] == pytest.approx(3 / 1000)
        assert [large[k] for k in ("first_slice", "last_slice", "slices", "measured_slice")] == [3, 5, 3, 4]
        assert [small[k] for k in ("first_slice", "last_slice", "slices", "measured_slice")] == [8, 8, 1, 8]
        assert large["largest_axial_area_mm2"] == pytest.approx(56)

    def test_diameters_are_those_of_the_slice_with_the_largest_product(self, mask: np.ndarray) -> None:
        lesion = measure(mask, AXIAL)["lesions"][0]
        expected = diameters(mask[..., 3])
        assert lesion["longest_diameter_mm"] == expected.longest
        assert lesion["perpendicular_diameter_mm"] == expected.perpendicular
        assert lesion["bidimensional_product_mm2"] == pytest.approx(expected.longest * expected.perpendicular)

    def test_ends_of_diameters_are_places_in_the_measured_slice(self, mask: np.ndarray) -> None:
        for lesion in measure(mask, AXIAL * [[0.5], [2.0], [3.0], [1]])["lesions"]:
            pixels = np.pad(mask[..., lesion["measured_slice"] - 1], 1)  # by one pixel, since diameters end on borders
            for name in ("longest", "perpendicular"):
                first, second = np.array(lesion[f"{name}_diameter_ends"])
                length = np.hypot(*((second - first) * (2.0, 0.5)))
                assert length == pytest.approx(lesion[f"{name}_diameter_mm"])
                row, column = np.round((first + second) / 2).astype(int) + 1
                assert pixels[row, column]

    def test_no_slice_is_passed_over(self) -> None:
        random = np.random.default_rng(3)
        slices = [ellipse(random.uniform(3, 12), random.uniform(3, 12), 30, (14, 14), 28) for _ in range(12)]
        lesion = measure(volume(*slices), AXIAL)["lesions"][0]
        products = [diameters(pixels).product for pixels in slices]
        assert lesion["bidimensional_product_mm2"] == pytest.approx(max(products))
        assert lesion["measured_slice"] == np.argmax(products) + 1

    def test_centroids_are_in_lps(self, mask: np.ndarray) -> None:
        x, y, z = apply_affine(AXIAL, (18, 2, 7))
        assert measure(mask, AXIAL)["lesions"][1]["centroid_lps_mm"] == pytest.approx([-x, -y, z])

    def test_a_mask_without_lesion_has_no_volume(self) -> None:
        found = measure(np.zeros((5, 5, 5)), AXIAL, probability=np.full((5, 5, 5), 0.1))
        assert (found["volume_ml"], found["lesion_count"], found["lesions"]) == (0, 0, [])
        assert found["mean_foreground_probability"] is None
        assert found["uncertain_share"] is None

    def test_one_slice_is_a_volume(self) -> None:
        lesion = measure(ellipse(10, 5)[..., None], AXIAL)["lesions"][0]
        assert lesion["longest_diameter_mm"] == pytest.approx(20, abs=1)

    def test_measurements_are_plain_enough_for_json(self, mask: np.ndarray) -> None:
        found = measure(mask, AXIAL, probability=mask * np.float32(0.9))
        assert json.loads(json.dumps(found)) == found

    def test_oblique_volumes_are_measured_along_their_own_axes(self, mask: np.ndarray) -> None:
        angle = math.radians(20)
        turn = np.eye(4)
        turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        expected, found = measure(mask, AXIAL), measure(mask, turn @ AXIAL)
        for lesion in expected["lesions"] + found["lesions"]:
            del lesion["centroid_lps_mm"]
        for before, after in zip(expected["lesions"], found["lesions"]):
            assert same(after, before)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"mask": np.ones((1, 4, 4, 4))}, r"must be a volume \(H, W, D\), got shape \(1, 4, 4, 4\)"),
            ({"affine": np.zeros((4, 4))}, r"must be an invertible matrix \(4, 4\)"),
            ({"affine": np.eye(3)}, r"must be an invertible matrix \(4, 4\)"),
            ({"affine": np.full((4, 4), np.nan)}, r"must be an invertible matrix \(4, 4\)"),
            ({"probability": np.ones((4, 4, 3))}, r"the shape of the mask, \(4, 4, 4\), got \(4, 4, 3\)"),
        ],
    )
    def test_measuring_what_does_not_fit_is_refused(self, change: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            measure(**{"mask": np.ones((4, 4, 4)), "affine": AXIAL, **change})


class TestCertainty:
    def test_certainty_is_told_by_the_probability(self) -> None:
        probability = np.zeros((2, 5, 1), dtype=np.float32)
        probability[0, :, 0] = [0.29, 0.4, 0.6, 0.8, 1.0]
        found = measure(probability > 0.5, AXIAL, probability=probability)
        assert found["mean_foreground_probability"] == pytest.approx(0.8)
        assert found["uncertain_share"] == pytest.approx(2 / 4)

    def test_certainty_is_unknown_without_it(self) -> None:
        found = measure(np.ones((2, 2, 2)), AXIAL)
        assert found["mean_foreground_probability"] is None
        assert found["uncertain_share"] is None


class TestUnknownSpacing:
    @pytest.fixture
    def mask(self) -> np.ndarray:
        mask = np.zeros((12, 14, 6), dtype=bool)
        mask[3:6, 2:10, 1:4] = True
        return mask

    def test_unknown_spacing_of_pixels_gives_counts(self, mask: np.ndarray) -> None:
        found = measure(mask, AXIAL * 2.5, spacing_known=False)
        assert found["spacing_mm"] == [None, None, 2.5]
        assert found["volume_voxels"] == 72
        assert "volume_ml" not in found
        lesion, expected = found["lesions"][0], diameters(mask[..., 1])
        assert lesion == {
            "volume_voxels": 72,
            "centroid_voxels": pytest.approx([4, 5.5, 2]),
            "largest_axial_area_pixels": 24,
            "longest_diameter_pixels": expected.longest,
            "perpendicular_diameter_pixels": expected.perpendicular,
            "bidimensional_product_pixels": expected.product,
            "measured_slice": 2,
            "longest_diameter_ends": [list(end) for end in expected.longest_ends],
            "perpendicular_diameter_ends": [list(end) for end in expected.perpendicular_ends],
            "first_slice": 2,
            "last_slice": 4,
            "slices": 3,
        }

    def test_unknown_spacing_of_slices_gives_counts_of_voxels_and_mm_in_plane(self, mask: np.ndarray) -> None:
        found = measure(mask, AXIAL * [[2.0], [2.0], [1.0], [1]], slice_spacing_known=False)
        assert found["spacing_mm"] == [2.0, 2.0, None]
        assert found["volume_voxels"] == 72
        lesion = found["lesions"][0]
        assert lesion["centroid_voxels"] == pytest.approx([4, 5.5, 2])
        assert lesion["largest_axial_area_mm2"] == pytest.approx(96)
        assert lesion["longest_diameter_mm"] == pytest.approx(2 * diameters(mask[..., 1]).longest)
        assert "volume_ml" not in lesion
        assert "centroid_lps_mm" not in lesion

    def test_unknown_spacing_gives_centroids_in_the_array_given(self, mask: np.ndarray) -> None:
        turn = TURNS[29]
        turned, affine = apply_orientation(mask, turn), AXIAL @ inv_ornt_aff(turn, mask.shape)
        found = measure(turned, affine, spacing_known=False)["lesions"][0]["centroid_voxels"]
        assert found == pytest.approx(np.argwhere(turned).mean(axis=0))


class TestOrientation:
    @pytest.mark.parametrize("turn", TURNS)
    def test_order_and_direction_of_axes_do_not_matter(self, turn: np.ndarray) -> None:
        mask, probability = ragged(5), np.random.default_rng(6).random((9, 8, 4))
        affine = AXIAL * [[0.8], [1.3], [4.0], [1]]
        expected = measure(mask, affine, probability=probability)
        turned = [apply_orientation(array, turn) for array in (mask, probability)]
        found = measure(turned[0], affine @ inv_ornt_aff(turn, mask.shape), probability=turned[1])
        assert same(found, expected)

    @pytest.mark.parametrize("turn", TURNS)
    def test_slices_follow_the_axis_closest_to_superior(self, turn: np.ndarray) -> None:
        affine = AXIAL @ inv_ornt_aff(turn, (9, 8, 4))
        assert slice_axis(affine) == np.argmax(np.abs(affine[2, :3]))


def same(found: object, expected: object) -> bool:
    """Equal, with numbers equal within rounding; lesions of equal volume may have changed places."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == (pytest.approx(expected) if isinstance(expected, float) else expected)


class TestAnyMask:
    """What holds for every mask, tried on many."""

    def test_scaling_scales_lengths_areas_and_volumes(self) -> None:
        hypothesis = pytest.importorskip("hypothesis")
        strategies = hypothesis.strategies

        @hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
        @hypothesis.given(strategies.integers(0, 10**6), strategies.floats(0.2, 5))
        def check(seed: int, scale: float) -> None:
            mask, scaling = ragged(seed, (7, 6, 4)), np.diag([scale] * 3 + [1])
            before, after = measure(mask, AXIAL), measure(mask, scaling @ AXIAL)
            assert after["volume_ml"] == pytest.approx(before["volume_ml"] * scale**3)
            for one, other in zip(before["lesions"], after["lesions"]):
                for name, power in (
                    ("volume_ml", 3),
                    ("largest_axial_area_mm2", 2),
                    ("bidimensional_product_mm2", 2),
                    ("longest_diameter_mm", 1),
                    ("perpendicular_diameter_mm", 1),
                    ("measured_slice", 0),
                ):
                    assert other[name] == pytest.approx(one[name] * scale**power)
                assert other["centroid_lps_mm"] == pytest.approx([scale * v for v in one["centroid_lps_mm"]])

        check()

    def test_figures_agree_with_each_other(self) -> None:
        hypothesis = pytest.importorskip("hypothesis")
        strategies = hypothesis.strategies

        @hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
        @hypothesis.given(strategies.integers(0, 10**6), strategies.floats(0.02, 0.9))
        def check(seed: int, share: float) -> None:
            mask = ragged(seed, (7, 6, 4), share)
            probability = np.random.default_rng(seed).random(mask.shape)
            found = measure(mask, AXIAL, probability=probability)
            lesions = found["lesions"]
            assert found["lesion_count"] == len(lesions)
            assert sum(lesion["volume_ml"] for lesion in lesions) == pytest.approx(found["volume_ml"])
            assert 0 <= found["uncertain_share"] <= 1
            volumes = [lesion["volume_ml"] for lesion in lesions]
            assert volumes == sorted(volumes, reverse=True)
            for lesion in lesions:
                assert 1 <= lesion["first_slice"] <= lesion["measured_slice"] <= lesion["last_slice"] <= 4
                assert lesion["longest_diameter_mm"] >= 1
                assert lesion["longest_diameter_mm"] <= math.hypot(7, 6)

        check()


class TestSummaryRow:
    def test_summary_row_has_the_same_columns_whatever_is_known(self) -> None:
        mask = ragged(2)
        rows = [
            summary_row(measure(mask, AXIAL, case="a", probability=mask * 0.9)),
            summary_row(measure(mask, AXIAL, spacing_known=False)),
            summary_row(measure(mask, AXIAL, slice_spacing_known=False)),
            summary_row(measure(np.zeros((3, 3, 3)), AXIAL)),
        ]
        assert len({tuple(row) for row in rows}) == 1

    def test_summary_row_holds_every_figure_of_the_largest_lesion(self) -> None:
        for known in (True, False):
            found = measure(ragged(2), AXIAL, spacing_known=known)
            row = summary_row(found)
            for name, value in found["lesions"][0].items():
                if not name.startswith("centroid") and not name.endswith("_ends"):
                    assert row[f"largest_lesion_{name}"] == value
        assert row["largest_lesion_centroid_row"] == found["lesions"][0]["centroid_voxels"][0]
        assert row["largest_lesion_centroid_x_mm"] is None

    def test_sums_the_products_of_all_lesions(self) -> None:
        mask = np.zeros((20, 20, 3), dtype=bool)
        mask[2, 2:6, 1] = mask[10, 3:12, 1] = True
        row = summary_row(measure(mask, AXIAL))
        assert row["sum_of_products_mm2"] == pytest.approx(4 + 9)
        assert row["sum_of_products_pixels"] is None
        row = summary_row(measure(mask, AXIAL, spacing_known=False))
        assert row["sum_of_products_pixels"] == pytest.approx(4 + 9)

    def test_summary_row_holds_the_longest_diameter_of_all_lesions(self) -> None:
        mask = np.zeros((20, 20, 3), dtype=bool)
        mask[2:5, 2:6, 1] = mask[10, 3:14, 1] = True  # the larger lesion is the shorter one
        row = summary_row(measure(mask, AXIAL))
        assert row["longest_diameter_mm"] == pytest.approx(11)
        assert row["largest_lesion_longest_diameter_mm"] < 6
        assert row["longest_diameter_pixels"] is None
        assert summary_row(measure(mask, AXIAL, spacing_known=False))["longest_diameter_pixels"] == pytest.approx(11)

    def test_summary_row_holds_one_value_a_column(self) -> None:
        row = summary_row(measure(ragged(2), AXIAL))
        assert all(value is None or isinstance(value, str | int | float) for value in row.values())


class TestSide:
    """The plane between the hemispheres lies at column 10 of this volume, whose columns run to the patient's left."""

    AFFINE = np.array([[0, -2.0, 0, 20], [-2.0, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1]])
    MIDLINE = (-1.0, 0.0, 0.0, 0.0)

    @pytest.mark.parametrize(
        ("columns", "side", "distance"),
        [((12, 15), "left", 4.0), ((2, 9), "right", 4.0), ((8, 13), "both", 0.0), ((2, 11), "right", 0.0)],
    )
    def test_side_and_distance_follow_the_voxels(self, columns: tuple[int, int], side: str, distance: float) -> None:
        mask = np.zeros((20, 21, 5), dtype=bool)
        mask[5:10, slice(*columns), 2] = True
        (lesion,) = measure(mask, self.AFFINE, midline=self.MIDLINE)["lesions"]
        assert lesion["side"] == side
        assert lesion["midline_distance_mm"] == pytest.approx(distance)

    def test_distance_is_in_pixels_if_the_spacing_is_not_known(self) -> None:
        mask = np.zeros((20, 21, 5), dtype=bool)
        mask[5:10, 12:15, 2] = True
        affine = np.array([[0, -1.0, 0, 10], [-1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]])
        found = measure(mask, affine, midline=self.MIDLINE, spacing_known=False, slice_spacing_known=False)
        assert found["lesions"][0]["midline_distance_pixels"] == pytest.approx(2)
        assert summary_row(found)["largest_lesion_side"] == "left"

    def test_lesion_has_no_side_without_a_midline(self) -> None:
        mask = np.zeros((20, 21, 5), dtype=bool)
        mask[5:10, 12:15, 2] = True
        found = measure(mask, self.AFFINE)
        assert "side" not in found["lesions"][0]
        assert summary_row(found)["largest_lesion_side"] is None
