"""Files of an inference: their names, their values and their order."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from PIL import Image

from mri_seg.outputs import SavePicturesd, SaveSliceMasksd, case_file_name
from mri_seg.pictures import REFERENCE
from mri_seg.reader import LoadVolumed

# Rows to posterior, columns to the patient's left, slices upwards, as TIFFReader has it.
AS_SHOWN = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def pred_of(files: list[Path | str], case: str = "a", shape: tuple[int, ...] = (8, 6, 3)) -> MetaTensor:
    """A prediction whose slice n (from 0) has n + 1 rows of tumour."""
    pred = torch.zeros(1, *shape)
    for n in range(shape[-1]):
        pred[0, : n + 1, :, n] = 1
    return MetaTensor(pred, affine=AS_SHOWN, meta={"case": case, "files": "\n".join(map(str, files))})


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestCaseFileName:
    @pytest.mark.parametrize("case", ["patient", "patient.2", "v1.nii", "1.2.840.10008", "a b (c)"])
    def test_names_files_after_the_whole_case(self, tmp_path: Path, case: str) -> None:
        volume = MetaTensor(torch.ones(1, 4, 4, 2), meta={"case": case, "filename_or_obj": "slices/x_1.tif"})
        save = SaveImage(
            tmp_path, output_postfix="mask", output_name_formatter=case_file_name, resample=False, print_log=False
        )
        save(volume)
        assert names(tmp_path) == [f"{case}/{case}_mask.nii.gz"]
        assert nib.load(tmp_path / case / f"{case}_mask.nii.gz").shape == (4, 4, 2)

    def test_needs_a_case(self) -> None:
        with pytest.raises(KeyError, match="case"):
            case_file_name({})


class TestSaveSliceMasksd:
    def test_writes_a_mask_a_slice_named_like_it(self, tmp_path: Path) -> None:
        data = {"pred": pred_of(["in/x_1.tif", "in/x_2.TIFF", "in/x_10.tif"])}
        SaveSliceMasksd("pred", tmp_path)(data)
        assert names(tmp_path) == ["a/x_10_mask.tif", "a/x_1_mask.tif", "a/x_2_mask.tif"]

    def test_masks_hold_0_and_255_in_the_order_of_the_slices(self, tmp_path: Path) -> None:
        SaveSliceMasksd("pred", tmp_path)({"pred": pred_of(["x_9.tif", "x_10.tif", "x_2.tif"])})
        for n, name in enumerate(("x_9", "x_10", "x_2")):
            mask = tifffile.imread(tmp_path / "a" / f"{name}_mask.tif")
            assert (mask.shape, mask.dtype) == ((8, 6), np.uint8)
            assert (mask[: n + 1] == 255).all()
            assert (mask[n + 1 :] == 0).all()

    @pytest.mark.parametrize("depth", [2, 3, 4, 5])
    def test_writes_a_file_of_several_pages_for_one(self, tmp_path: Path, depth: int) -> None:
        SaveSliceMasksd("pred", tmp_path)({"pred": pred_of(["scan.tif"], shape=(8, 6, depth))})
        assert names(tmp_path) == ["a/scan_mask.tif"]
        with tifffile.TiffFile(tmp_path / "a" / "scan_mask.tif") as tiff:
            masks = [page.asarray() for page in tiff.pages]
        assert [(mask == 255).sum() for mask in masks] == [6 * (n + 1) for n in range(depth)]

    def test_writes_one_page_for_one(self, tmp_path: Path) -> None:
        SaveSliceMasksd("pred", tmp_path)({"pred": pred_of(["scan.tif"], shape=(8, 6, 1))})
        assert tifffile.imread(tmp_path / "a" / "scan_mask.tif").shape == (8, 6)

    def test_masks_read_back_as_labels(self, tmp_path: Path) -> None:
        pred = pred_of(["x_1.tif", "x_2.tif", "x_3.tif"])
        SaveSliceMasksd("pred", tmp_path)({"pred": pred})
        files = [tmp_path / "a" / f"x_{n}_mask.tif" for n in (1, 2, 3)]
        label = LoadVolumed("label")({"label": files})["label"]
        assert torch.equal((label > 0).float().as_tensor(), pred.as_tensor())

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
    def test_takes_predictions_of_any_type(self, tmp_path: Path, dtype: torch.dtype) -> None:
        SaveSliceMasksd("pred", tmp_path)({"pred": pred_of(["x_1.tif", "x_2.tif", "x_3.tif"]).to(dtype)})
        assert np.unique(tifffile.imread(tmp_path / "a" / "x_1_mask.tif")).tolist() == [0, 255]

    @pytest.mark.parametrize("file", ["head.nii.gz", "series", "head.dcm"])
    def test_passes_over_other_files(self, tmp_path: Path, file: str) -> None:
        data = {"pred": pred_of([file])}
        assert SaveSliceMasksd("pred", tmp_path)(data) == data
        assert names(tmp_path) == []

    def test_keeps_cases_apart(self, tmp_path: Path) -> None:
        save = SaveSliceMasksd("pred", tmp_path)
        for case in ("a", "b"):
            save({"pred": pred_of(["x.tif"], case, shape=(4, 4, 1))})
        assert names(tmp_path) == ["a/x_mask.tif", "b/x_mask.tif"]

    def test_hands_its_data_on(self, tmp_path: Path) -> None:
        data = {"pred": pred_of(["x.tif"], shape=(4, 4, 1)), "other": 1}
        handed = SaveSliceMasksd("pred", tmp_path)(data)
        assert handed == data
        assert handed["pred"] is data["pred"]


class TestSavePicturesd:
    @pytest.fixture
    def data(self) -> dict[str, MetaTensor]:
        flair = MetaTensor(torch.zeros(1, 64, 64, 3), affine=AS_SHOWN)
        flair[0, 8:56, 12:52] = 100
        pred = MetaTensor(torch.zeros(1, 64, 64, 3), affine=AS_SHOWN, meta={"case": "a.b"})
        pred[0, 20:30, 14:24, 1] = 1
        label = MetaTensor(torch.zeros(1, 64, 64, 3), affine=AS_SHOWN)
        label[0, 20:32, 14:24, 1] = 1
        return {"flair": flair, "pred": pred, "label": label}

    def picture(self, folder: Path, kind: str) -> np.ndarray:
        return np.asarray(Image.open(folder / "a.b" / f"a.b_{kind}.png"))

    def test_draws_a_sheet_and_a_panel_where_there_is_a_label(self, tmp_path: Path, data: dict) -> None:
        SavePicturesd(tmp_path)(data)
        assert names(tmp_path) == ["a.b/a.b_panel.png", "a.b/a.b_sheet.png"]
        assert (self.picture(tmp_path, "sheet")[18:] == np.array(REFERENCE)).all(-1).any()

    @pytest.mark.parametrize("label", [None, "label_1.tif", ["label_1.tif"]])
    def test_draws_a_sheet_where_there_is_none(self, tmp_path: Path, data: dict, label: object) -> None:
        data["label"] = label
        SavePicturesd(tmp_path)(data)
        assert names(tmp_path) == ["a.b/a.b_sheet.png"]
        assert not (self.picture(tmp_path, "sheet") == np.array(REFERENCE)).all(-1).any()

    def test_label_may_be_missing(self, tmp_path: Path, data: dict) -> None:
        del data["label"]
        SavePicturesd(tmp_path)(data)
        assert names(tmp_path) == ["a.b/a.b_sheet.png"]

    @pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 0)])
    def test_looks_the_same_whatever_the_orientation_of_the_file(
        self, tmp_path: Path, data: dict, axes: tuple[int, int]
    ) -> None:
        SavePicturesd(tmp_path / "as shown")(data)
        turned = {}
        for key, volume in data.items():
            # Swap two axes and turn the first about, in the volume and in its affine.
            order = [0, 1, 2]
            order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
            array = volume.as_tensor().permute(0, *(n + 1 for n in order)).flip(1)
            affine = AS_SHOWN.numpy()[:, [*order, 3]].copy()
            affine[:3, 3] += affine[:3, 0] * (array.shape[1] - 1)
            affine[:3, 0] *= -1
            meta = {name: value for name, value in volume.meta.items() if name != "affine"}
            turned[key] = MetaTensor(array, affine=torch.as_tensor(affine), meta=meta)
        SavePicturesd(tmp_path / "turned")(turned)
        for kind in ("sheet", "panel"):
            expected, found = (self.picture(tmp_path / name, kind) for name in ("as shown", "turned"))
            np.testing.assert_array_equal(found, expected)

    def test_takes_other_keys(self, tmp_path: Path, data: dict) -> None:
        other = {"image": data["flair"], "mask": data["pred"], "reference": data["label"]}
        SavePicturesd(tmp_path, image_key="image", pred_key="mask", label_key="reference")(other)
        assert len(names(tmp_path)) == 2

    def test_hands_its_data_on(self, tmp_path: Path, data: dict) -> None:
        before = {key: value.clone() for key, value in data.items()}
        handed = SavePicturesd(tmp_path)(data)
        assert all(handed[key] is data[key] for key in data)
        assert all(torch.equal(data[key], before[key]) for key in data)
