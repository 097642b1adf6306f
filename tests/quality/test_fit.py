"""Records of cases, and the fit of all estimates."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from mri_seg.inference.case_quality import CaseQuality
from mri_seg.quality.__main__ import main
from mri_seg.quality.fit import case_record, fit_quality
from mri_seg.quality.records import records_of


def volumes(shift: int = 0, soft: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability, mask and reference of a block; the prediction is moved by some rows, with a soft edge."""
    label, mask = np.zeros((48, 48, 6), dtype=bool), np.zeros((48, 48, 6), dtype=bool)
    label[12:28, 12:28, 1:5] = True
    mask[12 + shift : 28 + shift, 12:28, 1:5] = True
    probability = mask * 0.98
    probability[12 + shift : 12 + shift + soft, 12:28, 1:5] = 0.6
    return probability, mask, label


def records(count: int = 12) -> list[dict[str, Any]]:
    found = []
    for n in range(count):
        probability, mask, label = volumes(n % 6, 1 + n % 6)
        label[: 12 + n % 6] = False  # the softer the edge, the more of it is false
        found.append(case_record(probability, mask, label, case=f"c{n}", group="a"))
    return found


class TestRecord:
    def test_record_has_dice_volumes_and_the_fraction_of_lesions_in_the_reference(self) -> None:
        probability, mask, label = volumes(shift=4)
        mask[40:44, 40:44, 2] = True  # a false lesion
        record = case_record(probability, mask, label, case="c")
        assert (record["pred_voxels"], record["label_voxels"]) == (1040, 1024)
        assert record["dice"] == pytest.approx(2 * 768 / 2064)
        assert [lesion["inside"] for lesion in record["lesions"]] == [0.75, 0.0]

    def test_empty_mask_has_no_lesions(self) -> None:
        probability, mask, label = volumes()
        record = case_record(probability * 0, mask & False, label)
        assert (record["lesions"], record["dice"], record["spread"]) == ([], 0, 0)

    def test_case_of_a_file_in_another_orientation_is_recorded_slice_by_slice(self, tmp_path: Path) -> None:
        probability, mask, label = volumes(shift=2)
        turned = [np.moveaxis(one, 2, 0).astype(np.float32) for one in (probability, mask, label)]
        affine = np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])  # slices are the first axis
        for name, volume in (("image", turned[0] * 100), ("label", turned[2])):
            nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"{name}.nii")
        case = {"case": "c", "image": [str(tmp_path / "image.nii")], "label": [str(tmp_path / "label.nii")]}
        asked = []

        def segment(source: Any) -> Any:
            asked.append(source)
            return SimpleNamespace(probability=torch.tensor(turned[0]), mask=torch.tensor(turned[1]), affine=affine)

        (record,) = records_of(segment, [case])
        expected = case_record(probability, mask, label)
        assert asked == [case["image"]]
        assert {name: record[name] for name in ("dice", "near", "spread")} == {
            name: pytest.approx(expected[name]) if name == "spread" else expected[name]
            for name in ("dice", "near", "spread")
        }


class TestFit:
    def test_fit_is_what_results_are_estimated_by(self) -> None:
        fitted = fit_quality(records())
        quality = CaseQuality(False)
        quality.fitted = {**fitted, "declared_for": {}}
        soft, sharp = (quality.estimate(volumes(soft=number)[0]) for number in (6, 1))
        assert soft["expected_dice"] < sharp["expected_dice"]
        assert soft["volume_ratio_high"] > sharp["volume_ratio_high"] > 1

    def test_few_cases_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 10 cases"):
            fit_quality(records(9))


class TestCommand:
    def test_missing_weights_are_an_error_that_names_them(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status = main(["fit", "--checkpoint", str(tmp_path / "none.pt"), "--dataset_dir", str(tmp_path)])
        assert status == 1
        assert "none.pt: no such file of weights" in capsys.readouterr().err
        assert not (tmp_path / "quality.json").exists()
