"""DICOM segmentations: what they hold, what they refer to, and that they read back as the mask written."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

highdicom = pytest.importorskip("highdicom", reason="needs the extra `dicom`")

import pydicom  # noqa: E402
from dicom_series import AXIAL, ramp, write_multiframe, write_series  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

from mri_seg.dicom.geometry import order_frames  # noqa: E402
from mri_seg.dicom.seg import read_segmentation, write_segmentation  # noqa: E402

SHAPE = (8, 6, 4)


def item(**values: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


INVALID = [
    {"ProcedureCodeSequence": []},
    {"ReasonForVisitCodeSequence": []},
    {"DeidentificationMethodCodeSequence": [item(CodeMeaning="without a code")]},
    {"ReferringPhysicianIdentificationSequence": [item()]},
    {"PatientSex": "UNKNOWN"},
    {"PatientIdentityRemoved": "YES"},
    {"PatientAge": "45"},
    {"StudyDate": "2024-01-02"},
    {"StudyTime": "10:15"},
    {"StudyID": "7" * 20},
    {"StudyDescription": "two\\values"},
    {"ReferringPhysicianName": "^^^^^^^"},
    {"ClinicalTrialSiteName": "of no trial"},
]
"""Attributes of a source that its modules do not allow, or not alone."""


def turned(degrees: float, axis: Sequence[float] = (1.0, 0.3, 0.2)) -> np.ndarray:
    """The axial affine, turned about an axis through the origin (Rodrigues' formula)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return affine @ AXIAL


def blob(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A mask without symmetry; its second slice is empty where there are several."""
    mask = np.random.default_rng(1).random(shape) > 0.6
    if shape[2] > 1:
        mask[..., 1] = False
    return mask


def invalid_series(folder: Path, **header: Any) -> list[Path]:
    """A series with attributes that pydicom warns of as it writes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_series(folder, ramp(*SHAPE), **header)


def write(path: Path, mask: np.ndarray, files: Sequence[Path], **options: Any) -> Any:
    write_segmentation(path, mask, files, **({"algorithm_version": "1.2.3"} | options))
    return pydicom.dcmread(path)


def errors_of(path: Path) -> list[str]:
    """Lines of dciodvfy that say Error."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (dicom3tools)")
    run = subprocess.run([program, str(path)], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    assert "Segmentation" in lines  # it knew the kind of file
    return [line for line in lines if line.startswith("Error")]


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series", ramp(*SHAPE))


@pytest.fixture
def multiframe(tmp_path: Path) -> list[Path]:
    return [write_multiframe(tmp_path / "multi.dcm", ramp(*SHAPE), frame_order=[2, 0, 3, 1])]


@pytest.fixture(params=["series", "multiframe"])
def files(request: pytest.FixtureRequest) -> list[Path]:
    return request.getfixturevalue(request.param)


class TestReadsBack:
    def test_seg_reads_back_voxel_for_voxel(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", blob(), files)
        found = read_segmentation(tmp_path / "seg.dcm", files)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, blob())

    @pytest.mark.parametrize("degrees", [20, 95, 180, 300])
    @pytest.mark.parametrize("kind", ["series", "multiframe"])
    def test_seg_reads_back_in_any_orientation(self, tmp_path: Path, kind: str, degrees: float) -> None:
        if kind == "series":
            files = write_series(tmp_path / "series", ramp(*SHAPE), turned(degrees))
        else:
            files = [write_multiframe(tmp_path / "multi.dcm", ramp(*SHAPE), turned(degrees), frame_order=[1, 3, 2, 0])]
        write(tmp_path / "seg.dcm", blob(), files)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob())

    def test_seg_reads_back_whatever_the_order_of_the_files(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), shuffled=True, reversed_numbers=True)
        write(tmp_path / "seg.dcm", blob(), files[::-1])
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
            found = read_segmentation(tmp_path / "seg.dcm", [files[n] for n in order])
            np.testing.assert_array_equal(found, blob())

    def test_seg_reads_back_an_empty_mask(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), files)
        found = read_segmentation(tmp_path / "seg.dcm", files)
        assert found.shape == SHAPE
        assert not found.any()

    def test_seg_reads_back_a_full_mask(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", np.ones(SHAPE, bool), files)
        assert read_segmentation(tmp_path / "seg.dcm", files).all()

    @pytest.mark.parametrize("kind", ["series", "multiframe"])
    @pytest.mark.parametrize("empty", [False, True])
    def test_seg_reads_back_one_slice(self, tmp_path: Path, kind: str, empty: bool) -> None:
        volume, mask = ramp(8, 6, 1), blob((8, 6, 1)) & (not empty)
        files = (
            write_series(tmp_path / "series", volume)
            if kind == "series"
            else [write_multiframe(tmp_path / "multi.dcm", volume)]
        )
        write(tmp_path / "seg.dcm", mask, files)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), mask)

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.int64])
    def test_seg_reads_back_masks_of_any_type(self, tmp_path: Path, series: list[Path], dtype: type) -> None:
        write(tmp_path / "seg.dcm", blob().astype(dtype), series)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", series), blob())

    def test_seg_reads_back_frames_that_are_not_whole_bytes(self, tmp_path: Path) -> None:
        shape = (5, 3, 4)
        files = write_series(tmp_path / "series", ramp(*shape))
        write(tmp_path / "seg.dcm", blob(shape), files)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob(shape))


class TestGeometry:
    def test_frames_lie_where_their_slices_lie(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files)
        positions = [frame.position for frame in order_frames(files).frames]
        masks = data.pixel_array.reshape(-1, *SHAPE[:2])
        assert len(masks) == 3  # slices with tumour alone
        for mask, groups in zip(masks, data.PerFrameFunctionalGroupsSequence, strict=True):
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            (slice_,) = np.flatnonzero(_same(position, positions))
            np.testing.assert_array_equal(mask, blob()[..., slice_])

    def test_spacing_and_orientation_are_the_source_s(self, tmp_path: Path, files: list[Path]) -> None:
        shared = write(tmp_path / "seg.dcm", blob(), files).SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.9]
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 5
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]

    def test_distance_of_slices_comes_from_their_positions(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), SpacingBetweenSlices="1")  # a gap, as some write
        shared = write(tmp_path / "seg.dcm", blob(), files).SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 5

    def test_volume_agrees_with_the_affine_of_the_series(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), turned(30))
        write(tmp_path / "seg.dcm", np.ones(SHAPE, bool), files)
        volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
        series = highdicom.get_volume_from_series([pydicom.dcmread(file) for file in files])
        np.testing.assert_allclose(volume.affine, series.affine, atol=1e-4)

    def test_frame_of_reference_is_the_source_s(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files)
        assert data.FrameOfReferenceUID == pydicom.dcmread(files[0]).FrameOfReferenceUID

    def test_orientations_may_differ_by_rounding(self, tmp_path: Path) -> None:
        files = write_series(
            tmp_path / "series",
            ramp(*SHAPE),
            ImageOrientationPatient=lambda k: ["1", f"{k * 1e-7:.7f}", "0", f"{-k * 1e-7:.7f}", "1", "0"],
        )
        write(tmp_path / "seg.dcm", blob(), files)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob())


class TestEmptyFrames:
    def test_seg_with_empty_frames_has_a_frame_for_every_slice(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files, empty_frames=True)
        masks = data.pixel_array.reshape(-1, *SHAPE[:2])
        assert len(masks) == SHAPE[2]
        assert [bool(mask.any()) for mask in masks].count(False) == 1
        references = map(_reference, data.PerFrameFunctionalGroupsSequence)
        named = {(one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in references}
        assert len(named) == SHAPE[2]

    def test_seg_with_empty_frames_reads_back_voxel_for_voxel(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", blob(), files, empty_frames=True)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob())


class TestReferences:
    def test_each_frame_refers_to_the_image_it_covers(self, tmp_path: Path, series: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), series[::-1])
        sources = {source.SOPInstanceUID: source for source in map(pydicom.dcmread, series)}
        for groups in data.PerFrameFunctionalGroupsSequence:
            reference = _reference(groups)
            source = sources[reference.ReferencedSOPInstanceUID]
            assert reference.ReferencedSOPClassUID == source.SOPClassUID
            assert source.ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient

    def test_each_frame_refers_to_the_frame_it_covers(self, tmp_path: Path, multiframe: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), multiframe)
        source = pydicom.dcmread(multiframe[0])
        for groups in data.PerFrameFunctionalGroupsSequence:
            reference = _reference(groups)
            frame = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
            assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert frame.PlanePositionSequence == groups.PlanePositionSequence

    def test_seg_names_the_series_and_all_its_images(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files)
        sources = [pydicom.dcmread(file) for file in files]
        (series,) = data.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID
        named = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
        assert named == {source.SOPInstanceUID for source in sources}


class TestContent:
    def test_seg_is_one_binary_segment(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files)
        assert data.SOPClassUID.name == "Segmentation Storage"
        assert (data.SegmentationType, data.BitsAllocated, data.Modality) == ("BINARY", 1, "SEG")
        (segment,) = data.SegmentSequence
        assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "Tumour")
        assert (segment.TrackingID, segment.TrackingUID.is_valid) == ("Tumour", True)
        assert "RecommendedDisplayCIELabValue" in segment

    def test_segment_is_coded_in_snomed_ct(self, tmp_path: Path, files: list[Path]) -> None:
        (segment,) = write(tmp_path / "seg.dcm", blob(), files).SegmentSequence
        for sequence, value in (
            (segment.SegmentedPropertyCategoryCodeSequence, "49755003"),
            (segment.SegmentedPropertyTypeCodeSequence, "108369006"),
            (segment.AnatomicRegionSequence, "12738006"),
        ):
            (code,) = sequence
            assert (code.CodeValue, code.CodingSchemeDesignator) == (value, "SCT")

    def test_seg_says_what_made_it(self, tmp_path: Path, files: list[Path]) -> None:
        data = write(tmp_path / "seg.dcm", blob(), files)
        assert (data.Manufacturer, data.SoftwareVersions) == ("mri_seg", "1.2.3")
        (segment,) = data.SegmentSequence
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "mri_seg")
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("mri_seg", "1.2.3")

    def test_patient_and_study_are_the_source_s(self, tmp_path: Path) -> None:
        files = write_series(
            tmp_path / "series", ramp(*SHAPE), SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Ägidius"
        )
        data, source = write(tmp_path / "seg.dcm", blob(), files), pydicom.dcmread(files[0])
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyID"):
            assert data[keyword].value == source[keyword].value, keyword

    def test_series_is_a_new_one_behind_the_source(self, tmp_path: Path, files: list[Path]) -> None:
        one, two = (write(tmp_path / f"{n}.dcm", blob(), files, series_description=f"Run {n}") for n in (1, 2))
        source = pydicom.dcmread(files[0])
        assert len({one.SeriesInstanceUID, two.SeriesInstanceUID, source.SeriesInstanceUID}) == 3
        assert one.SOPInstanceUID != two.SOPInstanceUID
        assert one.SeriesNumber == source.SeriesNumber + 1000
        assert (one.SeriesDescription, two.SeriesDescription) == ("Run 1", "Run 2")


class TestConforms:
    @pytest.mark.parametrize("mask", [blob(), np.zeros(SHAPE, bool)], ids=["tumour", "no tumour"])
    def test_seg_has_no_error_by_dciodvfy(self, tmp_path: Path, files: list[Path], mask: np.ndarray) -> None:
        write(tmp_path / "seg.dcm", mask, files)
        assert errors_of(tmp_path / "seg.dcm") == []

    def test_seg_with_empty_frames_has_no_error_by_dciodvfy(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", blob(), files, empty_frames=True)
        assert errors_of(tmp_path / "seg.dcm") == []

    def test_seg_conforms_in_one_slice(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(8, 6, 1))
        write(tmp_path / "seg.dcm", blob((8, 6, 1)), files)
        assert errors_of(tmp_path / "seg.dcm") == []

    def test_seg_conforms_where_anonymising_has_removed_attributes(self, tmp_path: Path) -> None:
        removed = dict.fromkeys(
            ["PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"]
        )
        files = write_series(
            tmp_path / "series",
            ramp(*SHAPE),
            SliceThickness=None,
            ReferringPhysicianName=None,
            SeriesNumber=None,
            **removed,
        )
        write(tmp_path / "seg.dcm", blob(), files)
        assert errors_of(tmp_path / "seg.dcm") == []
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob())

    @pytest.mark.parametrize("header", INVALID, ids=lambda header: next(iter(header)))
    def test_seg_conforms_where_the_source_has_an_invalid_attribute(
        self, tmp_path: Path, header: dict[str, Any]
    ) -> None:
        files = invalid_series(tmp_path / "series", **header)
        write(tmp_path / "seg.dcm", blob(), files)
        assert errors_of(tmp_path / "seg.dcm") == []

    def test_seg_conforms_where_weights_options_and_remarks_are_said(self, tmp_path: Path, files: list[Path]) -> None:
        said = {"checkpoint_sha256": "0" * 64, "ensemble_sha256": ["1" * 64], "pixdim": [0.94, 0.94]}
        data = write(tmp_path / "seg.dcm", blob(), files, algorithm_parameters=said, remarks=["Not FLAIR."] * 200)
        assert errors_of(tmp_path / "seg.dcm") == []
        (segment,) = data.SegmentSequence
        assert segment.SegmentDescription.startswith("Not FLAIR. Not FLAIR.")
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmParameters.startswith(f"checkpoint_sha256={'0' * 64},ensemble_sha256=[")


class TestSource:
    def test_valid_descriptions_are_taken_over(self, tmp_path: Path) -> None:
        kept = {"StudyDescription": "Brain", "PatientAge": "045Y", "PatientSex": "F"}
        trial = {"ClinicalTrialSponsorName": "S", "ClinicalTrialProtocolID": "P", "ClinicalTrialSubjectID": "7"}
        code = item(CodeValue="MRBRAIN", CodingSchemeDesignator="99LOCAL", CodeMeaning="MR of the brain")
        files = write_series(tmp_path / "series", ramp(*SHAPE), ProcedureCodeSequence=[code], **kept, **trial)
        data = write(tmp_path / "seg.dcm", blob(), files)
        assert {keyword: data[keyword].value for keyword in kept | trial} == kept | trial
        assert data.ProcedureCodeSequence[0].CodeValue == "MRBRAIN"
        assert errors_of(tmp_path / "seg.dcm") == []

    def test_identifiers_are_taken_over_even_if_too_long(self, tmp_path: Path) -> None:
        files = invalid_series(tmp_path / "series", AccessionNumber="A" * 20)
        assert write(tmp_path / "seg.dcm", blob(), files).AccessionNumber == "A" * 20


class TestMultiframe:
    def test_orientation_and_spacing_may_be_said_frame_by_frame(self, tmp_path: Path, multiframe: list[Path]) -> None:
        data = pydicom.dcmread(multiframe[0])
        shared = data.SharedFunctionalGroupsSequence[0]
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            for groups in data.PerFrameFunctionalGroupsSequence:
                setattr(groups, keyword, shared[keyword].value)
            delattr(shared, keyword)
        data.save_as(multiframe[0])
        write(tmp_path / "seg.dcm", blob(), multiframe)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", multiframe), blob())

    def test_single_images_may_say_that_they_have_one_frame(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), NumberOfFrames="1")
        write(tmp_path / "seg.dcm", blob(), files)
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), blob())


class TestRefuses:
    @pytest.mark.parametrize("keyword", ["PixelSpacing", "FrameOfReferenceUID"])
    def test_seg_refuses_a_series_without_what_a_seg_needs(self, tmp_path: Path, keyword: str) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), **{keyword: None})
        with pytest.raises(ValueError, match=rf"series.*\.dcm: has no {keyword}"):
            write(tmp_path / "seg.dcm", blob(), files)

    def test_seg_refuses_a_multiframe_file_without_spacing(self, tmp_path: Path, multiframe: list[Path]) -> None:
        data = pydicom.dcmread(multiframe[0])
        del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        data.save_as(multiframe[0])
        with pytest.raises(ValueError, match=r"multi\.dcm: has no PixelSpacing"):
            write(tmp_path / "seg.dcm", blob(), multiframe)

    @pytest.mark.parametrize("shape", [(6, 8, 4), (8, 6, 3), (8, 6)])
    def test_seg_refuses_a_mask_of_another_shape(
        self, tmp_path: Path, files: list[Path], shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ValueError, match=r"shape \(8, 6, 4\)"):
            write(tmp_path / "seg.dcm", np.zeros(shape, bool), files)

    @pytest.mark.parametrize("value", [2, 255, 0.5, -1, np.nan])
    def test_seg_refuses_a_mask_that_is_not_binary(self, tmp_path: Path, files: list[Path], value: float) -> None:
        with pytest.raises(ValueError, match="expected only 0 and 1"):
            write(tmp_path / "seg.dcm", np.full(SHAPE, value), files)

    def test_seg_refuses_a_header_that_highdicom_cannot_copy(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), SpecificCharacterSet="NONE SUCH")
        with pytest.raises(ValueError, match=r"series.*\.dcm: no DICOM segmentation can refer to this file"):
            write(tmp_path / "seg.dcm", blob(), files)

    def test_seg_refuses_to_read_a_seg_of_other_images(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "seg.dcm", blob(), files)
        other = write_series(tmp_path / "other", ramp(*SHAPE))
        with pytest.raises(ValueError, match=r"seg\.dcm: refers to \d images"):
            read_segmentation(tmp_path / "seg.dcm", other)

    def test_seg_refuses_to_read_what_is_no_seg(self, tmp_path: Path, series: list[Path]) -> None:
        (tmp_path / "text.dcm").write_text("no DICOM")
        for path in (series[0], tmp_path / "text.dcm"):
            with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as a DICOM segmentation"):
                read_segmentation(path, series)

    def test_seg_refuses_to_go_on_without_highdicom(
        self, tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "highdicom", None)
        with pytest.raises(ModuleNotFoundError, match=r'pip install "mri_seg\[dicom\]"'):
            write(tmp_path / "seg.dcm", blob(), series)


class TestWritesWhole:
    def test_seg_makes_the_folder_and_leaves_one_file(self, tmp_path: Path, files: list[Path]) -> None:
        write(tmp_path / "new" / "case" / "seg.dcm", blob(), files)
        assert [path.name for path in (tmp_path / "new" / "case").iterdir()] == ["seg.dcm"]

    def test_seg_is_written_whole_or_not_at_all(
        self, tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: Any, name: Path, **options: Any) -> None:
            Path(name).write_bytes(b"half")
            raise KeyboardInterrupt

        folder = tmp_path / "out"
        before = write(folder / "seg.dcm", blob(), files).SOPInstanceUID
        monkeypatch.setattr(pydicom.Dataset, "save_as", interrupted)
        for name in ("seg.dcm", "other.dcm"):
            with pytest.raises(KeyboardInterrupt):
                write(folder / name, ~blob(), files)
        assert [path.name for path in folder.iterdir()] == ["seg.dcm"]
        assert pydicom.dcmread(folder / "seg.dcm").SOPInstanceUID == before


def _same(position: np.ndarray, positions: Sequence[np.ndarray]) -> list[bool]:
    return [bool(np.allclose(position, other, atol=1e-3)) for other in positions]


def _reference(groups: Any) -> Any:
    """The one source that a frame names."""
    (derivation,) = groups.DerivationImageSequence
    (reference,) = derivation.SourceImageSequence
    return reference
