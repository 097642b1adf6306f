"""Which of the masks that other programs wrote belongs to which case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import ramp, write_series

from mri_seg.dicom.seg import write_segmentation
from mri_seg.io.load import LoadVolumed
from mri_seg.io.predictions import find_predictions


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mask")


def cases(*names: str, image: str = "{}_FLAIR.nii.gz") -> list[dict]:
    return [{"case": name, "image": [image.format(name)]} for name in names]


def found(folder: Path, *names: str) -> dict[str, list[str]]:
    """Files of each case in the folder, relative to it."""
    masks, missing = find_predictions(cases(*names), folder)
    assert missing == []
    return {case: [Path(file).relative_to(folder).as_posix() for file in files] for case, files in masks.items()}


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "P1.nii.gz",
            "P1_mask.nii.gz",
            "P1-label.nrrd",
            "seg_P1.mha",
            "P1_FLAIR.nii.gz",
            "deep/er/p1_Segmentation.nii",
            "P1/tumor.nii.gz",
            "P1_mask.tif",
        ],
    )
    def test_mask_is_found_by_the_name_of_its_case(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, name, name.replace("P1", "P10").replace("p1", "p10"))
        assert found(tmp_path, "P1") == {"P1": [name]}

    def test_mask_is_named_as_the_image_without_its_channel_as_nnunet_does(self, tmp_path: Path) -> None:
        write(tmp_path, "BRATS_001.nii.gz", "BRATS_002.nii.gz", "dataset.json", "plans.json", "BRATS_001.npz")
        data = [{"case": "patient 2", "image": ["imagesTs/BRATS_002_0000.nii.gz"]}]
        assert find_predictions(data, tmp_path) == ({"patient 2": [str(tmp_path / "BRATS_002.nii.gz")]}, [])

    def test_mask_is_found_by_subject_and_session_of_bids(self, tmp_path: Path) -> None:
        write(tmp_path, "sub-01/ses-a/anat/sub-01_ses-a_desc-tumor_mask.nii.gz", "sub-01_ses-b_dseg.nii.gz")
        assert found(tmp_path, "sub-01_ses-a_FLAIR", "sub-01_ses-b_FLAIR") == {
            "sub-01_ses-a_FLAIR": ["sub-01/ses-a/anat/sub-01_ses-a_desc-tumor_mask.nii.gz"],
            "sub-01_ses-b_FLAIR": ["sub-01_ses-b_dseg.nii.gz"],
        }

    def test_slices_are_ordered_by_number(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"P_1/P_1_{n}_mask.tif" for n in (10, 2, 1)), "P_2_1_mask.png", "P_2_2_mask.png")
        assert found(tmp_path, "P_1", "P_2") == {
            "P_1": [f"P_1/P_1_{n}_mask.tif" for n in (1, 2, 10)],
            "P_2": ["P_2_1_mask.png", "P_2_2_mask.png"],
        }

    def test_slices_that_are_only_numbered_go_by_their_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "P1/1.png", "P1/2.png")
        assert found(tmp_path, "P1") == {"P1": ["P1/1.png", "P1/2.png"]}

    def test_exact_name_comes_before_one_with_the_same_words(self, tmp_path: Path) -> None:
        write(tmp_path, "P-1.nii.gz", "P_1.nii.gz")
        assert found(tmp_path, "P_1", "P-1") == {"P_1": ["P_1.nii.gz"], "P-1": ["P-1.nii.gz"]}

    def test_mask_of_our_inference_is_taken_once(self, tmp_path: Path) -> None:
        write(tmp_path, "P1/P1_mask.nii.gz", "P1/P1_probability.nii.gz", "P1/1_mask.tif", "P1/P1_provenance.json")
        write(tmp_path, "P1/P1_sheet.png", "P1/P1_panel.png")
        assert found(tmp_path, "P1") == {"P1": ["P1/P1_mask.nii.gz"]}

    def test_probability_is_no_mask(self, tmp_path: Path) -> None:
        write(tmp_path, "P1.nii.gz", "P1/P1_probability.nii.gz", "P2/softmax.nii.gz")
        masks, missing = find_predictions(cases("P1", "P2"), tmp_path)
        assert (list(masks), missing) == (["P1"], ["P2"])


class TestRefusals:
    @pytest.mark.parametrize(
        "names",
        [("P1.nii.gz", "P1_mask.nii.gz"), ("a/P1.nrrd", "b/P1.nrrd"), ("P1/one.nii.gz", "P1/two.nii.gz")],
        ids=["two names", "two folders", "two in its folder"],
    )
    def test_two_masks_of_a_case_are_refused_and_named(self, tmp_path: Path, names: tuple[str, str]) -> None:
        write(tmp_path, *names, "P2.nii.gz")
        with pytest.raises(ValueError, match="P1 has 2 masks") as error:
            find_predictions(cases("P1", "P2"), tmp_path)
        assert all(name in str(error.value) for name in names)

    def test_mask_that_fits_two_cases_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "sub-1_mask.nii.gz")
        with pytest.raises(ValueError, match="fits two cases, sub-1_run-1_FLAIR and sub-1_run-2_FLAIR"):
            find_predictions(cases("sub-1_run-1_FLAIR", "sub-1_run-2_FLAIR"), tmp_path)

    def test_slices_with_the_same_number_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "P1/s_1_mask.tif", "P1/s_01_mask.tif")
        with pytest.raises(ValueError, match="has slice number 1"):
            find_predictions(cases("P1"), tmp_path)

    def test_folder_without_masks_says_what_was_expected(self, tmp_path: Path) -> None:
        write(tmp_path, "P1.dcm", "notes.txt")
        with pytest.raises(ValueError, match="holds no mask, expected NIfTI"):
            find_predictions(cases("P1"), tmp_path)

    def test_folder_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="--predictions"):
            find_predictions(cases("P1"), tmp_path / "none")


class TestSegmentations:
    def test_dicom_seg_belongs_to_the_case_whose_series_it_refers_to(self, tmp_path: Path) -> None:
        data = []
        for number, name in enumerate(("A", "B"), start=1):
            files = write_series(tmp_path / "data" / name, ramp(8, 6, 4), series_number=number)
            data.append({"case": name, "image": [str(file) for file in files]})
            (tmp_path / "masks").mkdir(exist_ok=True)
            mask = np.zeros((8, 6, 4), bool)
            mask[2:4, 2:4, number] = True
            other = "B" if name == "A" else "A"  # names do not matter
            write_segmentation(tmp_path / "masks" / f"{other}.dcm", mask, files, algorithm_version="1")
        masks, missing = find_predictions(data, tmp_path / "masks")
        assert missing == []
        assert {case: [Path(file).name for file in files] for case, files in masks.items()} == {
            "A": ["B.dcm"],
            "B": ["A.dcm"],
        }
        loaded = LoadVolumed(["image", "label", "prediction"], allow_missing_keys=True)(
            {**data[0], "prediction": masks["A"]}
        )
        assert np.argwhere(loaded["prediction"][0].numpy()).tolist()[0] == [2, 2, 1]

    def test_images_of_the_series_among_the_predictions_are_no_masks(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(8, 6, 4))
        with pytest.raises(ValueError, match="holds no mask"):
            find_predictions([{"case": "A", "image": [str(file) for file in files]}], tmp_path / "series")


def test_mask_is_found_by_the_patient_of_its_case_if_nothing_else_fits(tmp_path: Path) -> None:
    write(tmp_path, "BraTS-GLI-1.nii.gz", "BraTS-GLI-2-t2f.nii.gz", "BraTS-GLI-2.nii.gz")
    data = [
        {"case": f"BraTS-GLI-{n}-t2f", "patient": f"BraTS-GLI-{n}", "image": [f"BraTS-GLI-{n}-t2f.nii.gz"]}
        for n in (1, 2)
    ]
    masks, missing = find_predictions(data, tmp_path)
    assert missing == []
    assert [Path(file).name for (file,) in masks.values()] == ["BraTS-GLI-1.nii.gz", "BraTS-GLI-2-t2f.nii.gz"]
