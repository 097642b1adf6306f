"""Results of earlier runs among the images are known by their names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from case_folders import found, touch

from mri_seg.inference.outputs import OUTPUTS
from mri_seg.io.cases import find_cases
from mri_seg.io.earlier_outputs import CASE_ENDINGS


class TestResults:
    def test_results_of_an_earlier_run_are_not_cases(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii", "out/a/a_mask.nii.gz", "out/a/a_probability.nii.gz", "out/a/a_sheet.png")
        assert [case["case"] for case in find_cases(tmp_path, exclude=tmp_path / "out")] == ["a"]

    @pytest.mark.parametrize("beside", ["out/a/a_measurements.json", "out/a/a_provenance.json", "out/summary.csv"])
    def test_results_of_an_earlier_run_elsewhere_are_not_cases_either(
        self, tmp_path: Path, beside: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        told_by = {"_measurements.json", "_provenance.json"}
        touch(tmp_path, "a.nii", *(f"out/a/a{ending}" for ending in CASE_ENDINGS if ending not in told_by))
        touch(tmp_path, "out/a/s_1_mask.tif", "out/a/s_2_mask.tif", beside)
        (tmp_path / beside).write_text("case,status,source\na,done,volume\n", encoding="utf-8")
        with caplog.at_level(logging.INFO):
            assert found(tmp_path) == {"a": {"image": ["a.nii"]}}
        assert "results of an earlier run" in caplog.text

    def test_results_beside_their_images_are_no_references(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/a.nii", "a/a_mask.nii.gz", "a/a_sheet.png", "a/a_measurements.json")
        assert found(tmp_path) == {"a": {"image": ["a.nii"]}}

    def test_results_are_recognised_by_all_names_that_are_written(self) -> None:
        fixed = {name for name, output in OUTPUTS.items() if name != "slices" and not output.at_root}
        written = [OUTPUTS[name].names({"case": ""})[0] for name in fixed]
        assert sorted(CASE_ENDINGS) == sorted(["_provenance.json", *written])

    def test_files_that_look_like_results_are_cases(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/a_sheet.png", "b.nii")
        (tmp_path / "summary.csv").write_text("name,age\n", encoding="utf-8")
        assert list(found(tmp_path)) == ["a_sheet", "b"]

    def test_files_named_mask_are_labels_of_the_volume_beside_them(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii.gz", "a_mask.nii.gz", "b_mask.nii.gz", "c_probability.nii")
        assert found(tmp_path) == {"a": {"image": ["a.nii.gz"], "label": ["a_mask.nii.gz"]}}
