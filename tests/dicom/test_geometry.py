"""Frames ordered in space: what order and affine come out, and which series are refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import AXIAL, OBLIQUE, ramp, write_multiframe, write_series

from mri_seg.dicom import FrameGrid, order_frames
from mri_seg.dicom.reader import DICOMReader

IMAGE = ramp(8, 6, 5)


def moved(**offsets: float) -> object:
    """Positions of axial slices 5 mm apart, some moved: ``s2=1`` moves slice 2 up by 1 mm."""
    return lambda k: [-90.0, -100.0, -40.0 + 5 * k + offsets.get(f"s{k}", 0.0)]


def names(grid: FrameGrid) -> list[str]:
    return [frame.path.name for frame in grid.frames]


class TestOrder:
    def test_slice_order_goes_along_the_normal(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        grid = order_frames(files)
        assert [frame.path for frame in grid.frames] == files
        assert [frame.position[2] for frame in grid.frames] == [-40, -35, -30, -25, -20]

    def test_slice_order_does_not_follow_names_numbers_or_the_list(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, shuffled=True, reversed_numbers=True)
        assert names(order_frames(sorted(files))) == [file.name for file in files]

    def test_slice_order_holds_for_oblique_slices(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, OBLIQUE, shuffled=True)
        assert names(order_frames(files[::-1])) == [file.name for file in files]

    def test_order_of_frames_in_a_file_is_theirs(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[3, 0, 4, 1, 2])
        assert [frame.number for frame in order_frames([file]).frames] == [1, 3, 4, 0, 2]


class TestAffine:
    @pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
    def test_affine_is_that_of_the_headers_in_ras(self, tmp_path: Path, affine: np.ndarray) -> None:
        for grid in (
            order_frames(write_series(tmp_path, IMAGE, affine, shuffled=True)),
            order_frames([write_multiframe(tmp_path / "a.dcm", IMAGE, affine, frame_order=[3, 0, 4, 1, 2])]),
        ):
            np.testing.assert_allclose(grid.affine, affine, atol=1e-6)
            assert grid.affine.dtype == np.float64
            assert grid.shape == (8, 6, 5)
            assert grid.spacing_known
            assert grid.slice_spacing_known

    def test_affine_of_slices_written_downwards_starts_at_the_lowest(self, tmp_path: Path) -> None:
        downwards = AXIAL @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
        files = write_series(tmp_path, IMAGE, downwards)
        grid = order_frames(files)
        assert [frame.path for frame in grid.frames] == files[::-1]
        np.testing.assert_allclose(grid.affine, AXIAL)

    def test_affine_takes_the_distance_of_positions_not_the_thickness(self, tmp_path: Path) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE, SliceThickness=3, SpacingBetweenSlices=1))
        assert grid.affine[2, 2] == 5

    def test_affine_counts_pixels_of_unknown_spacing_as_one_mm(self, tmp_path: Path) -> None:
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
    def test_single_slice_takes_its_distance_from_the_header(
        self, tmp_path: Path, header: dict, spacing: float, known: bool
    ) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE[..., :1], **header))
        assert grid.slice_spacing_known is known
        np.testing.assert_allclose(grid.affine, AXIAL @ np.diag([1, 1, spacing / 5, 1]))


class TestDistances:
    def test_slice_distances_may_differ_by_rounding(self, tmp_path: Path) -> None:
        grid = order_frames(write_series(tmp_path, IMAGE, ImagePositionPatient=moved(s2=0.04)))
        assert grid.affine[2, 2] == 5

    def test_distance_of_a_missing_slice_is_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        message = (
            r"IM0003\.dcm: lies 10\.00 mm from the adjacent slice .*IM0001\.dcm, but the usual distance is 5\.00 mm\. "
            r"Slices missing in between: 1, between the positions \(.*, -35\.00\) and \(.*, -25\.00\) mm"
        )
        with pytest.raises(ValueError, match=message):
            order_frames([*files[:2], *files[3:]])

    def test_distance_of_one_missing_slice_among_three_is_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE[..., :4])
        with pytest.raises(ValueError, match="missing in between: 1"):
            order_frames([files[0], files[1], files[3]])

    def test_slice_distances_that_differ_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, ImagePositionPatient=moved(s2=0.6))
        with pytest.raises(ValueError, match=r"lies 5\.60 mm from .*Expected equally spaced slices"):
            order_frames(files)

    def test_distances_of_frames_name_the_frame(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[4, 3, 1, 0])
        with pytest.raises(ValueError, match=r"a\.dcm \(frame 2\): lies 10\.00 mm from .*a\.dcm \(frame 3\)"):
            order_frames([file])


class TestPositionsThatOccurTwice:
    def test_name_what_the_frames_differ_in(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="a{}.dcm", series_uid="1.2", EchoTime=20)
        files += write_series(tmp_path, IMAGE, names="b{}.dcm", series_uid="1.2", EchoTime=100)
        with pytest.raises(ValueError, match=r"same position as .*They differ in EchoTime \(20.*100.*of one EchoTime"):
            order_frames(files)

    @pytest.mark.parametrize("timing", [{"echo_time": 30.0}, {"inversion_time": 900.0}])
    def test_name_what_frames_of_enhanced_files_differ_in(self, tmp_path: Path, timing: dict) -> None:
        files = [
            write_multiframe(tmp_path / "a.dcm", IMAGE, series_uid="1.2"),
            write_multiframe(tmp_path / "b.dcm", IMAGE, series_uid="1.2", **timing),
        ]
        name = "EffectiveEchoTime" if "echo_time" in timing else "InversionTimes"
        with pytest.raises(ValueError, match=rf"same position as .*They differ in {name} \(.* of one {name}"):
            order_frames(files)

    def test_positions_that_occur_twice_in_one_file_name_what_the_frames_differ_in(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[0, 1, 2, 0, 1, 2])
        data = pydicom.dcmread(file)
        for number, groups in enumerate(data.PerFrameFunctionalGroupsSequence):
            groups.FrameContentSequence[0].TemporalPositionIndex = 1 + number // 3
        data.save_as(file)
        with pytest.raises(ValueError, match=r"differ in TemporalPositionIndex \(1 and 2\): the file holds several"):
            order_frames([file])

    def test_positions_that_occur_twice_may_differ_in_nothing_known(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="a{}.dcm", series_uid="1.2")
        files += write_series(tmp_path, IMAGE, names="b{}.dcm", series_uid="1.2")
        with pytest.raises(ValueError, match=r"10 of 10 frames share .*The series may hold several volumes"):
            order_frames(files)

    def test_positions_that_occur_twice_in_one_file_are_told(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[0, 1, 2, 1])
        with pytest.raises(
            ValueError, match=r"a\.dcm \(frame 4\): lies .*; 2 of 4 frames share .*The file may hold several volumes"
        ):
            order_frames([file])


def csa(count: int | None) -> bytes:
    """A CSA header of Siemens with one entry: how many slices a mosaic has, empty in other images."""
    text = b"" if count is None else str(count).encode().ljust(8) + b"\0\0\0\0"
    entry = b"NumberOfImagesInMosaic".ljust(64, b"\0") + struct.pack("<i4s3i", 1, b"US", 6, 6, 77)
    items = [struct.pack("<4i", len(text), len(text), 77, len(text)) + text, *[struct.pack("<4i", 0, 0, 77, 0)] * 5]
    return b"SV10\4\3\2\1" + struct.pack("<2I", 1, 77) + entry + b"".join(items)


def with_private(files: list[Path], group: int, creator: str, element: int, vr: str, value: object) -> list[Path]:
    for file in files:
        data = pydicom.dcmread(file)
        data.private_block(group, creator, create=True).add_new(element, vr, value)
        data.save_as(file)
    return files


class TestMosaics:
    message = r"IM0000\.dcm: is a Siemens mosaic, {} slices side by side in one image.*dcm2niix"

    @pytest.mark.parametrize("count", [1, 5])
    def test_mosaics_named_in_image_type_are_refused(self, tmp_path: Path, count: int) -> None:
        files = write_series(tmp_path, IMAGE[..., :count], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
        with pytest.raises(ValueError, match=self.message.format("many")):
            order_frames(files)

    @pytest.mark.parametrize("vr", ["US", "UN"])
    def test_mosaics_counted_in_a_private_attribute_are_refused(self, tmp_path: Path, vr: str) -> None:
        value = 36 if vr == "US" else struct.pack("<H", 36)
        files = with_private(write_series(tmp_path, IMAGE), 0x0019, "SIEMENS MR HEADER", 0x0A, vr, value)
        with pytest.raises(ValueError, match=self.message.format("36")):
            order_frames(files)

    def test_mosaics_counted_in_a_csa_header_are_refused(self, tmp_path: Path) -> None:
        files = with_private(write_series(tmp_path, IMAGE), 0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa(25))
        with pytest.raises(ValueError, match=self.message.format("25")):
            order_frames(files)

    def test_mosaics_are_refused_by_the_reader(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, ImageType=["DERIVED", "SECONDARY", "MOSAIC"])
        with pytest.raises(ValueError, match="is a Siemens mosaic"):
            DICOMReader().read(files)

    @pytest.mark.parametrize(
        ("group", "creator", "element", "vr", "value"),
        [
            (0x0019, "SIEMENS MR HEADER", 0x0A, "US", 1),
            (0x0019, "GEMS_ACQU_01", 0x0A, "US", 36),
            (0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa(None)),
            (0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa(25)[:100]),
            (0x0029, "OTHER", 0x10, "OB", csa(25)),
        ],
        ids=["one", "of another vendor", "empty", "cut short", "of another creator"],
    )
    def test_mosaics_are_not_seen_in_ordinary_slices(
        self, tmp_path: Path, group: int, creator: str, element: int, vr: str, value: object
    ) -> None:
        files = with_private(write_series(tmp_path, IMAGE), group, creator, element, vr, value)
        assert order_frames(files).shape == (8, 6, 5)

    def test_mosaics_of_a_scanner_are_refused(self, tmp_path: Path) -> None:
        shipped = Path(nibabel.__file__).parent / "nicom" / "tests" / "data" / "siemens_dwi_0.dcm.gz"
        if not shipped.exists():
            pytest.skip("nibabel does not ship it here")
        (tmp_path / "a.dcm").write_bytes(gzip.decompress(shipped.read_bytes()))
        with pytest.raises(ValueError, match="is a Siemens mosaic, 48 slices"):
            order_frames([tmp_path / "a.dcm"])
        data = pydicom.dcmread(tmp_path / "a.dcm")
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        del data[0x0019, 0x100A]
        data.save_as(tmp_path / "a.dcm")
        with pytest.raises(ValueError, match="is a Siemens mosaic, 48 slices"):  # by its CSA header
            order_frames([tmp_path / "a.dcm"])


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
    def test_frames_that_differ_are_refused(self, tmp_path: Path, header: dict, what: str) -> None:
        files = write_series(tmp_path, IMAGE[..., :2], names="a{}.dcm", series_uid="1.2")
        other = write_series(tmp_path, IMAGE, names="b{}.dcm", **({"series_uid": "1.2"} | header))[3]
        with pytest.raises(
            ValueError, match=rf"b3\.dcm: {what}.* in .*a0\.dcm\. All slices of a volume must have the same"
        ):
            order_frames([*files, other])

    def test_frames_that_differ_by_rounding_are_taken(self, tmp_path: Path) -> None:
        spacing = [[0.8, 0.9], [0.8001, 0.9], [0.8, 0.8999], [0.8, 0.9], [0.8, 0.9]]
        files = write_series(tmp_path, IMAGE, PixelSpacing=lambda k: spacing[k])
        assert order_frames(files).shape == (8, 6, 5)


class TestPlaceInSpace:
    @pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
    def test_place_in_space_is_needed(self, tmp_path: Path, keyword: str) -> None:
        files = write_series(tmp_path, IMAGE[..., :1], **{keyword: None})
        with pytest.raises(ValueError, match=rf"IM0000\.dcm: {keyword} is missing, expected . numbers"):
            order_frames(files)

    def test_place_in_space_of_frames_is_needed(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, PerFrameFunctionalGroupsSequence=None)
        with pytest.raises(ValueError, match=r"a\.dcm: has 5 frames, but no PlanePositionSequence"):
            order_frames([file])

    def test_directions_in_space_must_be_perpendicular(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
        with pytest.raises(ValueError, match="expected two perpendicular directions"):
            order_frames(files)

    def test_place_in_space_of_a_sheared_stack_is_refused(self, tmp_path: Path) -> None:
        sheared = AXIAL.copy()
        sheared[1, 2] = 1.0
        with pytest.raises(ValueError, match=r"is shifted sideways by 4\.00 mm against .*IM0000\.dcm, over 20\.00 mm"):
            order_frames(write_series(tmp_path, IMAGE, sheared))


class TestFiles:
    def test_dicom_files_are_needed(self) -> None:
        with pytest.raises(ValueError, match="list of files is empty"):
            order_frames([])

    def test_dicom_files_that_are_missing_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.dcm: no such file"):
            order_frames([tmp_path / "none.dcm"])

    def test_dicom_files_without_an_image_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"IM0000\.dcm: Rows is missing"):
            order_frames(write_series(tmp_path, IMAGE, Rows=None))
