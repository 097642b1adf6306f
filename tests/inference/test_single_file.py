"""A mask under the name that the user gives: what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from written_cases import NIFTI, SHAPE, TIFF, item, names, source, write

from mri_seg.inference import outputs
from mri_seg.inference.single_file import named_file
from mri_seg.inference.writer import CaseWriter

pytestmark = pytest.mark.usefixtures("inputs")


class TestNamedFile:
    @pytest.mark.parametrize("name", ["mask.nii.gz", "a/b.nii", "MASK.NII.GZ"])
    def test_names_of_nifti_files_are_files(self, name: str) -> None:
        assert named_file(name) == Path(name)

    @pytest.mark.parametrize("name", ["runs/out", "out.d", "v1.0", "2024"])
    def test_other_names_are_folders(self, name: str) -> None:
        assert named_file(name) is None

    def test_folder_that_is_named_as_a_file_stays_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "study.nii").mkdir()
        assert named_file(tmp_path / "study.nii") is None

    @pytest.mark.parametrize("name", ["mask.nrrd", "mask.mha", "mask.dcm", "mask.png", "mask.TIF", "mask.img"])
    def test_images_of_other_formats_are_refused_with_the_name_to_write(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"output_dir: {name} names an image.*Write mask\.nii\.gz"):
            CaseWriter(name)


class TestSingleFile:
    @pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
    def test_mask_alone_is_written(self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        writer = CaseWriter(tmp_path / "new" / name)
        write(writer, NIFTI)
        writer.finish()
        assert names(tmp_path) == [f"new/{name}"]
        assert nib.load(tmp_path / "new" / name).shape == SHAPE
        assert capsys.readouterr().out == f"The mask is in {tmp_path / 'new' / name}\n"

    def test_mask_is_the_same_as_in_a_folder(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        write(CaseWriter(tmp_path / "mask.nii"), NIFTI, found)
        write(CaseWriter(tmp_path / "out"), NIFTI, found)
        alone, beside = (nib.load(tmp_path / name) for name in ("mask.nii", "out/a/a_mask.nii.gz"))
        assert np.array_equal(alone.dataobj, beside.dataobj)
        assert np.array_equal(alone.affine, beside.affine)

    def test_further_outputs_lie_beside_it_under_its_name(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path / "x.nii.gz", outputs="measurements,slices"), TIFF)
        assert names(tmp_path) == ["x.nii.gz", "x_10_mask.TIFF", "x_2_mask.tif", "x_9_mask.tif", "x_measurements.json"]

    def test_existing_file_is_refused_unless_it_is_to_be_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "mask.nii.gz").write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"mask\.nii\.gz: is there already. Use --overwrite true"):
            CaseWriter(tmp_path / "mask.nii.gz").remaining([NIFTI])
        write(CaseWriter(tmp_path / "mask.nii.gz", overwrite=True), NIFTI)
        assert nib.load(tmp_path / "mask.nii.gz").shape == SHAPE

    def test_existing_further_output_is_refused_too(self, tmp_path: Path) -> None:
        (tmp_path / "mask_measurements.json").write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"mask_measurements\.json: is there already"):
            CaseWriter(tmp_path / "mask.nii.gz", outputs="measurements").remaining([NIFTI])

    def test_input_is_never_overwritten(self, inputs: Path) -> None:
        with pytest.raises(ValueError, match=r"head\.nii\.gz: is an input of this run"):
            CaseWriter("in/head.nii.gz", overwrite=True).remaining([NIFTI])
        assert (inputs / "in" / "head.nii.gz").read_bytes() == b"in/head.nii.gz"

    def test_several_cases_are_refused_and_named(self, tmp_path: Path) -> None:
        cases = [NIFTI, source(["b.nii"], "volume", "b")]
        with pytest.raises(ValueError, match=r"names one file, but 2 cases were found \(a, b\)"):
            CaseWriter(tmp_path / "mask.nii.gz").remaining(cases)

    def test_nothing_is_written_if_an_output_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(folder: Path, result: outputs.Result) -> None:
            raise OSError("No space left on device")

        sheet = outputs.OUTPUTS["sheet"]
        monkeypatch.setitem(outputs.OUTPUTS, "sheet", sheet._replace(write=broken))
        writer = CaseWriter(tmp_path / "mask.nii.gz", outputs="sheet")
        write(writer, NIFTI)
        assert names(tmp_path) == []
        with pytest.raises(SystemExit) as ended:
            writer.finish()
        assert ended.value.code == 1


class TestFailFast:
    def test_cases_after_a_failed_one_are_not_reached(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bad = {**NIFTI, "case": "0", "error": "no FLAIR"}
        writer = CaseWriter(tmp_path, fail_fast="true")
        assert writer.remaining([bad, NIFTI]) == []
        assert CaseWriter(tmp_path / "other").remaining([bad, NIFTI]) == [NIFTI]
        with pytest.raises(SystemExit):
            writer.finish()
        assert "failed: 2." in capsys.readouterr().out

    def test_next_run_begins_anew(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path, fail_fast=True)
        writer.remaining([{**NIFTI, "error": "no FLAIR"}])
        writer.begin()
        assert writer.remaining([NIFTI]) == [NIFTI]
