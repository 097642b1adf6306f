"""DICOM reports: the figures and codes they hold, what they refer to, and that they conform."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

highdicom = pytest.importorskip("highdicom", reason="needs the extra `dicom`")

import pydicom  # noqa: E402
from dicom_series import AXIAL, ramp, write_multiframe, write_series  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402

from mri_seg.dicom.geometry import order_frames  # noqa: E402
from mri_seg.dicom.seg import write_segmentation  # noqa: E402
from mri_seg.dicom.sr import write_report  # noqa: E402
from mri_seg.measurements.lesions import measure  # noqa: E402

SHAPE = (12, 10, 6)
UPSIDE_DOWN = AXIAL @ np.diag([1.0, -1.0, -1.0, 1.0])  # columns to the patient's right, slices downwards
CORONAL = np.array([[0.0, -0.9, 0.0, 90.0], [0.0, 0.0, 5.0, -40.0], [-0.8, 0.0, 0.0, 100.0], [0.0, 0.0, 0.0, 1.0]])


def lesions() -> np.ndarray:
    """A mask with a larger lesion in the slices 2 to 4 of the array and a smaller one in slice 6."""
    mask = np.zeros(SHAPE, bool)
    mask[2:8, 3:6, 1:4] = True
    mask[9:11, 7:9, 5] = True
    return mask


def measured(mask: np.ndarray, files: Sequence[Path]) -> dict[str, Any]:
    grid = order_frames(files)
    return measure(
        mask,
        grid.affine,
        case="a",
        spacing_known=grid.spacing_known,
        slice_spacing_known=grid.slice_spacing_known,
    )


def report_of(folder: Path, mask: np.ndarray, files: Sequence[Path], **options: Any) -> Any:
    """Write segmentation and report into a folder, and read the report."""
    write_segmentation(folder / "seg.dcm", mask, files, algorithm_version="1.2.3")
    options = {"algorithm_version": "1.2.3"} | options
    write_report(folder / "sr.dcm", measured(mask, files), folder / "seg.dcm", files, **options)
    return highdicom.sr.srread(folder / "sr.dcm")


def groups_of(report: Any) -> list[Any]:
    """Measurement groups: of the whole tumour, and of each lesion."""
    return report.content.get_volumetric_roi_measurement_groups()


def figures_of(group: Any) -> dict[str, tuple[float, str]]:
    """Values and units by the code of their names."""
    return {item.name.value: (item.value, item.unit.value) for item in group.get_measurements()}


def images_of(group: Any) -> list[tuple[str, list[int] | None]]:
    """The source images that a group names, with frames."""
    return [
        (image.referenced_sop_instance_uid, image.referenced_frame_numbers)
        for image in group.referenced_segment.source_images_for_segmentation
    ]


def contents_of(group: Any, name: Any) -> list[Any]:
    """What a group holds under a name."""
    return [content for content in group[0].ContentSequence if content.name == name]


def errors_of(path: Path) -> list[str]:
    """Lines of dciodvfy that say Error."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (dicom3tools)")
    run = subprocess.run([program, str(path)], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    assert "Comprehensive3DSR" in lines  # it knew the kind of file
    return [line for line in lines if line.startswith("Error")]


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series", ramp(*SHAPE), shuffled=True)


@pytest.fixture
def multiframe(tmp_path: Path) -> list[Path]:
    return [write_multiframe(tmp_path / "multi.dcm", ramp(*SHAPE), frame_order=[2, 0, 5, 3, 1, 4])]


@pytest.fixture(params=["series", "multiframe"])
def files(request: pytest.FixtureRequest) -> list[Path]:
    return request.getfixturevalue(request.param)


class TestFigures:
    def test_whole_tumour_has_number_of_lesions_and_total_volume(self, tmp_path: Path, files: list[Path]) -> None:
        whole = groups_of(report_of(tmp_path, lesions(), files))[0]
        figures = figures_of(whole)
        assert figures.keys() == {"246206008", "118565006"}
        assert figures["246206008"] == (2, "1")
        assert figures["118565006"] == (pytest.approx(58 * 0.8 * 0.9 * 5 / 1000), "cm3")

    def test_each_lesion_has_volume_area_and_two_diameters(self, tmp_path: Path, files: list[Path]) -> None:
        groups = groups_of(report_of(tmp_path, lesions(), files))[1:]
        expected = measured(lesions(), files)["lesions"]
        assert len(groups) == len(expected) == 2
        for group, lesion in zip(groups, expected, strict=True):
            assert figures_of(group) == {
                codes.SCT.Volume.value: (pytest.approx(lesion["volume_ml"]), "cm3"),
                codes.SCT.Area.value: (pytest.approx(lesion["largest_axial_area_mm2"]), "mm2"),
                codes.SCT.LongAxis.value: (pytest.approx(lesion["longest_diameter_mm"]), "mm"),
                codes.SCT.ShortAxis.value: (pytest.approx(lesion["perpendicular_diameter_mm"]), "mm"),
            }

    def test_sr_says_which_area_and_which_volume(self, tmp_path: Path, series: list[Path]) -> None:
        whole, lesion, _ = groups_of(report_of(tmp_path, lesions(), series))
        (area,) = lesion.get_measurements(codes.SCT.Area)
        (total,) = whole.get_measurements(codes.SCT.Volume)
        assert area.derivation == codes.SCT.Maximum
        assert total.derivation == codes.SCT.Total
        assert total.method == codes.DCM.SumOfSegmentedVoxelMethodForVolume

    def test_sr_without_a_lesion_has_number_and_volume_0(self, tmp_path: Path, files: list[Path]) -> None:
        (whole,) = groups_of(report_of(tmp_path, np.zeros(SHAPE, bool), files))
        assert figures_of(whole) == {"246206008": (0, "1"), "118565006": (0, "cm3")}
        assert whole.finding_type is None

    def test_sr_of_one_slice_has_figures(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE[:2], 1))
        groups = groups_of(report_of(tmp_path, lesions()[..., 5:], files))
        assert len(groups) == 2


class TestContent:
    def test_sr_is_a_measurement_report_of_a_brain_mri(self, tmp_path: Path, files: list[Path]) -> None:
        report = report_of(tmp_path, lesions(), files)
        assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        item = next(item for item in report.ContentSequence if item.name == codes.DCM.ProcedureReported)
        assert item.value == codes.LN.BrainMRI
        assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
        assert report.PreliminaryFlag == "PRELIMINARY"

    def test_findings_are_neoplasms_of_the_brain(self, tmp_path: Path, files: list[Path]) -> None:
        for group in groups_of(report_of(tmp_path, lesions(), files)):
            assert group.finding_type == codes.SCT.Neoplasm
            (site,) = group.finding_sites
            assert site.value == codes.SCT.Brain

    def test_lesions_can_be_tracked(self, tmp_path: Path, files: list[Path]) -> None:
        groups = groups_of(report_of(tmp_path, lesions(), files))
        assert [group.tracking_identifier for group in groups] == ["Tumour", "Lesion 1", "Lesion 2"]
        assert len({group.tracking_uid for group in groups}) == 3
        (segment,) = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
        assert groups[0].tracking_uid == segment.TrackingUID

    def test_observer_is_the_program(self, tmp_path: Path, files: list[Path]) -> None:
        report = report_of(tmp_path, lesions(), files)
        (observer,) = report.content.get_observer_contexts(codes.DCM.Device)
        device = observer.observer_identifying_attributes
        assert (device.name, device.manufacturer_name, device.model_name) == ("mri_seg", "mri_seg", "mri_seg 1.2.3")
        again = report_of(tmp_path / "again", lesions(), files)
        (other,) = again.content.get_observer_contexts(codes.DCM.Device)
        assert other.observer_identifying_attributes.uid == device.uid

    def test_patient_and_study_are_the_source_s(self, tmp_path: Path) -> None:
        files = write_series(
            tmp_path / "series", ramp(*SHAPE), SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Ägidius"
        )
        data, source = report_of(tmp_path, lesions(), files), pydicom.dcmread(files[0])
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyID"):
            assert data[keyword].value == source[keyword].value, keyword

    def test_series_is_a_new_one_behind_the_segmentation(self, tmp_path: Path, files: list[Path]) -> None:
        report = report_of(tmp_path, lesions(), files, series_description="Figures")
        assert report.SeriesNumber == pydicom.dcmread(files[0]).SeriesNumber + 2000
        assert report.SeriesDescription == "Figures"
        segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
        assert report.SeriesInstanceUID != segmentation.SeriesInstanceUID


class TestSide:
    @pytest.mark.parametrize(
        ("offset", "side", "code"),
        [(-50.0, "left", "7771000"), (50.0, "right", "24028007"), (-4.0, "both", "51440002")],
    )
    def test_site_of_a_lesion_has_the_code_of_its_side(
        self, tmp_path: Path, files: list[Path], offset: float, side: str, code: str
    ) -> None:
        mask = lesions()
        mask[9:11] = False
        write_segmentation(tmp_path / "seg.dcm", mask, files, algorithm_version="1.2.3")
        grid = order_frames(files)
        middle = grid.affine @ [*np.argwhere(mask).mean(0), 1]
        plane = (-1.0, 0.0, 0.0, float(middle[0]) - (0 if side == "both" else offset))
        found = measure(mask, grid.affine, midline=plane)
        assert found["lesions"][0]["side"] == side
        write_report(tmp_path / "sr.dcm", found, tmp_path / "seg.dcm", files, algorithm_version="1.2.3")
        _, lesion = groups_of(highdicom.sr.srread(tmp_path / "sr.dcm"))
        assert lesion.finding_sites[0].laterality.value == code
        (comment,) = contents_of(lesion, codes.DCM.Comment)
        assert "from the midline" in comment.value

    def test_site_has_no_side_if_the_midline_is_not_known(self, tmp_path: Path, files: list[Path]) -> None:
        lesion = groups_of(report_of(tmp_path, lesions(), files))[1]
        assert lesion.finding_sites[0].laterality is None
        assert contents_of(lesion, codes.DCM.Comment) == []


class TestReferences:
    def test_all_groups_refer_to_the_segment(self, tmp_path: Path, files: list[Path]) -> None:
        groups = groups_of(report_of(tmp_path, lesions(), files))
        segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
        for group in groups:
            assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
            assert group.referenced_segment.referenced_segment_numbers == [1]

    @pytest.mark.parametrize("affine", [AXIAL, UPSIDE_DOWN], ids=["upwards", "downwards"])
    def test_lesions_refer_to_the_images_of_their_slices(self, tmp_path: Path, affine: np.ndarray) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), affine)
        _, larger, smaller = groups_of(report_of(tmp_path, lesions(), files[::-1]))
        uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
        assert {uid for uid, _ in images_of(larger)} == set(uids[1:4])
        assert {uid for uid, _ in images_of(smaller)} == {uids[5]}

    @pytest.mark.parametrize("affine", [AXIAL, UPSIDE_DOWN], ids=["upwards", "downwards"])
    def test_lesions_refer_to_the_frames_of_their_slices(self, tmp_path: Path, affine: np.ndarray) -> None:
        order = [2, 0, 5, 3, 1, 4]
        files = [write_multiframe(tmp_path / "multi.dcm", ramp(*SHAPE), affine, frame_order=order)]
        _, larger, smaller = groups_of(report_of(tmp_path, lesions(), files))
        uid = pydicom.dcmread(files[0]).SOPInstanceUID
        assert images_of(larger) == [(uid, [1, 4, 5])]  # the frames that show the slices 2, 3 and 1, from 0
        assert images_of(smaller) == [(uid, [3])]

    def test_lesions_of_a_series_that_is_not_axial_refer_to_the_series(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(*SHAPE), CORONAL)
        uid = pydicom.dcmread(files[0]).SeriesInstanceUID
        for group in groups_of(report_of(tmp_path, lesions(), files)):
            assert group.referenced_segment.source_series_for_segmentation.value == uid

    def test_evidence_names_segmentation_and_images(self, tmp_path: Path, files: list[Path]) -> None:
        report = report_of(tmp_path, lesions(), files)
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        named = {item.ReferencedSOPInstanceUID for series in study.ReferencedSeriesSequence for item in _items(series)}
        assert named == {pydicom.dcmread(file).SOPInstanceUID for file in (*files, tmp_path / "seg.dcm")}


class TestConforms:
    @pytest.mark.parametrize("mask", [lesions(), np.zeros(SHAPE, bool)], ids=["tumour", "no tumour"])
    def test_sr_has_no_error_by_dciodvfy(self, tmp_path: Path, files: list[Path], mask: np.ndarray) -> None:
        report_of(tmp_path, mask, files)
        assert errors_of(tmp_path / "sr.dcm") == []

    def test_sr_conforms_where_anonymising_has_removed_attributes(self, tmp_path: Path) -> None:
        removed = dict.fromkeys(["PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"])
        files = write_series(tmp_path / "series", ramp(*SHAPE), StudyTime=None, StudyID=None, **removed)
        report_of(tmp_path, lesions(), files)
        assert errors_of(tmp_path / "sr.dcm") == []


class TestSaysHowItWasMade:
    def test_each_group_names_weights_and_options(self, tmp_path: Path, files: list[Path]) -> None:
        said = {"checkpoint_sha256": "0" * 64, "pixdim": [0.94, 0.94]}
        for group in groups_of(report_of(tmp_path, lesions(), files, algorithm_parameters=said)):
            texts = [content.value for content in contents_of(group, codes.DCM.AlgorithmParameters)]
            assert texts == [f"checkpoint_sha256={'0' * 64}", "pixdim=[0.94 0.94]"]
        assert errors_of(tmp_path / "sr.dcm") == []

    def test_remarks_are_comments_on_the_whole_tumour(self, tmp_path: Path, files: list[Path]) -> None:
        remarks = ["By its timing this is not FLAIR.", "Look at it."]
        whole, *others = groups_of(report_of(tmp_path, lesions(), files, remarks=remarks))
        assert [text.value for text in contents_of(whole, codes.DCM.Comment)] == remarks
        assert not any(contents_of(group, codes.DCM.Comment) for group in others)
        assert errors_of(tmp_path / "sr.dcm") == []

    def test_nothing_invalid_is_taken_from_the_source(self, tmp_path: Path) -> None:
        empty = {keyword: [] for keyword in ("ProcedureCodeSequence", "RequestingServiceCodeSequence")}
        files = write_series(tmp_path / "series", ramp(*SHAPE), PatientSex="UNKNOWN", **empty)
        report_of(tmp_path, lesions(), files)
        assert errors_of(tmp_path / "sr.dcm") == []


class TestRefuses:
    def test_sr_refuses_figures_in_voxels(self, tmp_path: Path, series: list[Path]) -> None:
        write_segmentation(tmp_path / "seg.dcm", lesions(), series, algorithm_version="1")
        for unknown in ("spacing_known", "slice_spacing_known"):
            figures = measure(lesions(), order_frames(series).affine, **{unknown: False})
            with pytest.raises(ValueError, match=r"\.dcm: .* spacing is unknown"):
                write_report(tmp_path / "sr.dcm", figures, tmp_path / "seg.dcm", series, algorithm_version="1")

    def test_sr_refuses_a_segmentation_of_another_series(self, tmp_path: Path, series: list[Path]) -> None:
        other = write_series(tmp_path / "other", ramp(*SHAPE))
        write_segmentation(tmp_path / "seg.dcm", lesions(), other, algorithm_version="1")
        with pytest.raises(ValueError, match=r"seg\.dcm: segments the series"):
            write_report(
                tmp_path / "sr.dcm", measured(lesions(), series), tmp_path / "seg.dcm", series, algorithm_version="1"
            )

    def test_sr_refuses_a_segmentation_of_another_mask(self, tmp_path: Path, files: list[Path]) -> None:
        write_segmentation(tmp_path / "seg.dcm", lesions()[..., ::-1], files, algorithm_version="1")
        with pytest.raises(ValueError, match=r"seg\.dcm: holds no tumour in some of the slices"):
            write_report(
                tmp_path / "sr.dcm", measured(lesions(), files), tmp_path / "seg.dcm", files, algorithm_version="1"
            )

    def test_sr_refuses_what_is_no_segmentation(self, tmp_path: Path, series: list[Path]) -> None:
        with pytest.raises(ValueError, match=r"\.dcm: is not a DICOM segmentation"):
            write_report(tmp_path / "sr.dcm", measured(lesions(), series), series[0], series, algorithm_version="1")

    def test_sr_refuses_to_go_on_without_highdicom(
        self, tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures = measured(lesions(), series)
        monkeypatch.setitem(sys.modules, "highdicom", None)
        with pytest.raises(ModuleNotFoundError, match=r'pip install "mri_seg\[dicom\]"'):
            write_report(tmp_path / "sr.dcm", figures, tmp_path / "seg.dcm", series, algorithm_version="1")


class TestWritesWhole:
    def test_sr_is_written_whole_or_not_at_all(
        self, tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: Any, name: Path, **options: Any) -> None:
            Path(name).write_bytes(b"half")
            raise KeyboardInterrupt

        segmentation = tmp_path / "seg.dcm"
        write_segmentation(segmentation, lesions(), files, algorithm_version="1")
        monkeypatch.setattr(pydicom.Dataset, "save_as", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(
                tmp_path / "out" / "sr.dcm", measured(lesions(), files), segmentation, files, algorithm_version="1"
            )
        assert list((tmp_path / "out").iterdir()) == []


def _items(series: Any) -> Any:
    return series.ReferencedSOPSequence
