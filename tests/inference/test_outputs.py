"""Outputs of a case: their names and their values."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from dicom_series import write_series
from monai.data import MetaTensor, decollate_batch
from PIL import Image
from written_cases import AS_SHOWN, NIFTI, SHAPE, TIFF, item, names, source, table, write

import mri_seg
from mri_seg.inference.outputs import Result
from mri_seg.inference.writer import CaseWriter
from mri_seg.io.collate import case_batch
from mri_seg.io.load import LoadVolumed
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.utils.files import sha256

pytestmark = pytest.mark.usefixtures("inputs")


def as_read(file: str) -> dict[str, MetaTensor]:
    """What the evaluator gives for a file in which every other slice is tumour."""
    flair = LoadVolumed("image")({"image": [file], "case": "a"})["image"]
    flair = decollate_batch(case_batch({"image": flair}))[0]["image"]
    pred = flair.clone()
    pred[:] = torch.arange(flair.shape[-1]) % 2
    return {"flair": flair, "pred": pred, "probability": pred * 0.9}


class TestMasks:
    def test_masks_are_in_the_geometry_of_the_input(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        write(CaseWriter(tmp_path), NIFTI, found)
        mask = nib.load(tmp_path / "a" / "a_mask.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, AS_SHOWN, atol=1e-5)
        np.testing.assert_array_equal(mask.get_fdata(), found["pred"][0])
        assert (mask.header["sform_code"], mask.header["qform_code"]) == (1, 1)

    @pytest.mark.parametrize("codes", [(1, 0), (0, 2), (3, 4), (0, 0)])
    def test_masks_keep_how_a_nifti_file_says_its_place(self, tmp_path: Path, codes: tuple[int, int]) -> None:
        turned = np.array([[0.0, -2, 0, 5], [2, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
        image = nib.Nifti1Image(np.random.default_rng(0).random((6, 5, 4)), np.diag([2.0, 2, 3, 1]))
        image.set_qform(turned, codes[0])
        image.set_sform(np.diag([2.0, 2, 3, 1]), codes[1])
        nib.save(image, "in/head.nii.gz")
        given, found = nib.load("in/head.nii.gz"), as_read("in/head.nii.gz")
        write(CaseWriter(tmp_path, outputs="mask,probability"), NIFTI, found)
        for name in ("mask", "probability"):
            written = nib.load(tmp_path / "a" / f"a_{name}.nii.gz")
            assert tuple(int(written.header[f"{form}_code"]) for form in ("qform", "sform")) == codes
            np.testing.assert_allclose(written.affine, given.affine, atol=1e-5)
            if codes[0]:
                np.testing.assert_allclose(written.get_qform(), turned, atol=1e-5)

    def test_masks_of_a_file_that_does_not_say_its_place_are_flagged(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.random.default_rng(0).random((6, 5, 4)), None)
        image.header.set_zooms((2, 2, 3))
        nib.save(image, "in/head.nii.gz")
        write(CaseWriter(tmp_path, outputs="mask"), NIFTI, as_read("in/head.nii.gz"))
        assert table(tmp_path / "summary.csv")["a"]["flags"] == "orientation_unknown"

    def test_probability_is_as_found(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        write(CaseWriter(tmp_path, outputs="probability"), NIFTI, found)
        probability = nib.load(tmp_path / "a" / "a_probability.nii.gz")
        assert probability.get_data_dtype() == np.float32
        np.testing.assert_array_equal(probability.get_fdata(dtype=np.float32), found["probability"][0])

    def test_masks_of_slices_hold_0_and_255_in_the_order_of_the_files(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="slices"), TIFF)
        for n, name in enumerate(("x_9_mask.tif", "x_10_mask.TIFF", "x_2_mask.tif")):
            mask = tifffile.imread(tmp_path / "a" / name)
            assert (mask.shape, mask.dtype) == (SHAPE[:2], np.uint8)
            assert set(np.unique(mask)) == {0, 255}
            assert (mask > 0).sum() == 10 * (10 + n)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
    def test_masks_of_pictures_are_png(self, tmp_path: Path, suffix: str) -> None:
        files = [f"x_{n}.{suffix}" for n in range(3)]
        write(CaseWriter(tmp_path, outputs="slices"), source(files, "picture"))
        masks = [np.asarray(Image.open(tmp_path / "a" / f"x_{n}_mask.png")) for n in range(3)]
        assert [(mask == 255).sum() for mask in masks] == [100, 110, 120]

    def test_masks_of_a_file_with_pages_have_pages(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="slices"), source(["scan.tif"], "tiff"))
        with tifffile.TiffFile(tmp_path / "a" / "scan_mask.tif") as tiff:
            assert [(page.asarray() > 0).sum() for page in tiff.pages] == [100, 110, 120]

    def test_masks_of_slices_read_back_as_labels(self, tmp_path: Path) -> None:
        found = item(TIFF["image"])
        write(CaseWriter(tmp_path, outputs="slices"), TIFF, found)
        files = [tmp_path / "a" / name for name in ("x_9_mask.tif", "x_10_mask.TIFF", "x_2_mask.tif")]
        label = LoadVolumed("label")({"label": files})["label"]
        assert torch.equal((label > 0).float().as_tensor(), found["pred"].as_tensor())


class TestMeasurements:
    def test_measurements_are_those_of_the_mask_in_mm(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        measured = json.loads((tmp_path / "a" / "a_measurements.json").read_text())
        assert measured["case"] == "a"
        assert measured["volume_ml"] == pytest.approx(330 * 3 / 1000)
        assert measured["lesion_count"] == 1
        assert measured["mean_foreground_probability"] == pytest.approx(0.9)
        assert table(tmp_path / "measurements.csv")["a"]["volume_ml"] == str(measured["volume_ml"])

    def test_measurements_are_in_voxels_where_the_spacing_is_not_known(self, tmp_path: Path) -> None:
        found = item(TIFF["image"], spacing_known=False, slice_spacing_known=False)
        write(CaseWriter(tmp_path), TIFF, found)
        measured = json.loads((tmp_path / "a" / "a_measurements.json").read_text())
        assert measured["volume_voxels"] == 330
        assert "volume_ml" not in measured
        assert table(tmp_path / "summary.csv")["a"]["volume_voxels"] == "330"


class TestPictures:
    @pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 0)])
    def test_pictures_look_the_same_whatever_the_orientation_of_the_file(self, axes: tuple[int, int]) -> None:
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

    @pytest.mark.parametrize(("rows", "columns", "shape"), [(2.0, 1.0, (96, 40)), (1.0, 1.5, (48, 60))])
    def test_pictures_have_square_pixels(self, rows: float, columns: float, shape: tuple[int, int]) -> None:
        found = item(NIFTI["image"], label=True)
        for volume in found.values():
            volume.affine = AS_SHOWN @ torch.diag(torch.tensor([rows, columns, 1, 1], dtype=torch.float64))
        picture = Result(found).slices[0]
        head = np.array(picture.shape[:2]) - 2 * 4  # a margin of 4 pixels on each side
        np.testing.assert_allclose(head, shape, atol=2)
        outline = np.argwhere((picture == PREDICTION).all(axis=-1))
        assert tuple(np.ptp(outline, axis=0) + 1) == (10 * rows, 10 * columns)

    def test_pictures_without_a_reference_show_none(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        sheet = np.asarray(Image.open(tmp_path / "a" / "a_sheet.png"))
        assert not (sheet == np.array(REFERENCE)).all(-1).any()
        assert (sheet == np.array(PREDICTION)).all(-1).any()


class TestPage:
    def packed(self, page: str) -> dict:
        return json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])

    def test_page_holds_every_slice_and_needs_nothing_else(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        page = (tmp_path / "a" / "a.html").read_text(encoding="utf-8")
        packed = self.packed(page)
        assert packed["numbers"] == [1, 2, 3]
        assert len(packed["slices"]) == SHAPE[-1]
        assert "1.0 mL" in page
        assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in page

    def test_page_opens_at_the_largest_area_with_the_diameters_on_the_tumour(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)  # 12 rows and 10 columns of tumour in slice 3, from row 20 and column 14
        page = (tmp_path / "a" / "a.html").read_text(encoding="utf-8")
        assert 'data-slice="3" data-case="a"' in page
        packed = self.packed(page)
        left, top = 12 - 4, 8 - 4  # of the head, with a margin of 4 pixels
        tumour = (14 - left, 20 - top, 24 - left, 32 - top)
        assert [number for number, *_ in packed["lines"]] == [3, 3]
        for _, *ends in packed["lines"]:
            for x, y in (ends[:2], ends[2:]):
                assert tumour[0] <= x <= tumour[2]
                assert tumour[1] <= y <= tumour[3]
                assert x in (tumour[0], tumour[2]) or y in (tumour[1], tumour[3])

    @pytest.mark.parametrize(("rows", "columns"), [(2.0, 1.0), (1.0, 1.5)])
    def test_page_of_pixels_that_are_not_square_says_their_height(self, rows: float, columns: float) -> None:
        found = item(NIFTI["image"], label=True)
        for volume in found.values():
            volume.affine = AS_SHOWN @ torch.diag(torch.tensor([rows, columns, 1, 1], dtype=torch.float64))
        assert self.packed(Result(found).page)["pixelHeight"] == pytest.approx(rows / columns, abs=1e-4)

    def test_page_of_an_uncertain_tumour_is_written(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        found["probability"] *= 0.25  # as with a threshold of 0.2: no voxel has 0.3 or more
        write(CaseWriter(tmp_path), NIFTI, found)
        assert table(tmp_path / "summary.csv")["a"]["status"] == "done"
        assert "mean probability inside is 0.2" in (tmp_path / "a" / "a.html").read_text(encoding="utf-8")

    def test_page_says_when_nothing_was_found(self, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        found["pred"] *= 0
        write(CaseWriter(tmp_path), NIFTI, found)
        assert "No tumour found" in (tmp_path / "a" / "a.html").read_text(encoding="utf-8")

    def test_page_shows_the_name_of_a_case_as_text(self, tmp_path: Path) -> None:
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

    def test_dicom_case_gets_a_segmentation_by_default_and_a_report_on_request(self, tmp_path: Path) -> None:
        case, found = self.series(tmp_path / "in")
        write(CaseWriter(tmp_path / "out", outputs="auto,sr"), case, found)
        from mri_seg.dicom.seg import read_segmentation

        mask = read_segmentation(tmp_path / "out" / "a" / "a_seg.dcm", case["image"])
        np.testing.assert_array_equal(mask, found["pred"][0] > 0)
        assert (tmp_path / "out" / "a" / "a_sr.dcm").is_file()

    def test_files_say_what_made_them_and_what_to_know(self, tmp_path: Path) -> None:
        case, found = self.series(tmp_path / "in")
        Path("model.pt").write_bytes(b"weights")
        add_flag(case, "timing_not_flair", "By its timing this is not FLAIR.")
        made = {"checkpoint": "model.pt", "options": {"threshold": 0.4, "network": "sha256:" + "0" * 64}}
        write(CaseWriter(tmp_path / "out", outputs="seg,sr", **made), case, found)
        for kind in ("seg", "sr"):
            text = pydicom.dcmread(tmp_path / "out" / "a" / f"a_{kind}.dcm").to_json()
            for part in (sha256("model.pt"), "threshold=0.4", mri_seg.__version__, "By its timing this is not FLAIR."):
                assert part in text
            assert "network" not in text

    @pytest.mark.parametrize(("empty_frames", "count"), [(False, 1), ("true", 3)])
    def test_segmentation_has_empty_frames_if_the_option_says_so(
        self, tmp_path: Path, empty_frames: object, count: int
    ) -> None:
        case, found = self.series(tmp_path / "in")
        found["pred"][..., ::2] = 0
        write(CaseWriter(tmp_path / "out", outputs="seg", seg_empty_frames=empty_frames), case, found)
        assert pydicom.dcmread(tmp_path / "out" / "a" / "a_seg.dcm").NumberOfFrames == count
        with pytest.raises(ValueError, match=r"seg_empty_frames was \w+, is"):
            CaseWriter(tmp_path / "out", outputs="seg", seg_empty_frames=count == 1).remaining([case])

    def test_dicom_case_without_pixel_spacing_gets_the_rest_by_default(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        case, found = self.series(tmp_path / "in", PixelSpacing=None)
        writer = CaseWriter(tmp_path / "out")
        write(writer, case, found)
        writer.finish()
        assert "a.html" in names(tmp_path / "out" / "a")
        assert "a_seg.dcm" not in names(tmp_path / "out" / "a")
        assert "PixelSpacing" in caplog.text

    def test_dicom_case_without_pixel_spacing_fails_where_a_segmentation_is_asked_for(self, tmp_path: Path) -> None:
        case, found = self.series(tmp_path / "in", PixelSpacing=None)
        writer = CaseWriter(tmp_path / "out", outputs="mask,seg")
        write(writer, case, found)
        with pytest.raises(SystemExit):
            writer.finish()
        assert names(tmp_path / "out" / "a") == ["a_mask.nii.gz", "a_provenance.json"]
