"""Results of an inference: their names, their values, and what becomes of cases that fail."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from dicom_series import write_series
from monai.data import MetaTensor
from PIL import Image

from mri_seg import outputs
from mri_seg.outputs import CaseDataset, CaseWriter, Result
from mri_seg.pictures import PREDICTION, REFERENCE
from mri_seg.reader import LoadVolumed

# Rows to posterior, columns to the patient's left, slices upwards, as SliceReader has it.
AS_SHOWN = torch.tensor([[0.0, -1, 0, 30], [-1, 0, 0, 40], [0, 0, 3, -7], [0, 0, 0, 1]], dtype=torch.float64)
SHAPE = (64, 60, 3)


def item(files: list[str], case: str = "a", *, label: bool = False, **meta: object) -> dict[str, MetaTensor]:
    """What the evaluator gives for a case: slice n (from 0) has 10 + n rows of tumour."""
    meta = {"case": case, "files": "\n".join(files), **meta}
    flair = torch.zeros(1, *SHAPE)
    flair[:, 8:56, 12:52] = 100
    flair += torch.rand(1, *SHAPE)
    pred = torch.zeros(1, *SHAPE)
    for n in range(SHAPE[-1]):
        pred[0, 20 : 30 + n, 14:24, n] = 1
    volumes = {"flair": flair, "pred": pred, "probability": pred * 0.9}
    if label:
        volumes["label"] = pred.roll(3, dims=1)
    return {key: MetaTensor(volume, affine=AS_SHOWN, meta=dict(meta)) for key, volume in volumes.items()}


def source(files: list[str], kind: str, case: str = "a", **more: object) -> dict:
    return {"case": case, "image": files, "source": kind, **more}


def write(writer: CaseWriter, case: dict, found: dict | None = None) -> None:
    """Hand a case to the writer as the evaluator does."""
    if writer.to_do([case]):
        found = found or item(case["image"], case["case"], label="label" in case)
        writer._write_cases(SimpleNamespace(state=SimpleNamespace(batch=[{}], output=[found])))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def table(file: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader(file.open(encoding="utf-8"))}


NIFTI = source(["in/head.nii.gz"], "volume")
TIFF = source(["in/x_9.tif", "in/x_10.TIFF", "in/x_2.tif"], "tiff")


class TestOutputs:
    def test_of_nifti_by_default(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        expected = ["a.html", "a_mask.nii.gz", "a_measurements.json", "a_sheet.png"]
        assert names(tmp_path) == [*(f"a/{name}" for name in expected), "measurements.csv", "summary.csv"]

    def test_of_tiff_by_default_hold_a_mask_a_slice(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), TIFF)
        assert {"a/x_10_mask.TIFF", "a/x_2_mask.tif", "a/x_9_mask.tif"} < set(names(tmp_path))

    def test_with_a_reference_hold_a_panel(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), {**NIFTI, "label": ["in/head_mask.nii.gz"]})
        sheet, panel = (np.asarray(Image.open(tmp_path / "a" / f"a_{kind}.png")) for kind in ("sheet", "panel"))
        assert (sheet[18:] == np.array(REFERENCE)).all(-1).any()
        assert panel.size

    @pytest.mark.parametrize("chosen", ["mask, measurements", ("mask", "measurements"), ["measurements", "mask"]])
    def test_may_be_chosen(self, tmp_path: Path, chosen: object) -> None:
        write(CaseWriter(tmp_path, outputs=chosen), TIFF)
        assert names(tmp_path / "a") == ["a_mask.nii.gz", "a_measurements.json"]

    def test_may_be_added_to_the_default(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="auto,probability"), NIFTI)
        assert len(names(tmp_path / "a")) == 5

    @pytest.mark.parametrize("chosen", ["masks", "mask,nothing", ""])
    def test_that_are_not_known_are_refused_with_those_that_are(self, tmp_path: Path, chosen: str) -> None:
        with pytest.raises(ValueError, match="expected some of auto, mask, probability"):
            CaseWriter(tmp_path, outputs=chosen)

    def test_for_dicom_name_the_extra_where_it_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r'highdicom.*pip install -e "\.\[dicom\]"'):
            CaseWriter(tmp_path, outputs="seg")
        assert "seg" not in CaseWriter(tmp_path).missing(source(["a.dcm"], "dicom"))

    def test_that_do_not_fit_a_case_are_left_out(self, tmp_path: Path) -> None:
        pytest.importorskip("highdicom", reason="needs the extra `dicom`")
        writer = CaseWriter(tmp_path, outputs="mask,seg,sr,slices,panel")
        assert writer.missing(NIFTI) == ["mask"]
        assert writer.missing(TIFF) == ["mask", "slices"]
        assert writer.missing(source(["a.dcm"], "dicom")) == ["mask", "seg", "sr"]


class TestMasks:
    def test_are_in_the_geometry_of_the_input(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        write(CaseWriter(tmp_path), NIFTI, found)
        mask = nib.load(tmp_path / "a" / "a_mask.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, AS_SHOWN, atol=1e-5)
        np.testing.assert_array_equal(mask.get_fdata(), found["pred"][0])
        assert (mask.header["sform_code"], mask.header["qform_code"]) == (1, 1)

    def test_probability_is_as_found(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        write(CaseWriter(tmp_path, outputs="probability"), NIFTI, found)
        probability = nib.load(tmp_path / "a" / "a_probability.nii.gz")
        assert probability.get_data_dtype() == np.float32
        np.testing.assert_array_equal(probability.get_fdata(dtype=np.float32), found["probability"][0])

    def test_of_slices_hold_0_and_255_in_the_order_of_the_files(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="slices"), TIFF)
        for n, name in enumerate(("x_9_mask.tif", "x_10_mask.TIFF", "x_2_mask.tif")):
            mask = tifffile.imread(tmp_path / "a" / name)
            assert (mask.shape, mask.dtype) == (SHAPE[:2], np.uint8)
            assert set(np.unique(mask)) == {0, 255}
            assert (mask > 0).sum() == 10 * (10 + n)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
    def test_of_pictures_are_png(self, tmp_path: Path, suffix: str) -> None:
        files = [f"x_{n}.{suffix}" for n in range(3)]
        write(CaseWriter(tmp_path, outputs="slices"), source(files, "picture"))
        masks = [np.asarray(Image.open(tmp_path / "a" / f"x_{n}_mask.png")) for n in range(3)]
        assert [(mask == 255).sum() for mask in masks] == [100, 110, 120]

    def test_of_a_file_with_pages_have_pages(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="slices"), source(["scan.tif"], "tiff"))
        with tifffile.TiffFile(tmp_path / "a" / "scan_mask.tif") as tiff:
            assert [(page.asarray() > 0).sum() for page in tiff.pages] == [100, 110, 120]

    def test_of_slices_read_back_as_labels(self, tmp_path: Path) -> None:
        found = item(TIFF["image"])
        write(CaseWriter(tmp_path, outputs="slices"), TIFF, found)
        files = [tmp_path / "a" / name for name in ("x_9_mask.tif", "x_10_mask.TIFF", "x_2_mask.tif")]
        label = LoadVolumed("label")({"label": files})["label"]
        assert torch.equal((label > 0).float().as_tensor(), found["pred"].as_tensor())


class TestMeasurements:
    def test_are_those_of_the_mask_in_mm(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        measured = json.loads((tmp_path / "a" / "a_measurements.json").read_text())
        assert measured["case"] == "a"
        assert measured["volume_ml"] == pytest.approx(330 * 3 / 1000)
        assert measured["lesion_count"] == 1
        assert measured["mean_foreground_probability"] == pytest.approx(0.9)
        assert table(tmp_path / "measurements.csv")["a"]["volume_ml"] == str(measured["volume_ml"])

    def test_are_in_voxels_where_the_spacing_is_not_known(self, tmp_path: Path) -> None:
        found = item(TIFF["image"], spacing_known=False, slice_spacing_known=False)
        write(CaseWriter(tmp_path), TIFF, found)
        measured = json.loads((tmp_path / "a" / "a_measurements.json").read_text())
        assert measured["volume_voxels"] == 330
        assert "volume_ml" not in measured
        assert table(tmp_path / "summary.csv")["a"]["volume_voxels"] == "330"


class TestPictures:
    @pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 0)])
    def test_look_the_same_whatever_the_orientation_of_the_file(self, axes: tuple[int, int]) -> None:
        found = item(NIFTI["image"], label=True)
        turned = {}
        for key, volume in found.items():
            # Swap two axes and turn the first about, in the volume and in its affine.
            order = [0, 1, 2]
            order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
            array = volume.as_tensor().permute(0, *(n + 1 for n in order)).flip(1)
            affine = AS_SHOWN.numpy()[:, [*order, 3]].copy()
            affine[:3, 3] += affine[:3, 0] * (array.shape[1] - 1)
            affine[:3, 0] *= -1
            meta = {name: value for name, value in volume.meta.items() if name != "affine"}
            turned[key] = MetaTensor(array, affine=torch.as_tensor(affine), meta=meta)
        expected, got = Result(found), Result(turned)
        np.testing.assert_array_equal(got.panel, expected.panel)
        np.testing.assert_array_equal(np.stack(got.slices), np.stack(expected.slices))

    @pytest.mark.parametrize(("rows", "columns", "shape"), [(2.0, 1.0, (128, 60)), (1.0, 1.5, (64, 90))])
    def test_have_square_pixels(self, rows: float, columns: float, shape: tuple[int, int]) -> None:
        found = item(NIFTI["image"], label=True)
        for volume in found.values():
            volume.affine = AS_SHOWN @ torch.diag(torch.tensor([rows, columns, 1, 1], dtype=torch.float64))
        result = Result(found)
        assert result._shown("pred").shape[:2] == shape
        assert set(np.unique(result._shown("pred"))) == {0, 1}

    def test_without_a_reference_show_none(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        sheet = np.asarray(Image.open(tmp_path / "a" / "a_sheet.png"))
        assert not (sheet == np.array(REFERENCE)).all(-1).any()
        assert (sheet == np.array(PREDICTION)).all(-1).any()


class TestPage:
    def test_shows_every_slice_and_lesion_and_needs_nothing_else(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        page = (tmp_path / "a" / "a.html").read_text(encoding="utf-8")
        assert page.count('<img src="data:image/png;base64,') == SHAPE[-1]
        assert "1.0 mL" in page
        assert "http" not in page
        assert "<script" not in page

    def test_says_when_nothing_was_found(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        found["pred"] *= 0
        write(CaseWriter(tmp_path), NIFTI, found)
        assert "No tumour found" in (tmp_path / "a" / "a.html").read_text(encoding="utf-8")

    def test_shows_the_name_of_a_case_as_text(self, tmp_path: Path) -> None:
        case = source(["a&b.nii"], "volume", "a&b<i>")
        write(CaseWriter(tmp_path), case)
        page = (tmp_path / "a&b<i>" / "a&b<i>.html").read_text(encoding="utf-8")
        assert "<h1>a&amp;b&lt;i&gt;</h1>" in page


class TestDICOM:
    AFFINE = np.array([[0, -0.9, 0, 30], [-0.9, 0, 0, 40], [0, 0, 3, -7], [0, 0, 0, 1]])

    def series(self, folder: Path, **header: object) -> tuple[dict, dict]:
        pytest.importorskip("highdicom", reason="needs the extra `dicom`")
        files = write_series(folder, np.ones(SHAPE, np.uint16), self.AFFINE, **header)
        return source([str(file) for file in files], "dicom"), item([str(file) for file in files])

    def test_gets_a_segmentation_by_default_and_a_report_on_request(self, tmp_path: Path) -> None:
        case, found = self.series(tmp_path / "in")
        write(CaseWriter(tmp_path / "out", outputs="auto,sr"), case, found)
        from mri_seg.dicom.segmentation import read_segmentation

        mask = read_segmentation(tmp_path / "out" / "a" / "a_seg.dcm", case["image"])
        np.testing.assert_array_equal(mask, found["pred"][0] > 0)
        assert (tmp_path / "out" / "a" / "a_sr.dcm").is_file()

    def test_without_pixel_spacing_gets_the_rest_by_default(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        case, found = self.series(tmp_path / "in", PixelSpacing=None)
        writer = CaseWriter(tmp_path / "out")
        write(writer, case, found)
        writer.finish()
        assert "a.html" in names(tmp_path / "out" / "a")
        assert "a_seg.dcm" not in names(tmp_path / "out" / "a")
        assert "PixelSpacing" in caplog.text

    def test_without_pixel_spacing_fails_where_a_segmentation_is_asked_for(self, tmp_path: Path) -> None:
        case, found = self.series(tmp_path / "in", PixelSpacing=None)
        writer = CaseWriter(tmp_path / "out", outputs="mask,seg")
        write(writer, case, found)
        with pytest.raises(SystemExit):
            writer.finish()
        assert names(tmp_path / "out" / "a") == ["a_mask.nii.gz"]


class TestExistingResults:
    def test_are_kept(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        writer = CaseWriter(tmp_path)
        assert writer.to_do([NIFTI]) == []
        writer.finish()
        assert (tmp_path / "a" / "a_mask.nii.gz").read_bytes() == b"mine"
        row = table(tmp_path / "summary.csv")["a"]
        assert (row["status"], row["lesion_count"]) == ("kept", "1")

    def test_are_added_to(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        (tmp_path / "a" / "a.html").unlink()
        write(CaseWriter(tmp_path, outputs="auto,probability"), NIFTI)
        assert (tmp_path / "a" / "a_mask.nii.gz").read_bytes() == b"mine"
        assert {"a_probability.nii.gz", "a.html"} < set(names(tmp_path / "a"))

    @pytest.mark.parametrize("overwrite", [True, "true"])
    def test_are_written_anew_when_asked(self, tmp_path: Path, overwrite: object) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        write(CaseWriter(tmp_path, overwrite=overwrite), NIFTI)
        assert nib.load(tmp_path / "a" / "a_mask.nii.gz").shape == SHAPE

    def test_of_other_cases_stay_in_the_tables(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        write(CaseWriter(tmp_path), source(["b.nii"], "volume", "b"))
        for name in ("summary.csv", "measurements.csv"):
            assert list(table(tmp_path / name)) == ["a", "b"]

    def test_leave_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(nib, "save", broken)
        write(CaseWriter(tmp_path, outputs="mask"), NIFTI)
        assert names(tmp_path) == ["summary.csv"]


class TestFailures:
    def test_leave_the_others_and_are_in_the_summary(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def read(case: dict) -> dict:
            if case["case"] == "bad":
                raise ValueError("in/bad.nii: cannot be read.\nCopy it again.")
            return {"read": case["case"]}

        writer = CaseWriter(tmp_path)
        cases = [
            NIFTI,
            source(["in/bad.nii"], "volume", "bad"),
            source(["in/x.dcm"], "dicom", "study", error="no FLAIR"),
            source(["in/c.nii"], "volume", "c"),
        ]
        assert list(CaseDataset(cases, read, writer)) == [{"read": "a"}, {"read": "c"}]
        with pytest.raises(SystemExit) as status:
            writer.finish()
        assert status.value.code == 1
        assert "failed: 4." in capsys.readouterr().out
        summary = table(tmp_path / "summary.csv")
        assert summary["bad"]["error"] == "in/bad.nii: cannot be read. Copy it again."
        assert summary["study"]["error"] == "no FLAIR"
        assert summary["a"]["error"].startswith("not reached")  # read, and never written
        assert {row["status"] for row in summary.values()} == {"failed"}

    def test_in_writing_leave_the_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **kwargs: object) -> None:
            raise ValueError("cannot be measured")

        monkeypatch.setattr(outputs, "measure", broken)
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        monkeypatch.undo()
        write(writer, source(["b.nii"], "volume", "b"))
        summary = table(tmp_path / "summary.csv")
        assert summary["a"]["status"] == "failed"
        assert "measurements: cannot be measured" in summary["a"]["error"]
        assert "a/a_mask.nii.gz" in names(tmp_path)
        assert summary["b"]["status"] == "done"

    def test_are_tried_again(self, tmp_path: Path) -> None:
        CaseWriter(tmp_path).failed("a", "was away")
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.finish()
        assert table(tmp_path / "summary.csv")["a"]["error"] == ""

    def test_do_not_matter_where_there_are_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.finish()
        assert "Cases segmented: 1, kept as they were: 0, failed: 0." in capsys.readouterr().out
