"""Frames ordered in space: what order and affine come out, and which series are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import AXIAL, OBLIQUE, ramp, write_multiframe, write_series

from mri_seg.dicom import FrameGrid, order_frames

IMAGE = ramp(8, 6, 5)


def moved(**offsets: float) -> object:
    """Positions of axial slices 5 mm apart, some moved: ``s2=1`` moves slice 2 up by 1 mm."""
    return lambda k: [-90.0, -100.0, -40.0 + 5 * k + offsets.get(f"s{k}", 0.0)]


def names(grid: FrameGrid) -> list[str]:
    return [frame.path.name for frame in grid.frames]


class TestOrder:
    def test_goes_along_the_normal(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        grid = order_frames(files)
        assert [frame.path for frame in grid.frames] == files
        assert [frame.position[2] for frame in grid.frames] == [-40, -35, -30, -25, -20]

    def test_does_not_follow_names_numbers_or_the_list(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, shuffled=True, reversed_numbers=True)
        assert names(order_frames(sorted(files))) == [file.name for file in files]

    def test_holds_for_oblique_slices(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, OBLIQUE, shuffled=True)
        assert names(order_frames(files[::-1])) == [file.name for file in files]

    def test_of_frames_in_a_file_is_theirs(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[3, 0, 4, 1, 2])
        assert [frame.number for frame in order_frames([file]).frames] == [1, 3, 4, 0, 2]


class TestAffine:
    @pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
    def test_is_that_of_the_headers_in_ras(self, tmp_path: Path, affine: np.ndarray) -> None:
        for grid in (
            order_frames(write_series(tmp_path, IMAGE, affine, shuffled=True)),
            order_frames([write_multiframe(tmp_path / "a.dcm", IMAGE, affine, frame_order=[3, 0, 4, 1, 2])]),
        ):
            np.testing.assert_allclose(grid.affine, affine, atol=1e-6)
            assert grid.affine.dtype == np.float64
            assert grid.shape == (8, 6, 5)
            assert grid.spacing_known
            assert grid.slice_spacing_known

    def test_of_slices_written_downwards_starts_at_the_lowest(self, tmp_path: Path) -> None:
        downwards = AXIAL @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
        files = write_series(tmp_path, IMAGE, downwards)
        grid = order_frames(files)
        assert [frame.path for frame in grid.frames] == files[::-1]
        np.testing.assert_allclose(grid.affine, AXIAL)

    def test_takes_the_distance_of_positions_not_the_thickness(self, tmp_path: Path) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE, SliceThickness=3, SpacingBetweenSlices=1))
        assert grid.affine[2, 2] == 5

    def test_counts_pixels_of_unknown_spacing_as_one_mm(self, tmp_path: Path) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE, PixelSpacing=None))
        assert not grid.spacing_known
        assert grid.slice_spacing_known
        np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), [1, 1, 5])


class TestSingleSlice:
    @pytest.mark.parametrize(
        ("header", "spacing", "known"),
        [
            ({"SpacingBetweenSlices": 6, "SliceThickness": 4}, 6, True),
            ({"SpacingBetweenSlices": None, "SliceThickness": 4}, 4, True),
            ({"SpacingBetweenSlices": None, "SliceThickness": ""}, 1, False),
        ],
        ids=["spacing", "thickness", "neither"],
    )
    def test_takes_its_distance_from_the_header(
        self, tmp_path: Path, header: dict, spacing: float, known: bool
    ) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE[..., :1], **header))
        assert grid.slice_spacing_known is known
        np.testing.assert_allclose(grid.affine, AXIAL @ np.diag([1, 1, spacing / 5, 1]))


class TestDistances:
    def test_may_differ_by_rounding(self, tmp_path: Path) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE, ImagePositionPatient=moved(s2=0.04)))
        assert grid.affine[2, 2] == 5

    def test_of_a_missing_slice_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        message = (
            r"IM0003\.dcm: lies 10\.00 mm from .*IM0001\.dcm, its neighbour, where the usual distance is 5\.00 mm\. "
            r"Slices missing in between: 1, between the positions \(.*, -35\.00\) and \(.*, -25\.00\) mm"
        )
        with pytest.raises(ValueError, match=message):
            order_frames([*files[:2], *files[3:]])

    def test_of_one_missing_slice_among_three_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE[..., :4])
        with pytest.raises(ValueError, match="missing in between: 1"):
            order_frames([files[0], files[1], files[3]])

    def test_that_differ_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, ImagePositionPatient=moved(s2=0.6))
        with pytest.raises(ValueError, match=r"lies 5\.60 mm from .*Expected slices equally far apart"):
            order_frames(files)

    def test_of_frames_name_the_frame(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[4, 3, 1, 0])
        with pytest.raises(ValueError, match=r"a\.dcm \(frame 2\): lies 10\.00 mm from .*a\.dcm \(frame 3\)"):
            order_frames([file])


class TestPositionsThatOccurTwice:
    def test_name_what_the_frames_differ_in(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="a{}.dcm", series_uid="1.2", EchoTime=20)
        files += write_series(tmp_path, IMAGE, names="b{}.dcm", series_uid="1.2", EchoTime=100)
        with pytest.raises(ValueError, match=r"same place as .*They differ in EchoTime \(20.*100.*of one EchoTime"):
            order_frames(files)

    def test_are_told_of_copies(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        copy = tmp_path / "copy.dcm"
        copy.write_bytes(files[1].read_bytes())
        with pytest.raises(ValueError, match=r"copy\.dcm: lies at the same place as .*IM0001\.dcm.*copies of one"):
            order_frames([*files, copy])

    def test_may_differ_in_nothing_known(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="a{}.dcm", series_uid="1.2")
        files += write_series(tmp_path, IMAGE, names="b{}.dcm", series_uid="1.2")
        with pytest.raises(ValueError, match=r"10 of 10 frames share .*The series may hold several volumes"):
            order_frames(files)

    def test_in_one_file_are_told(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[0, 1, 2, 1])
        with pytest.raises(
            ValueError, match=r"a\.dcm \(frame 4\): lies .*; 2 of 4 frames share .*The file may hold several volumes"
        ):
            order_frames([file])


class TestFramesThatDiffer:
    @pytest.mark.parametrize(
        ("header", "what"),
        [
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "ImageOrientationPatient"),
            ({"PixelSpacing": [0.5, 0.5]}, "PixelSpacing"),
            ({"PixelSpacing": None}, "PixelSpacing is None"),
            ({"Rows": 4, "Columns": 12}, "size"),
            ({"SeriesInstanceUID": "1.9"}, "SeriesInstanceUID"),
        ],
    )
    def test_are_refused(self, tmp_path: Path, header: dict, what: str) -> None:
        files = write_series(tmp_path, IMAGE[..., :2], names="a{}.dcm", series_uid="1.2")
        other = write_series(tmp_path, IMAGE, names="b{}.dcm", **({"series_uid": "1.2"} | header))[3]
        with pytest.raises(ValueError, match=rf"b3\.dcm: {what}.* in .*a0\.dcm\. Slices of one volume must agree"):
            order_frames([*files, other])

    def test_by_rounding_are_taken(self, tmp_path: Path) -> None:
        spacing = [[0.8, 0.9], [0.8001, 0.9], [0.8, 0.8999], [0.8, 0.9], [0.8, 0.9]]
        files = write_series(tmp_path, IMAGE, PixelSpacing=lambda k: spacing[k])
        assert order_frames(files).shape == (8, 6, 5)


class TestPlaceInSpace:
    @pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
    def test_is_needed(self, tmp_path: Path, keyword: str) -> None:
        files = write_series(tmp_path, IMAGE[..., :1], **{keyword: None})
        with pytest.raises(ValueError, match=rf"IM0000\.dcm: {keyword} is missing, expected . numbers"):
            order_frames(files)

    def test_of_frames_is_needed(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, PerFrameFunctionalGroupsSequence=None)
        with pytest.raises(ValueError, match=r"a\.dcm: has 5 frames, but no PlanePositionSequence"):
            order_frames([file])

    def test_takes_perpendicular_directions(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
        with pytest.raises(ValueError, match="expected two perpendicular directions"):
            order_frames(files)

    def test_of_a_sheared_stack_is_refused(self, tmp_path: Path) -> None:
        sheared = AXIAL.copy()
        sheared[1, 2] = 1.0
        with pytest.raises(ValueError, match=r"lies 4\.00 mm sideways of .*IM0000\.dcm, over 20\.00 mm"):
            order_frames(write_series(tmp_path, IMAGE, sheared))


class TestFiles:
    def test_are_needed(self) -> None:
        with pytest.raises(ValueError, match="list of files is empty"):
            order_frames([])

    def test_that_are_missing_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.dcm: no such file"):
            order_frames([tmp_path / "none.dcm"])

    def test_without_an_image_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"IM0000\.dcm: Rows is missing"):
            order_frames(write_series(tmp_path, IMAGE, Rows=None))
