"""BIDS derivatives: what they hold, and that they are kept, replaced and refused like other results."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from written_cases import AS_SHOWN, NIFTI, SHAPE, item, names, source, table, write

import mri_seg
from mri_seg.inference.bids import dilated
from mri_seg.inference.writer import CaseWriter
from mri_seg.io.cases import find_cases
from mri_seg.utils.files import read_json, write_json

pytestmark = pytest.mark.usefixtures("inputs")

STEM = "sub-01/ses-1/anat/sub-01_ses-1_space-orig_label-tumor"
ROI = "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_roi"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A BIDS data set with one image."""
    folder = tmp_path / "data"
    image = folder / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz"
    image.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AS_SHOWN.numpy()), image)
    write_json(folder / "dataset_description.json", {"Name": "Ours", "BIDSVersion": "1.10.0"})
    return folder


def case_of(data: Path) -> dict[str, Any]:
    (case,) = find_cases(data)
    return case


def written(data: Path, folder: Path, outputs: str = "bids", **options: Any) -> dict[str, dict[str, str]]:
    """Segment the case, and return the summary."""
    writer = CaseWriter(folder, outputs=outputs, **options)
    write(writer, case_of(data))
    writer.begin()
    return table(folder / "summary.csv")


class TestDerivatives:
    def test_derivatives_are_a_mask_and_a_lesion_mask_with_their_json(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out")
        assert [name for name in names(tmp_path / "out") if name.startswith("sub-01/")] == [
            f"{ROI}.json",
            f"{ROI}.nii.gz",
            f"{STEM}_mask.json",
            f"{STEM}_mask.nii.gz",
        ]
        expected = item(["a"])["pred"][0].numpy()
        for name in (f"{STEM}_mask", ROI):
            image = nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
            np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
            np.testing.assert_allclose(image.affine, AS_SHOWN, atol=1e-5)

    def test_derivatives_hold_the_probability_if_it_is_requested(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out", "bids,probability,mask")
        probability = nibabel.load(tmp_path / "out" / f"{STEM}_probseg.nii.gz").get_fdata()
        assert probability.max() == pytest.approx(0.9)
        assert {"sub-01_ses-1_FLAIR/sub-01_ses-1_FLAIR_mask.nii.gz", f"{STEM}_probseg.json"} < set(
            names(tmp_path / "out")
        )

    def test_derivatives_say_what_made_them_of_what(self, data: Path, tmp_path: Path) -> None:
        Path("model.pt").write_bytes(b"weights")
        out = data / "derivatives" / "mri_seg"
        written(data, out, checkpoint="model.pt", options={"threshold": 0.4})
        found = read_json(out / f"{STEM}_mask.json")
        assert found["Sources"] == ["bids:raw:sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"]
        assert (found["Type"], found["SpatialReference"], found["Threshold"]) == ("Lesion", "orig", 0.4)
        assert len(found["checkpoint_sha256"]) == 64
        description = read_json(out / "dataset_description.json")
        assert description["DatasetType"] == "derivative"
        assert description["DatasetLinks"] == {"raw": "../.."}
        (maker,) = description["GeneratedBy"]
        assert (maker["Name"], maker["Version"]) == ("mri_seg", mri_seg.__version__)

    def test_derivatives_pass_the_bids_validator(self, data: Path, tmp_path: Path) -> None:
        program = shutil.which("bids-validator-deno")
        if program is None:
            pytest.skip("needs the BIDS validator (pip install bids-validator-deno)")
        out = tmp_path / "out"
        written(data, out, "auto,bids,probability")
        run = subprocess.run([program, "--json", str(out)], capture_output=True, text=True)
        issues = json.loads(run.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []

    def test_subjects_of_several_data_sets_are_linked_to_each(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out")
        other = data.rename(tmp_path / "other")
        for file in list(other.rglob("*_FLAIR.nii.gz")):
            folder = Path(str(file.parent).replace("sub-01", "sub-02"))
            folder.mkdir(parents=True)
            file.rename(folder / file.name.replace("sub-01", "sub-02"))
        written(other, tmp_path / "out")
        links = read_json(tmp_path / "out" / "dataset_description.json")["DatasetLinks"]
        assert links == {"raw": "../data", "raw2": "../other"}


class TestLesionMask:
    def test_lesion_mask_is_dilated_by_mm_in_every_direction(self) -> None:
        mask = np.zeros((21, 21, 9), np.uint8)
        mask[10, 10, 4] = 1
        found = dilated(mask, np.diag([0.5, 1.0, 3.0, 1.0]), 3.0)
        assert [int(np.ptp(axis)) + 1 for axis in np.nonzero(found)] == [13, 7, 3]

    def test_lesion_mask_is_dilated_by_the_option_and_the_tumor_mask_is_not(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out", lesion_dilation=1.0)
        mask, lesion = (
            np.asarray(nibabel.load(tmp_path / "out" / f"{name}.nii.gz").dataobj) for name in (f"{STEM}_mask", ROI)
        )
        assert mask.sum() == 330
        assert lesion.sum() > mask.sum()
        assert read_json(tmp_path / "out" / f"{ROI}.json")["DilationInMm"] == 1.0

    def test_lesion_mask_without_a_lesion_stays_empty(self) -> None:
        assert not dilated(np.zeros((4, 4, 2)), np.eye(4), 5.0).any()


class TestRefused:
    def test_input_without_a_bids_name_fails_with_the_name_expected(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path, outputs="bids,mask")
        assert writer.remaining([NIFTI]) == []
        writer.begin()
        error = table(tmp_path / "summary.csv")["a"]["error"]
        assert "found in/head.nii.gz" in error
        assert "sub-<label>[_ses-<label>]" in error

    def test_slices_and_dicom_fail_with_how_many_files_were_found(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path, outputs="bids")
        assert writer.remaining([source(["a_1.tif", "a_2.tif"], "tiff")]) == []
        writer.begin()
        assert "found 2 files, such as a_1.tif" in table(tmp_path / "summary.csv")["a"]["error"]

    def test_raw_data_set_is_not_written_into(self, data: Path) -> None:
        before = read_json(data / "dataset_description.json")
        with pytest.raises(ValueError, match=r"describes another data set \(Ours, raw\).*derivatives/mri_seg"):
            CaseWriter(data, outputs="bids").remaining([case_of(data)])
        assert read_json(data / "dataset_description.json") == before

    def test_same_subject_of_two_data_sets_fails(self, tmp_path: Path) -> None:
        cases = [source([f"{site}/sub-1_FLAIR.nii.gz"], "volume", f"{site}_sub-1_FLAIR") for site in "ab"]
        writer = CaseWriter(tmp_path, outputs="bids")
        assert [case["case"] for case in writer.remaining(cases)] == ["a_sub-1_FLAIR"]
        writer.begin()
        assert "would be that of a_sub-1_FLAIR as well" in table(tmp_path / "summary.csv")["b_sub-1_FLAIR"]["error"]


class TestAgain:
    def test_derivatives_are_kept(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out")
        mask = tmp_path / "out" / f"{STEM}_mask.nii.gz"
        mask.write_bytes(b"mine")
        assert written(data, tmp_path / "out")["sub-01_ses-1_FLAIR"]["status"] == "kept"
        assert mask.read_bytes() == b"mine"

    def test_missing_derivatives_are_made(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out", "mask")
        assert written(data, tmp_path / "out", "mask,bids")["sub-01_ses-1_FLAIR"]["status"] == "done"
        (tmp_path / "out" / f"{ROI}.nii.gz").unlink()
        written(data, tmp_path / "out", "mask,bids")
        assert (tmp_path / "out" / f"{ROI}.nii.gz").is_file()

    @pytest.mark.parametrize(
        ("options", "difference"),
        [({"options": {"threshold": 0.4}}, "threshold was null, is 0.4"), ({"lesion_dilation": 2}, "was 0.0, is 2.0")],
    )
    def test_derivatives_of_other_settings_are_refused(
        self, data: Path, tmp_path: Path, options: dict, difference: str
    ) -> None:
        written(data, tmp_path / "out")
        with pytest.raises(ValueError, match=difference):
            written(data, tmp_path / "out", **options)

    def test_derivatives_of_other_settings_are_replaced_with_overwrite(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out", "bids,probability")
        written(data, tmp_path / "out", lesion_dilation=1.0, overwrite=True)
        assert read_json(tmp_path / "out" / f"{ROI}.json")["DilationInMm"] == 1.0
        assert not (tmp_path / "out" / f"{STEM}_probseg.nii.gz").exists()  # nothing says that it is still the same

    def test_dilation_does_not_matter_to_results_without_derivatives(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out", "mask")
        written(data, tmp_path / "out", "mask,bids", lesion_dilation=1.0)
        written(data, tmp_path / "out", "mask")
        with pytest.raises(ValueError, match=r"lesion_dilation was 1\.0, is 0\.0"):
            written(data, tmp_path / "out", "bids")

    def test_derivatives_whose_record_is_gone_are_refused(self, data: Path, tmp_path: Path) -> None:
        written(data, tmp_path / "out")
        shutil.rmtree(tmp_path / "out" / "sub-01_ses-1_FLAIR")
        with pytest.raises(ValueError, match="no provenance record"):
            written(data, tmp_path / "out")

    def test_own_derivatives_in_the_data_set_are_no_cases_of_the_next_run(self, data: Path, tmp_path: Path) -> None:
        written(data, data / "derivatives" / "mri_seg", "auto,bids,probability")
        case = case_of(data)  # without the folder of the results being left out of the search
        assert Path(case["image"][0]).name == "sub-01_ses-1_FLAIR.nii.gz"
        assert "label" not in case
        with pytest.raises(ValueError, match="holds no case to segment"):
            find_cases(data / "derivatives")
