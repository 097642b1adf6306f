"""What following writes for each patient, from masks that an inference has written."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from heads_over_time import head_scan, pose

import mri_seg
from mri_seg.dicom.seg import read_segmentation
from mri_seg.follow_up.writer import FollowUp
from mri_seg.inference.provenance import result_settings
from mri_seg.io.cases import find_cases
from mri_seg.io.earlier_outputs import earlier_outputs
from mri_seg.io.load import LoadVolumed
from mri_seg.utils.case_flags import add_flag

TUMORS = {"2020": [((20, 10, 5), 15.0)], "2022": [((20, 10, 5), 18.0)]}
POSES = {"2020": pose(), "2022": pose((3, -2, 6), (4, -5, 3))}


class Segmented(SimpleNamespace):
    """What following needs of a writer of cases: the cases, how they went, and where their masks are."""

    file = None
    outputs = ("mask",)
    stopped = False

    def finish(self) -> None:
        """All went well."""


def segmented(folder: Path, output_dir: Path, masks: dict[str, np.ndarray]) -> Segmented:
    cases = {case["case"]: case for case in find_cases(folder)}
    for name, case in cases.items():
        own = output_dir / name
        own.mkdir(parents=True)
        volume = LoadVolumed("image")(case)["image"]
        (mask,) = [mask for key, mask in masks.items() if key in name or key in case["image"][0]]
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), volume.affine.numpy()), own / f"{name}_mask.nii.gz")
        (own / f"{name}_provenance.json").write_text('{"flags": []}')
    rows = {name: {"status": "done"} for name in cases}
    return Segmented(output_dir=output_dir, sources=cases, rows=rows, settings=result_settings(None))


def follow(folder: Path, writer: Any, **options: Any) -> tuple[FollowUp, Path]:
    following = FollowUp(writer, folder, reader=LoadVolumed("image"), **options)
    following.run()
    return following, writer.output_dir / "follow_up"


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Path, Segmented]]:
    folder = tmp_path_factory.mktemp("nifti")
    masks = {}
    for year, tumors in TUMORS.items():
        scan = head_scan(year, tumors, to_scanner=POSES[year])
        nibabel.save(nibabel.Nifti1Image(scan.image, scan.affine), folder / f"P1_{year}-01-01_FLAIR.nii.gz")
        masks[year] = scan.mask
    return lambda: (folder, segmented(folder, tmp_path_factory.mktemp("out"), masks))


@pytest.fixture(scope="module")
def written(nifti: Callable[[], tuple[Path, Segmented]]) -> Path:
    """What was written for the patient of NIfTI files."""
    following, folder = follow(*nifti())
    assert (following.followed, following.failed) == (["P1"], {})
    return folder / "P1"


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of DICOM studies, and what was written for their patient."""
    folder, masks = tmp_path_factory.mktemp("dicom"), {}
    for year, tumors in TUMORS.items():
        scan = head_scan(year, tumors, to_scanner=POSES[year])
        dates = {name: f"{year}0101" for name in ("StudyDate", "AcquisitionDate", "SeriesDate")}
        write_series(folder / year, scan.image.clip(0).astype(np.uint16), scan.affine, **dates)
        masks[year] = scan.mask
    following, written = follow(folder, segmented(folder, tmp_path_factory.mktemp("out"), masks))
    assert following.failed == {}
    return folder, written / "P001"


class TestNIfTI:
    def test_table_has_a_row_for_each_scan(self, written: Path) -> None:
        with (written / "P1_timeline.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert (rows[0]["date"], rows[0]["rano_lgg_t2_flair"]) == ("2020-01-01", "baseline")
        assert float(rows[1]["volume_ml"]) > float(rows[0]["volume_ml"])
        assert rows[1]["date"] == "2022-01-01"

    def test_table_of_patients_has_the_velocity_of_each(self, written: Path) -> None:
        with (written.parent / "patients.csv").open() as stream:
            (row,) = csv.DictReader(stream)
        assert (row["patient"], row["status"], row["scans"], row["last_date"]) == ("P1", "followed", "2", "2022-01-01")
        assert float(row["velocity_mm_per_year_low"]) < float(row["velocity_mm_per_year"])

    def test_json_holds_intervals_and_says_that_no_real_pairs_were_at_hand(self, written: Path) -> None:
        found = json.loads((written / "P1_timeline.json").read_text())
        assert "No pairs of real scans" in found["note"]
        (velocity,) = found["velocities"]
        assert velocity["mean_diameter"]["low"] < velocity["mean_diameter"]["value"] < velocity["mean_diameter"]["high"]

    def test_change_mask_lies_on_the_latest_scan(self, written: Path) -> None:
        labels = nibabel.load(written / "P1_change.nii.gz")
        latest = head_scan("2022", TUMORS["2022"], to_scanner=POSES["2022"])
        np.testing.assert_allclose(labels.affine, latest.affine, atol=1e-4)
        assert (np.isin(np.asarray(labels.dataobj), (1, 2)) == latest.mask).all()

    def test_transform_overlay_and_page_are_written(self, written: Path) -> None:
        names = {path.name for path in written.iterdir()}
        assert {"P1_2022-01-01_FLAIR_to_first.tfm", "P1_2022-01-01_FLAIR_overlay.png", "P1_timeline.html"} <= names

    def test_written_files_are_not_taken_for_images_later(self, written: Path) -> None:
        names = {path.name for path in written.iterdir()}
        assert earlier_outputs(written, names) == names
        unfinished = names - {"P1_timeline.json"}  # which is written last
        assert earlier_outputs(written, unfinished) == unfinished

    def test_results_say_by_what_weights_and_options_they_were_made(self, written: Path) -> None:
        found = json.loads((written / "P1_timeline.json").read_text())
        assert found["settings"]["mri_seg_version"] == mri_seg.__version__

    def test_patients_of_an_earlier_run_are_told(
        self, nifti: Callable[[], tuple[Path, Segmented]], caplog: pytest.LogCaptureFixture
    ) -> None:
        folder, writer = nifti()
        (writer.output_dir / "follow_up" / "Q").mkdir(parents=True)
        follow(folder, writer)
        assert "holds results of an earlier run for Q" in caplog.text

    def test_scan_that_was_not_segmented_is_left_out_with_a_flag(
        self, nifti: Callable[[], tuple[Path, Segmented]]
    ) -> None:
        folder, writer = nifti()
        writer.rows["P1_2020-01-01_FLAIR"]["status"] = "failed"
        _, written = follow(folder, writer)
        found = json.loads((written / "P1" / "P1_timeline.json").read_text())
        assert {"scan_missing", "single_scan"} <= {flag["name"] for flag in found["flags"]}

    def test_flags_of_the_dates_reach_the_outputs(
        self, nifti: Callable[[], tuple[Path, Segmented]], tmp_path: Path
    ) -> None:
        folder, writer = nifti()
        case = writer.sources["P1_2022-01-01_FLAIR"]
        add_flag(case, "dates_contradict", "its dates contradict each other.")  # as the search for cases raises flags
        _, written = follow(folder, writer)
        found = json.loads((written / "P1" / "P1_timeline.json").read_text())
        assert [flag["name"] for flag in found["scans"][1]["flags"]] == ["dates_contradict"]
        assert "its dates contradict each other." in (written / "P1" / "P1_timeline.html").read_text()

    def test_latest_scan_after_an_event_has_no_change_and_that_of_an_earlier_run_is_removed(
        self, nifti: Callable[[], tuple[Path, Segmented]], tmp_path: Path
    ) -> None:
        folder, writer = nifti()
        _, written = follow(folder, writer)
        assert (written / "P1" / "P1_change.nii.gz").is_file()
        (tmp_path / "times.csv").write_text("patient,date,event\nP1,2021-01-01,surgery\n")
        following, _ = follow(folder, writer, timeline=tmp_path / "times.csv")
        assert following.failed == {}
        assert not (written / "P1" / "P1_change.nii.gz").exists()
        page = (written / "P1" / "P1_timeline.html").read_text()
        assert "No change is measured: the latest scan is a new baseline (after: surgery)." in page

    def test_patient_who_fails_keeps_no_outputs_of_an_earlier_run(
        self, nifti: Callable[[], tuple[Path, Segmented]]
    ) -> None:
        folder, writer = nifti()
        _, written = follow(folder, writer)
        (written / "P1" / "my_notes.txt").write_text("mine")
        for row in writer.rows.values():
            row["status"] = "failed"
        following, _ = follow(folder, writer)
        assert list(following.failed) == ["P1"]
        assert [file.name for file in (written / "P1").iterdir()] == ["my_notes.txt"]

    def test_wrong_timeline_is_found_before_scans_are_segmented(
        self, nifti: Callable[[], tuple[Path, Segmented]], tmp_path: Path
    ) -> None:
        folder, writer = nifti()
        (tmp_path / "times.csv").write_text("patient,date,event\nP2,2021-01-01,surgery\n")
        following = FollowUp(writer, folder, reader=LoadVolumed("image"), timeline=tmp_path / "times.csv")
        with pytest.raises(ValueError, match="there is no patient P2; found: P1"):
            following.group()

    def test_patient_that_cannot_be_followed_ends_with_status_1(
        self, nifti: Callable[[], tuple[Path, Segmented]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, writer = nifti()
        for row in writer.rows.values():
            row["status"] = "failed"
        following, written = follow(folder, writer)
        with pytest.raises(SystemExit) as ended:
            following.finish()
        assert ended.value.code == 1
        assert "failed: 1" in capsys.readouterr().out
        assert [path.name for path in written.iterdir()] == ["patients.csv"]
        with (written / "patients.csv").open() as stream:
            (row,) = csv.DictReader(stream)
        assert (row["patient"], row["status"]) == ("P1", "failed")
        assert "none of the patient's scans was segmented" in row["error"]

    def test_masks_are_needed(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="outputs: is page, expected mask"):
            FollowUp(Segmented(outputs=("page",)), tmp_path, reader=LoadVolumed("image"))


class TestDICOM:
    def test_segmentation_has_the_three_segments_on_the_latest_study(self, dicom: tuple[Path, Path]) -> None:
        folder, written = dicom
        found = pydicom.dcmread(written / "P001_change_seg.dcm")
        names = [segment.SegmentLabel for segment in found.SegmentSequence]
        assert names == ["Stable tumour", "Gained tumour", "Lost tumour"]
        latest = sorted((folder / "2022").iterdir())
        assert found.FrameOfReferenceUID == pydicom.dcmread(latest[0]).FrameOfReferenceUID
        labels = np.asarray(nibabel.load(written / "P001_change.nii.gz").dataobj)
        assert (read_segmentation(written / "P001_change_seg.dcm", latest) == (labels > 0)).all()

    def test_report_refers_to_both_studies(self, dicom: tuple[Path, Path]) -> None:
        folder, written = dicom
        report = pydicom.dcmread(written / "P001_change_sr.dcm")
        studies = {
            study.StudyInstanceUID
            for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
            for study in report.get(name, [])
        }
        assert studies == {pydicom.dcmread(next((folder / y).iterdir())).StudyInstanceUID for y in ("2020", "2022")}
        assert "mm/a" in str(report)

    def test_report_holds_the_figures_of_the_table(self, dicom: tuple[Path, Path]) -> None:
        report = highdicom.sr.srread(dicom[1] / "P001_change_sr.dcm")
        groups = report.content.get_image_measurement_groups()
        with (dicom[1] / "P001_timeline.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(groups) == len(rows)
        assert len({group.tracking_uid for group in groups}) == 1
        for group, row in zip(groups, rows, strict=True):
            found = {measured.name.meaning: measured.value for measured in group.get_measurements()}
            assert found["Volume"] == pytest.approx(float(row["volume_ml"]), abs=0.001)
            assert found["Diameter"] == pytest.approx(float(row["mean_diameter_mm"]), abs=0.001)
        assert found["Velocity of diametric expansion"] == pytest.approx(float(row["velocity_mm_per_year"]), abs=0.001)

    def test_report_refers_to_each_segment_with_its_volume(self, dicom: tuple[Path, Path]) -> None:
        report = highdicom.sr.srread(dicom[1] / "P001_change_sr.dcm")
        segmentation = highdicom.seg.segread(dicom[1] / "P001_change_seg.dcm")
        labels = nibabel.load(dicom[1] / "P001_change.nii.gz")
        counts = np.bincount(np.asarray(labels.dataobj).ravel(), minlength=4)
        groups = report.content.get_volumetric_roi_measurement_groups()
        assert len(groups) == 3
        for group in groups:
            image = group.referenced_segment[0]
            (volume,) = group.get_measurements()
            (number,) = image.referenced_segment_numbers
            assert image.referenced_sop_instance_uid == segmentation.SOPInstanceUID
            milliliters = counts[number] * abs(np.linalg.det(labels.affine[:3, :3])) / 1000
            assert volume.value == pytest.approx(milliliters, abs=0.001)

    @pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
    @pytest.mark.parametrize("name", ["P001_change_seg.dcm", "P001_change_sr.dcm"])
    def test_dciodvfy_finds_no_error(self, dicom: tuple[Path, Path], name: str) -> None:
        checked = subprocess.run(["dciodvfy", str(dicom[1] / name)], capture_output=True, text=True)
        assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []
