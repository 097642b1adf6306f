"""What quality.json gives a case, and what it is bound to."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from written_cases import NIFTI, item, table, write

from mri_seg.inference.case_quality import QUALITY_KEYS, CaseQuality, declaration
from mri_seg.inference.writer import CaseWriter
from mri_seg.utils.files import write_json

pytestmark = pytest.mark.usefixtures("inputs")

OPTIONS = {
    "threshold": 0.5,
    "tta_flip": True,
    "min_lesion_volume": 800,
    "min_brain_fraction": 0.05,
    "min_lesion_fraction": 0.05,
    "min_lesion_slices": 2,
    "fill_holes": True,
}
FITTED = {
    "fitted_on": [],
    "calibration": {"temperature": 2.0},
    "expected_dice": {"slope": 0.6, "least": 0.1, "most": 1.2, "base": 0.02},
    "volume": {"width": 2.0, "base": 0.02},
    "lesion": {"false_in_doubt": 0.64, "false_others": 0.03},
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights with a quality.json for them beside them."""
    file = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1)}, file)
    write_json(tmp_path / "quality.json", {**FITTED, "declared_for": declaration(file, (), OPTIONS)})
    return file


def quality_of(weights: Path, **changed: object) -> CaseQuality:
    return CaseQuality(checkpoint=weights, options={**OPTIONS, **changed})


def written(folder: Path, quality: CaseQuality, found: dict | None = None) -> dict:
    write(CaseWriter(folder, outputs="measurements,page", quality=quality), NIFTI, found)
    return json.loads((folder / "a" / "a_measurements.json").read_text(encoding="utf-8"))


class TestEstimates:
    def test_tables_json_and_page_have_expected_dice_and_interval(self, weights: Path, tmp_path: Path) -> None:
        measured = written(tmp_path / "out", quality_of(weights))
        assert measured["expected_dice"] == 1  # all probabilities of the mask are 0.9
        assert 0 < measured["volume_ml_low"] < measured["volume_ml"] < measured["volume_ml_high"]
        for name in ("summary.csv", "measurements.csv"):
            row = table(tmp_path / "out" / name)["a"]
            assert [row[key] for key in QUALITY_KEYS[-2:]] == ["", ""]  # in voxels
            assert float(row["volume_ml_high"]) == measured["volume_ml_high"]
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["cases"][0]
        assert summary["expected_dice"] == 1
        page = (tmp_path / "out" / "a" / "a.html").read_text(encoding="utf-8")
        assert "90&nbsp;% interval" in page
        assert "Calibrated probability from 0 to 1" in page

    def test_lesion_that_is_small_beside_the_largest_is_marked_with_the_reason(
        self, weights: Path, tmp_path: Path
    ) -> None:
        found = item(NIFTI["image"])
        found["pred"][0, 50:52, 30:34, 1] = 1  # 8 voxels beside 330
        first, second = written(tmp_path / "out", quality_of(weights), found)["lesions"]
        assert "look" not in first
        assert "2.4 % of the volume of the largest lesion; 64 % of such lesions were false" in second["look"]
        assert second["look"] in (tmp_path / "out" / "a" / "a.html").read_text(encoding="utf-8")

    def test_lesion_that_a_check_marked_says_why_without_a_fit_too(self, weights: Path, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        found["pred"].meta["looks"] = json.dumps(["almost no training patient has tumour there"])
        (lesion,) = written(tmp_path / "out", CaseQuality(False), found)["lesions"]
        assert lesion["look"] == "almost no training patient has tumour there"
        assert lesion["look"] in (tmp_path / "out" / "a" / "a.html").read_text(encoding="utf-8")

    def test_only_lesion_is_not_marked(self, weights: Path, tmp_path: Path) -> None:
        (lesion,) = written(tmp_path / "out", quality_of(weights))["lesions"]
        assert "look" not in lesion

    def test_volume_in_voxels_has_an_interval_in_voxels(self, weights: Path, tmp_path: Path) -> None:
        found = item(NIFTI["image"], spacing_known=False)
        measured = written(tmp_path / "out", quality_of(weights), found)
        assert measured["volume_voxels_low"] < measured["volume_voxels"]
        assert "volume_ml_low" not in measured

    def test_empty_mask_has_no_estimates(self, weights: Path, tmp_path: Path) -> None:
        found = item(NIFTI["image"])
        found["pred"] = found["pred"] * 0
        written(tmp_path / "out", quality_of(weights), found)
        assert {table(tmp_path / "out" / "summary.csv")["a"][key] for key in QUALITY_KEYS} == {""}

    def test_probability_of_a_case_without_estimates_is_not_called_calibrated(
        self, weights: Path, tmp_path: Path
    ) -> None:
        found = item(NIFTI["image"])
        found["pred"] = found["pred"] * 0
        written(tmp_path / "out", quality_of(weights), found)
        page = (tmp_path / "out" / "a" / "a.html").read_text(encoding="utf-8")
        assert "Probability from 0 to 1" in page
        assert "White lines" not in page

    def test_sharp_probability_is_trusted_more_than_a_blurred_one(self, weights: Path) -> None:
        quality, sharp = quality_of(weights), np.zeros((20, 20, 4))
        sharp[5:12, 5:12] = 1
        blurred = sharp * 0.99
        blurred[3:5, 5:12] = 0.4
        assert quality.estimate(blurred)["expected_dice"] < quality.estimate(sharp)["expected_dice"]


class TestBinding:
    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"threshold": 0.4}, "threshold 0.5, in use is 0.4"),
            ({"tta_flip": False}, "tta_flip True, in use is False"),
            ({"min_lesion_volume": 0}, "min_lesion_volume 800, in use is 0"),
            ({"min_lesion_fraction": 0}, "min_lesion_fraction 0.05, in use is 0"),
            ({"fill_holes": False}, "fill_holes True, in use is False"),
        ],
    )
    def test_other_options_leave_columns_empty_with_one_line_in_the_log(
        self, changed: dict, named: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "mri_seg.inference.case_quality"):
            written(tmp_path / "out", quality_of(weights, **changed))
        assert {table(tmp_path / "out" / "summary.csv")["a"][key] for key in QUALITY_KEYS} == {""}
        lines = [record.message for record in caplog.records if record.name == "mri_seg.inference.case_quality"]
        assert len(lines) == 1
        assert named in lines[0]

    def test_other_weights_are_not_estimated(self, weights: Path, tmp_path: Path) -> None:
        torch.save({"weight": torch.ones(1)}, weights)
        assert quality_of(weights).fitted is None

    def test_averaging_with_other_weights_is_not_estimated(self, weights: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.pt"
        torch.save({"weight": torch.ones(1)}, other)
        assert CaseQuality(checkpoint=weights, ensemble=[other], options=OPTIONS).fitted is None

    def test_other_8_bit_weights_are_not_estimated(self, weights: Path) -> None:
        weights.with_suffix(".int8.xml").write_text("other", encoding="utf-8")
        assert quality_of(weights).fitted is not None
        assert quality_of(weights, runtime="openvino-int8").fitted is None

    def test_switch_turns_it_off(self, weights: Path) -> None:
        assert CaseQuality("false", checkpoint=weights, options=OPTIONS).fitted is None

    def test_file_that_was_named_must_exist(self, weights: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file. Fit it"):
            CaseQuality(tmp_path / "nothing.json", checkpoint=weights)

    def test_file_of_another_kind_is_an_error_and_not_silence(self, weights: Path) -> None:
        write_json(weights.with_name("quality.json"), {"expected_dice": 1})
        with pytest.raises(ValueError, match="expected a JSON object with declared_for"):
            _ = quality_of(weights).fitted

    def test_results_of_another_fit_are_not_mixed(self, weights: Path, tmp_path: Path) -> None:
        written(tmp_path / "out", quality_of(weights))
        file = weights.with_name("quality.json")
        write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "volume": {"width": 9.0, "base": 0.02}})
        writer = CaseWriter(tmp_path / "out", outputs="measurements,page", quality=quality_of(weights))
        with pytest.raises(ValueError, match="quality_sha256 was"):
            writer.remaining([NIFTI])
