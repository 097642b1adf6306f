"""Names of BIDS images and of their derivatives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from case_folders import touch

from mri_seg.io.bids_names import bids_root, derivative_names
from mri_seg.io.cases import find_cases
from mri_seg.utils.files import write_json

OURS = {"GeneratedBy": [{"Name": "mri_seg", "Version": "0"}]}


class TestNames:
    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("sub-01_FLAIR.nii.gz", "sub-01/anat/sub-01_space-orig_label-tumor_mask.nii.gz"),
            (
                "raw/sub-a1_ses-pre_acq-3d_run-2_FLAIR.nii",
                "sub-a1/ses-pre/anat/sub-a1_ses-pre_acq-3d_run-2_space-orig_label-tumor_mask.nii.gz",
            ),
            (
                "sub-1_space-T1w_res-1mm_desc-n4_FLAIR.nii.gz",
                "sub-1/anat/sub-1_space-T1w_res-1mm_label-tumor_desc-n4_mask.nii.gz",
            ),
            ("sub-1_chunk-2_FLAIR.nii.gz", "sub-1/anat/sub-1_space-orig_chunk-2_label-tumor_mask.nii.gz"),
        ],
    )
    def test_derivatives_keep_the_entities_of_their_image_in_order(self, image: str, mask: str) -> None:
        assert derivative_names(image)["mask"] == mask
        assert derivative_names(image)["probseg"] == mask.replace("_mask.", "_probseg.")

    def test_lesion_mask_has_the_name_that_pipelines_look_for(self) -> None:
        names = derivative_names("sub-01_ses-2_FLAIR.nii.gz")
        assert names["roi"] == "sub-01/ses-2/anat/sub-01_ses-2_label-lesion_roi.nii.gz"

    @pytest.mark.parametrize("image", ["P1_FLAIR.nii.gz", "sub-01.nii.gz", "sub-01_FLAIR.mha", "sub_01_FLAIR.nii.gz"])
    def test_other_names_have_no_derivatives(self, image: str) -> None:
        assert derivative_names(image) is None

    def test_root_is_the_folder_with_the_description_or_that_of_the_subjects(self, tmp_path: Path) -> None:
        image = tmp_path / "data" / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz"
        touch(tmp_path, "data/sub-1/anat/sub-1_FLAIR.nii.gz")
        assert bids_root(image) == tmp_path / "data"
        (tmp_path / "dataset_description.json").write_text("{}")
        assert bids_root(image) == tmp_path


class TestOwnDerivatives:
    MASK = "derivatives/mri_seg/sub-1/anat/sub-1_space-orig_label-tumor_mask"
    ROI = "sub-1/anat/sub-1_label-lesion_roi"  # beside the images, as fMRIPrep wants it

    @pytest.mark.parametrize("name", [MASK, ROI, MASK.replace("mask", "probseg"), "out/sub-1_label-lesion_desc-x_roi"])
    def test_own_derivatives_are_neither_cases_nor_references(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz", f"{name}.nii.gz")
        write_json(tmp_path / f"{name}.json", OURS)
        (case,) = find_cases(tmp_path)
        assert Path(case["image"][0]).name == "sub-1_FLAIR.nii.gz"
        assert "label" not in case

    @pytest.mark.parametrize("described", [None, "not JSON", "[]", json.dumps({"GeneratedBy": [{"Name": "a reader"}]})])
    def test_masks_of_others_with_such_names_are_references(self, tmp_path: Path, described: str | None) -> None:
        touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz", f"{self.ROI}.nii.gz")
        if described is not None:
            (tmp_path / f"{self.ROI}.json").write_text(described)
        (case,) = find_cases(tmp_path)
        assert [Path(file).name for file in case["label"]] == ["sub-1_label-lesion_roi.nii.gz"]
