"""Scans of an invented head: the same place, lesions over time, events and flags."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import itk
import numpy as np
import pytest
from heads_over_time import head_scan, pose
from nibabel.affines import apply_affine, voxel_sizes

from mri_seg.follow_up.change_mask import GAINED, LOST, STABLE, change_map
from mri_seg.follow_up.engine import make_timeline
from mri_seg.follow_up.registration import register, write_transform
from mri_seg.follow_up.timeline import QUANTITIES, Scan, Timeline

TILTED = pose((4, -3, 8), (5, -6, 7))
CORNERS = np.array([[x, y, z] for x in (-50, 50) for y in (-60, 60) for z in (-40, 40)])


def flags_of(timeline: Timeline) -> set[str]:
    return {flag["name"] for flag in timeline.flags}


@pytest.fixture(scope="module")
def grown() -> Timeline:
    """A tumour that grows from 15 to 18 mm radius in two years; the second scan is tilted and has another contrast."""
    first = head_scan("first", day="2020-01-01")
    second = head_scan("second", [((20, 10, 5), 18.0)], to_scanner=TILTED, day="2022-01-01", contrast=0.7)
    return make_timeline("P1", [first, second])


class TestRegistration:
    def test_tilted_scan_is_brought_to_the_first(self, grown: Timeline) -> None:
        off = apply_affine(grown.points[1].from_first, CORNERS) - apply_affine(TILTED, CORNERS)
        assert np.linalg.norm(off, axis=1).max() < 1.5

    @pytest.mark.parametrize("angles", [(20, -8, 10), (-22, 12, 5)])
    def test_head_that_lies_far_otherwise_is_brought_back_too(self, angles: tuple[int, int, int]) -> None:
        lies = pose(angles, (5, 10, -5))
        one, other = head_scan(), head_scan(to_scanner=lies, contrast=0.7)
        found = register(one.image, one.affine, other.image, other.affine)
        off = apply_affine(found.matrix, CORNERS) - apply_affine(lies, CORNERS)
        assert np.linalg.norm(off, axis=1).max() < 1.5
        assert not found.quality.doubtful

    def test_head_that_is_turned_by_half_a_right_angle_is_brought_back(self) -> None:
        lies = pose((0, 5, 50), (5, 10, -5))
        one, other = head_scan(), head_scan(to_scanner=lies)
        found = register(one.image, one.affine, other.image, other.affine)
        off = apply_affine(found.matrix, CORNERS) - apply_affine(lies, CORNERS)
        assert np.linalg.norm(off, axis=1).max() < 1.5

    def test_another_person_is_an_error_that_names_both_scans(self) -> None:
        with pytest.raises(ValueError, match=r"theirs: cannot be brought to the place of mine"):
            make_timeline("P1", [head_scan("mine"), head_scan("theirs", person=1)])

    def test_transform_file_maps_points_as_itk_does(self, tmp_path: Path) -> None:
        write_transform(tmp_path / "a.tfm", TILTED)
        (transform,) = itk.transformread(str(tmp_path / "a.tfm"))
        point = [10.0, -20.0, 30.0]  # LPS
        expected = apply_affine(TILTED, np.multiply(point, (-1, -1, 1))) * (-1, -1, 1)
        assert list(transform.TransformPoint(point)) == pytest.approx(expected.tolist(), abs=1e-4)

    @pytest.mark.interpreter
    def test_classes_of_itk_are_found_where_they_are_without_loading_all_others(self) -> None:
        code = (
            "import sys; from mri_seg.follow_up.itk_classes import _direct; _direct();"
            "print(sum(name.startswith('itk.') for name in sys.modules))"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(ended.stdout) < 800  # by their usual names, more than 1900

    def test_same_scans_give_the_same_transform(self) -> None:
        one, other = head_scan(), head_scan(to_scanner=pose((0, 0, 5)))
        found = [register(one.image, one.affine, other.image, other.affine).matrix for _ in range(2)]
        np.testing.assert_allclose(*found, atol=1e-3)


class TestTimeline:
    def test_velocity_is_that_of_the_mean_diameter(self, grown: Timeline) -> None:
        assert grown.velocity is not None
        diameters = [point.values["mean_diameter"].value for point in grown.points]
        assert grown.velocity.estimate.value == pytest.approx((diameters[1] - diameters[0]) / 2.0, rel=0.01)
        assert grown.velocity.years == pytest.approx(2.0, abs=0.01)

    def test_gained_voxels_are_the_growth(self, grown: Timeline) -> None:
        (change,) = [change for change in grown.changes if change.against == "baseline"]
        growth = change.difference["volume"].value
        assert change.voxels_ml["gained"] - change.voxels_ml["lost"] == pytest.approx(growth, rel=0.15)
        assert change.voxels_ml["lost"] < 0.1 * change.voxels_ml["stable"]

    def test_table_and_change_map_have_the_same_voxels(self, grown: Timeline) -> None:
        (change,) = [change for change in grown.changes if change.against == "baseline"]
        labels, voxel_ml = change_map(grown), abs(np.linalg.det(grown.points[1].scan.affine[:3, :3])) / 1000
        for name, label in (("stable", STABLE), ("gained", GAINED), ("lost", LOST)):
            assert change.voxels_ml[name] == pytest.approx((labels == label).sum() * voxel_ml)

    def test_change_map_keeps_the_latest_mask(self, grown: Timeline) -> None:
        labels = change_map(grown)
        assert (np.isin(labels, (STABLE, GAINED)) == grown.points[-1].scan.mask).all()
        assert (labels == GAINED).sum() > 3 * (labels == LOST).sum()

    def test_dates_shifted_alike_change_nothing(self, grown: Timeline) -> None:
        first = head_scan("first", day="2000-01-01")
        second = head_scan("second", [((20, 10, 5), 18.0)], to_scanner=TILTED, day="2002-01-01", contrast=0.7)
        shifted = make_timeline("P1", [first, second])
        assert shifted.velocity is not None
        assert grown.velocity is not None
        assert tuple(shifted.velocity.estimate) == pytest.approx(tuple(grown.velocity.estimate))

    def test_scans_without_dates_have_no_rates(self) -> None:
        timeline = make_timeline("P1", [head_scan("a"), head_scan("b")])
        assert timeline.velocity is None
        assert timeline.points[1].years is None
        assert "no_dates" in flags_of(timeline)
        assert timeline.changes[0].within_error["volume"]

    def test_single_scan_is_flagged(self) -> None:
        timeline = make_timeline("P1", [head_scan(day="2020-01-01")])
        assert "single_scan" in flags_of(timeline)
        assert (timeline.velocity, timeline.changes) == (None, [])

    def test_two_scans_of_one_day_are_flagged(self) -> None:
        timeline = make_timeline("P1", [head_scan("a", day="2020-01-01"), head_scan("b", day="2020-01-01")])
        assert "same_day" in flags_of(timeline)
        assert timeline.velocity is None

    def test_flag_of_one_day_names_both_files(self, caplog: pytest.LogCaptureFixture) -> None:
        scans = [head_scan("a", day="2020-01-01"), head_scan("b", day="2020-01-01")]
        for scan in scans:
            scan.files = [f"/data/{scan.case}.nii.gz"]
        make_timeline("P1", scans)
        assert "/data/b.nii.gz (b) and /data/a.nii.gz (a) have the same date, 2020-01-01" in caplog.text

    def test_falling_dates_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="b: its date 2019-01-01 is before that of a"):
            make_timeline("P1", [head_scan("a", day="2020-01-01"), head_scan("b", day="2019-01-01")])

    def test_scan_that_the_network_is_unsure_of_makes_intervals_wide_and_is_flagged(self) -> None:
        error = {name: {"absolute_sd": 0.1, "relative_sd": 0.01} for name in QUANTITIES}
        unsure = {name: {"absolute_sd": 0.1, "relative_sd": 0.3} for name in QUANTITIES}
        levels = {**error, "by_expected_dice": [{"from": 0.9, **error}, {"from": 0.0, **unsure}]}
        scans = [head_scan("a", day="2020-01-01"), head_scan("b", day="2021-01-01")]
        sure = make_timeline("P1", scans, repeatability=levels)
        assert "large_error" not in flags_of(sure)
        scans[1].expected_dice = 0.6
        wide = make_timeline("P1", scans, repeatability=levels)
        assert "b: its expected Dice is 0.60" in " ".join(flag["message"] for flag in wide.flags)
        scans[1].expected_dice = None
        assert "error_of_all_heads" in flags_of(make_timeline("P1", scans, repeatability=levels))
        spans = [one.velocity.estimate.high - one.velocity.estimate.low for one in (sure, wide) if one.velocity]
        assert spans[1] > 5 * spans[0]

    def test_scans_without_any_tumour_are_followed(self) -> None:
        timeline = make_timeline("P1", [head_scan("a", [], day="2020-01-01"), head_scan("b", [], day="2021-01-01")])
        assert timeline.lesions == []
        assert timeline.responses[1] is not None
        assert timeline.responses[1].category == "stable disease"


class TestFieldOfView:
    """Scans that do not show the whole head."""

    LOW, HIGH = ((20, 10, -30), 12.0), ((20, 10, 35), 12.0)

    @staticmethod
    def cropped(scan: Scan, slices: slice) -> Scan:
        start = slices.indices(scan.mask.shape[2])[0]
        affine = scan.affine.copy()
        affine[:3, 3] = apply_affine(affine, (0, 0, start))
        image, mask = (np.ascontiguousarray(one[..., slices]) for one in (scan.image, scan.mask))
        return dataclasses.replace(scan, image=image, mask=mask, affine=affine)

    def test_lesion_that_the_first_scan_did_not_show_is_not_new(self) -> None:
        scans = [head_scan(name, [self.LOW, self.HIGH], day=f"202{n}-01-01") for n, name in enumerate("abc")]
        depth = scans[0].mask.shape[2]
        top = np.flatnonzero(scans[0].mask.any(axis=(0, 1)))[-1]
        shown = slice(0, int(top - 24 / voxel_sizes(scans[0].affine)[2]))  # without the upper lesion
        assert depth > shown.stop
        timeline = make_timeline("P1", [self.cropped(scans[0], shown), *scans[1:]])
        assert [lesion.new_at for lesion in timeline.lesions] == [None, None]
        assert [lesion.parts for lesion in timeline.lesions] in ([[1, 1, 1], [0, 1, 1]], [[0, 1, 1], [1, 1, 1]])
        assert [response.category for response in timeline.responses if response] == ["not evaluable"] * 2
        assert "tumour_outside" in flags_of(timeline)

    def test_scan_that_cuts_the_tumour_is_not_the_smallest_so_far(self) -> None:
        scans = [head_scan(name, day=f"202{n}-01-01") for n, name in enumerate("abc")]
        middle = int(np.flatnonzero(scans[0].mask.any(axis=(0, 1))).mean())
        timeline = make_timeline("P1", [scans[0], self.cropped(scans[1], slice(0, middle)), scans[2]])
        assert [response.category for response in timeline.responses if response] == ["not evaluable", "stable disease"]


class TestEvents:
    def test_event_starts_a_new_baseline(self) -> None:
        small = [((20, 10, 5), 10.0)]
        timeline = make_timeline(
            "P1",
            [
                head_scan("a", day="2018-01-01"),
                head_scan("b", day="2019-01-01"),
                head_scan("c", small, day="2020-01-01", event="Surgery"),
                head_scan("d", small, day="2021-01-01"),
            ],
        )
        assert [point.epoch for point in timeline.points] == [0, 0, 1, 1]
        assert [response is None for response in timeline.responses] == [True, False, True, False]
        assert timeline.velocity is not None
        assert timeline.velocity.estimate.value == pytest.approx(0.0, abs=0.1)
        assert "large_fall" not in flags_of(timeline)
        after = [point.case for point in timeline.points if "after_surgery" in {f["name"] for f in point.scan.flags}]
        assert after == ["c", "d"]

    def test_large_fall_without_event_is_flagged(self) -> None:
        scans = [head_scan("a", day="2020-01-01"), head_scan("b", [((20, 10, 5), 9.0)], day="2021-01-01")]
        assert "large_fall" in flags_of(make_timeline("P1", scans))


class TestLesions:
    LEFT, RIGHT = ((30, 10, 5), 12.0), ((-30, 10, 5), 12.0)

    def test_lesions_are_matched_over_time(self) -> None:
        scans = [head_scan("a", [self.LEFT, self.RIGHT]), head_scan("b", [self.RIGHT, self.LEFT], to_scanner=TILTED)]
        timeline = make_timeline("P1", scans)
        assert [lesion.parts for lesion in timeline.lesions] == [[1, 1], [1, 1]]
        assert all(lesion.new_at is None for lesion in timeline.lesions)

    def test_new_lesion_is_progression(self) -> None:
        timeline = make_timeline("P1", [head_scan("a", [self.LEFT]), head_scan("b", [self.LEFT, self.RIGHT])])
        new = [lesion for lesion in timeline.lesions if lesion.new_at is not None]
        assert [(lesion.new_at, lesion.values[0]) for lesion in new] == [(1, None)]
        assert timeline.responses[1] is not None
        assert timeline.responses[1].category == "progressive disease"
        assert "new_lesion" in flags_of(timeline)

    def test_new_lesion_below_10_mm_is_flagged_but_no_progression(self) -> None:
        small = ((-30, 10, 5), 4.0)
        timeline = make_timeline("P1", [head_scan("a", [self.LEFT]), head_scan("b", [self.LEFT, small])])
        assert timeline.responses[1] is not None
        assert timeline.responses[1].category == "stable disease"
        assert "new_lesion" in flags_of(timeline)

    def test_lesion_that_splits_is_followed_as_one(self) -> None:
        whole, parts = [((20, 0, 5), 22.0)], [((20, 14, 5), 8.0), ((20, -14, 5), 8.0)]
        timeline = make_timeline("P1", [head_scan("a", whole), head_scan("b", parts)])
        assert [lesion.parts for lesion in timeline.lesions] == [[1, 2]]
