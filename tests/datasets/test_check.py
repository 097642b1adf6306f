"""Defects of data sets of any form, found and told."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from data_set_forms import AFFINE, FORMS, SHAPE, Case, make_cases, nifti

from mri_seg.datasets.__main__ import main
from mri_seg.datasets.check import check

ROW = ["48", "x", "40", "1", "P01", "-"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four NIfTI images with labels beside them."""
    FORMS["pairs with _mask"](tmp_path / "data", make_cases())
    return tmp_path / "data"


@pytest.fixture
def first() -> Case:
    return make_cases()[0]


def defects_of(data: Path, **options: object) -> list[str]:
    return [str(defect) for defect in check(data, **options).defects]  # type: ignore[arg-type]


class TestDefects:
    def test_missing_label_is_a_defect(self, data: Path) -> None:
        (data / "P01_mask.nii.gz").unlink()
        (defect,) = defects_of(data)
        assert defect.startswith(f"{data / 'P01.nii.gz'}: has no label")

    def test_damaged_label_is_a_defect(self, data: Path) -> None:
        (data / "P01_mask.nii.gz").write_bytes(b"no gzip")
        (defect,) = defects_of(data)
        assert defect.startswith(f"{data / 'P01_mask.nii.gz'}: cannot be read")

    def test_label_of_another_place_is_a_defect(self, data: Path, first: Case) -> None:
        elsewhere = AFFINE.copy()
        elsewhere[:3, 3] += 500
        nifti(data / "P01_mask.nii.gz", first.label, elsewhere)
        (defect,) = defects_of(data)
        assert "does not fit its image" in defect

    def test_label_that_lies_partly_outside_the_image_is_a_defect(self, data: Path, first: Case) -> None:
        nifti(data / "P01.nii.gz", first.image[:, :12], AFFINE)
        (defect,) = defects_of(data)
        assert "of the labelled voxels lie outside the image" in defect

    def test_empty_label_is_a_defect(self, data: Path, first: Case) -> None:
        nifti(data / "P01_mask.nii.gz", 0 * first.label)
        assert defects_of(data) == [f"{data / 'P01_mask.nii.gz'}: this label is empty"]

    def test_label_without_any_of_the_chosen_values_is_a_defect(self, data: Path, first: Case) -> None:
        nifti(data / "P01_mask.nii.gz", 3 * first.label)
        assert defects_of(data) == []
        (defect,) = defects_of(data, label_values=[1, 2])
        assert defect == f"{data / 'P01_mask.nii.gz'}: this label holds 3, none of which counts as tumour"

    def test_labeled_image_of_another_sequence_is_a_defect(self, data: Path, first: Case) -> None:
        for name in ("P01", "P02", "P03", "P04"):
            for end in ("", "_mask"):
                contrast = "_T1" if name == "P04" else "_FLAIR"
                (data / f"{name}{end}.nii.gz").rename(data / f"{name}{contrast}{end}.nii.gz")
        (defect,) = defects_of(data)
        assert "P04_T1" in defect
        assert "no image that may be FLAIR by its name" in defect

    def test_data_set_of_another_sequence_alone_is_a_defect(self, tmp_path: Path, first: Case) -> None:
        nifti(tmp_path / "P01_T2w.nii.gz", first.image)
        nifti(tmp_path / "P01_mask.nii.gz", first.label)
        (defect,) = defects_of(tmp_path)
        assert "its name says T2, not FLAIR" in defect

    def test_images_of_the_same_voxels_are_a_defect_whatever_their_format(self, data: Path, first: Case) -> None:
        canonical = nibabel.as_closest_canonical(nibabel.load(data / "P01.nii.gz"))
        nibabel.save(nibabel.Nifti1Image(canonical.get_fdata(dtype=np.float32), canonical.affine), data / "Q.nii")
        nifti(data / "Q_mask.nii.gz", first.label)
        assert defects_of(data) == [f"{data / 'Q.nii'}: has the same voxels as the image of case P01"]

    def test_patient_in_two_sections_is_a_defect(self, data: Path, tmp_path: Path) -> None:
        (data / "cases.csv").write_text("case,group\nP01,A\nP02,A\n")
        split = tmp_path / "split.json"
        split.write_text(json.dumps({"training": ["P01", "P03"], "test": ["P02", "P04"]}))
        (defect,) = defects_of(data, split=split)
        assert "patient A is in two sections, 'training' (P01) and 'test' (P02)" in defect

    def test_label_without_an_image_of_nnunet_is_a_defect(self, tmp_path: Path) -> None:
        FORMS["nnU-Net"](tmp_path, make_cases())
        (tmp_path / "imagesTr" / "P02_0001.nii.gz").unlink()
        (defect,) = defects_of(tmp_path)
        assert "P02" in defect

    def test_4d_image_is_a_defect_unless_its_volume_is_given(self, data: Path, first: Case) -> None:
        nifti(data / "P01.nii.gz", np.stack([255 - first.image, first.image], axis=-1))
        (defect,) = defects_of(data)
        assert "holds 2 volumes, expected one" in defect
        assert defects_of(data, volume=1) == []

    def test_spacing_of_slices_is_taken_as_given(self, tmp_path: Path) -> None:
        FORMS["images and masks of PNG slices"](tmp_path, make_cases())
        assert {case.spacing for case in check(tmp_path).cases} == {(None, None, None)}
        assert {case.spacing for case in check(tmp_path, spacing=(0.9, 0.8, 5)).cases} == {(0.9, 0.8, 5.0)}

    @pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (1, np.float32), (1, np.float64), (4, np.int16)])
    def test_masks_of_any_value_and_type_are_no_defect(self, data: Path, first: Case, value: int, dtype: type) -> None:
        nifti(data / "P01_mask.nii.gz", value * first.label.astype(dtype))
        report = check(data)
        assert report.defects == []
        assert report.cases[0].tumor_slices == 4

    def test_two_segmentations_of_a_series_are_a_defect(self, tmp_path: Path) -> None:
        FORMS["DICOM SEG"](tmp_path, make_cases()[:2])
        (tmp_path / "P01" / "again.dcm").write_bytes((tmp_path / "P01" / "seg.dcm").read_bytes())
        (defect,) = defects_of(tmp_path)
        assert "expected one DICOM SEG, found 2" in defect


class TestCommand:
    def test_check_command_prints_a_row_a_case_and_the_defects(
        self, data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["check", str(data)]) == 0
        form, head, *rows, total, end = capsys.readouterr().out.splitlines()
        assert form == "pairs of images and labels"
        assert head.split()[:3] == ["case", "slices", "tumour"]
        assert rows[0].split() == ["P01", "4", "4", "0.94", "x", "0.94", "x", "5", *ROW]
        assert total.split()[:4] == ["total:", "4", "16", "16"]
        assert end == "no defects"

        nifti(data / "P05.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16))
        assert main(["check", str(data)]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == "1 defect"

    def test_check_command_keeps_the_table_of_tcga_lgg(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        FORMS["TCGA-LGG"](tmp_path, make_cases())
        assert main(["check", str(tmp_path)]) == 0
        assert capsys.readouterr().out.split()[:3] == ["institution", "patients", "slices"]

    def test_check_command_heeds_its_options_in_tcga_lgg(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        FORMS["TCGA-LGG"](tmp_path, make_cases())
        assert main(["check", str(tmp_path), "--label_values", "3"]) == 1
        assert capsys.readouterr().out.count("none of which counts as tumour") == 4

    def test_check_command_takes_options_of_training(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", str(data), "--label_values", "2,4", "--split", "random:2:1", "--seed", "3"]) == 1
        assert capsys.readouterr().out.count("none of which counts as tumour") == 4

    @pytest.mark.parametrize("name", ["nowhere", "empty"])
    def test_check_command_ends_in_one_line_without_data(
        self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "empty").mkdir()
        assert main(["check", str(tmp_path / name)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"error: {tmp_path / name}: ")
        assert output.err.count("\n") == 1
