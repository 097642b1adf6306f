"""Cases found in folders and files, as people keep them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from case_folders import files, found, touch
from dicom_series import write_series

from mri_seg.io.cases import find_cases
from mri_seg.io.load import LoadVolumed
from mri_seg.utils.case_flags import case_flags


def pages(file: Path, count: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, np.zeros((count, 4, 4), np.uint8), photometric="minisblack")
    return file


def flags(dataset_dir: Path) -> dict[str, list[str]]:
    """Names of the flags of each case."""
    return {case["case"]: [flag["name"] for flag in case_flags(case)] for case in find_cases(dataset_dir)}


class TestFolders:
    def test_find_cases_in_folders_of_patients(self, tmp_path: Path) -> None:
        touch(tmp_path, "TCGA_1/TCGA_1_1.tif", "TCGA_1/TCGA_1_2.tif", "TCGA_2/TCGA_2_1.tif", "TCGA_2/TCGA_2_2.tif")
        touch(tmp_path, "data.csv", "README.md")
        assert found(tmp_path) == {
            "TCGA_1": {"image": ["TCGA_1_1.tif", "TCGA_1_2.tif"]},
            "TCGA_2": {"image": ["TCGA_2_1.tif", "TCGA_2_2.tif"]},
        }

    def test_find_cases_in_folders_of_one_patient(self, tmp_path: Path) -> None:
        touch(tmp_path, "scan_1.tif", "scan_2.tif")
        assert found(tmp_path) == {"scan": {"image": ["scan_1.tif", "scan_2.tif"]}}

    def test_find_cases_names_folders_of_numbers_after_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path / "Jane", "1.tif", "2.tif")
        assert found(tmp_path) == {"Jane": {"image": ["1.tif", "2.tif"]}}
        monkeypatch.chdir(tmp_path / "Jane")
        assert list(found(".")) == ["Jane"]

    def test_find_cases_in_folders_of_slices_of_several_cases(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_1.tif", "a_2.tif", "b_1.tif", "b_2.tif")
        assert found(tmp_path) == {"a": {"image": ["a_1.tif", "a_2.tif"]}, "b": {"image": ["b_1.tif", "b_2.tif"]}}

    def test_find_cases_in_folders_of_nifti_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.nii.gz", "a.v2.nii", "C.NII.GZ", "notes.txt")
        assert found(tmp_path) == {
            "C": {"image": ["C.NII.GZ"]},
            "a.v2": {"image": ["a.v2.nii"]},
            "b": {"image": ["b.nii.gz"]},
        }

    def test_find_cases_in_folders_of_every_kind_at_once(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/s_1.tif", "x/s_2.tif", "y/z/deep.nii", "one.tiff")
        assert list(found(tmp_path)) == ["deep", "one", "s"]

    def test_folders_give_cases_sorted_by_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "2/z.nii", "3/a.nii", "1/m.nii")
        assert list(found(tmp_path)) == ["a", "m", "z"]

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii", "._a.nii", ".cache/b.nii", ".c_1.tif")
        assert list(found(tmp_path)) == ["a"]

    def test_links_in_circles_end(self, tmp_path: Path) -> None:
        touch(tmp_path, "p/a.nii")
        (tmp_path / "p" / "loop").symlink_to(tmp_path)
        assert list(found(tmp_path)) == ["a"]

    def test_linked_folders_are_searched(self, tmp_path: Path) -> None:
        touch(tmp_path / "store", "a.nii")
        (tmp_path / "cases").mkdir()
        (tmp_path / "cases" / "p").symlink_to(tmp_path / "store")
        assert list(found(tmp_path / "cases")) == ["a"]

    def test_folders_may_be_given_as_text(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii")
        (case,) = find_cases(str(tmp_path))
        assert case == {"case": "a", "image": [str(tmp_path / "a.nii")], "source": "volume"}


class TestOneFile:
    def test_find_cases_takes_one_file_whatever_its_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz")
        assert flags(tmp_path / "sub-1_T1w.nii.gz") == {"sub-1_T1w": ["named_other_contrast"]}

    @pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
    def test_find_cases_takes_one_nifti_file(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, name, "other.nii")
        assert found(tmp_path / name) == {"head": {"image": [name]}}

    def test_find_cases_takes_one_slice(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.tif", "other.tif")
        assert found(tmp_path / "head.tif") == {"head": {"image": ["head.tif"]}}

    def test_numbered_slice_leaves_its_neighbours(self, tmp_path: Path) -> None:
        touch(tmp_path, "head_1.tif", "head_2.tif")
        assert [case["image"] for case in found(tmp_path / "head_2.tif").values()] == [["head_2.tif"]]

    def test_find_cases_takes_one_file_of_several_pages(self, tmp_path: Path) -> None:
        file = pages(tmp_path / "head_3.tif", 4)
        assert [case["image"] for case in found(file).values()] == [["head_3.tif"]]

    def test_one_file_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.txt")
        with pytest.raises(ValueError, match=r"head\.txt: holds no case to segment"):
            find_cases(tmp_path / "head.txt")


class TestContrasts:
    def test_contrasts_of_bids_other_than_flair_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-1/ses-2/anat/sub-1_ses-2_FLAIR.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz")
        touch(tmp_path, "sub-2/anat/sub-2_acq-3D_FLAIR.nii.gz", "sub-2/dwi/sub-2_dwi.nii.gz")
        assert list(found(tmp_path)) == ["sub-1_ses-2_FLAIR", "sub-2_acq-3D_FLAIR"]

    @pytest.mark.parametrize("name", ["B_1_flair.nii.gz", "BraTS-GLI-00000-000-t2f.nii.gz", "ax FLAIR.nrrd"])
    def test_contrasts_beside_a_file_named_flair_are_passed_over(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, name, "x_t1.nii.gz", "x_t2.nii.gz", "x_seg.nii.gz")
        assert [case["image"] for case in found(tmp_path).values()] == [[name]]

    def test_contrasts_are_not_guessed_where_no_file_names_flair(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii", "b.mha", "c.nrrd", "d.mhd")
        assert list(found(tmp_path)) == ["a", "b", "c", "d"]

    @pytest.mark.parametrize("name", ["3DFLAIR", "T2FLAIR", "P_fla", "dark-fluid", "FLAIR_SPACE", "t2_spc_da-fl_sag"])
    def test_contrasts_of_any_name_of_flair_are_preferred(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, f"{name}.nii.gz", "P_T1.nii.gz", "T1.nii.gz", "AX_T1_FLAIR.nii.gz", "foo.nii.gz")
        assert list(found(tmp_path)) == [name]

    def test_contrasts_of_an_ambiguous_name_of_flair_are_taken_with_a_flag(self, tmp_path: Path) -> None:
        touch(tmp_path, "P_tirm.nii.gz", "P_T1.nii.gz", "Q_FLAIR.nii.gz", "R_FLAIR_Sub.nii.gz")
        assert flags(tmp_path) == {"P_tirm": ["perhaps_stir"], "Q_FLAIR": [], "R_FLAIR_Sub": ["perhaps_a_map"]}

    @pytest.mark.parametrize("name", ["P1_T1", "AX_T1_FLAIR", "t2w", "P1_mprage", "P1_ADC"])
    def test_contrasts_of_a_single_file_that_names_another_are_flagged(
        self, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        touch(tmp_path, f"{name}.nii.gz", "P2.nii.gz")
        assert flags(tmp_path) == {name: ["named_other_contrast"], "P2": []}
        assert any(name in message and "not FLAIR" in message for message in caplog.messages)

    @pytest.mark.parametrize(
        "names",
        [
            ["P1_T1", "P1_T2"],
            ["P1", "P1_T1"],
            ["case_0000", "case_0001", "case_0002", "case_0003"],
            ["T1", "T2", "ADC"],
        ],
    )
    def test_contrasts_of_one_patient_of_which_none_names_flair_are_an_error_that_lists_them(
        self, tmp_path: Path, names: list[str]
    ) -> None:
        touch(tmp_path, *(f"{name}.nii.gz" for name in names), "other.nii.gz")
        bad, good = sorted(find_cases(tmp_path), key=lambda case: "error" not in case)
        assert (good["case"], "error" in good) == ("other", False)
        assert f"expected one FLAIR image of a patient, found {len(names)}" in bad["error"]
        assert all(str(tmp_path / f"{name}.nii.gz") in bad["error"] for name in names)

    def test_contrasts_in_folders_named_after_them_are_of_one_patient(self, tmp_path: Path) -> None:
        touch(tmp_path, "P1/T1/a.nii", "P1/FLAIR/a.nii", "P2/3_AX_T1/b.nii", "P2/4_AX_FLAIR/c.nii")
        touch(tmp_path, "by/flair/x.nii", "by/t1/x.nii", "by/flair/y.nii")
        assert sorted(files(tmp_path)) == ["P1/FLAIR/a.nii", "P2/4_AX_FLAIR/c.nii", "by/flair/x.nii", "by/flair/y.nii"]

    def test_contrasts_of_slices_are_told_as_those_of_volumes(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"P_{name}_{n}.png" for name in ("flair", "t1", "t2") for n in (1, 2)))
        assert found(tmp_path) == {"P_flair": {"image": ["P_flair_1.png", "P_flair_2.png"]}}

    def test_contrasts_of_what_was_computed_of_a_flair_come_after_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "P1_FLAIR.nii.gz", "P1_FLAIR_bias.nii.gz", "P1_FLAIR_brain.nii.gz", "P2_FLAIR_bias.nii.gz")
        assert flags(tmp_path) == {"P1_FLAIR": [], "P2_FLAIR_bias": ["perhaps_bias_field"]}

    def test_contrasts_of_bids_sessions_are_of_a_patient_each(self, tmp_path: Path) -> None:
        for session in ("1", "2"):
            stem = f"sub-1/ses-{session}/anat/sub-1_ses-{session}"
            touch(tmp_path, f"{stem}_FLAIR.nii.gz", f"{stem}_T1w.nii.gz", f"{stem}_PDw.nii.gz")
        assert list(found(tmp_path)) == ["sub-1_ses-1_FLAIR", "sub-1_ses-2_FLAIR"]

    def test_contrasts_of_bids_say_nothing_of_other_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz", "P1.nii.gz")
        assert list(found(tmp_path)) == ["P1", "sub-1_FLAIR"]

    def test_contrasts_of_bids_without_flair_say_so(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
        with pytest.raises(ValueError, match=r"1 volume of another contrast \(sub-1_T1w\.nii\.gz\).*single file"):
            find_cases(tmp_path)


class TestDataSets:
    """nnU-Net's and the Medical Segmentation Decathlon's."""

    CHANNELS = ("T1", "T1ce", "T2", "FLAIR")

    def write(self, folder: Path, key: str, names: tuple[str, ...], *files: str) -> Path:
        touch(folder, *files)
        (folder / "dataset.json").write_text(json.dumps({key: dict(enumerate(names))}), encoding="utf-8")
        return folder

    @pytest.mark.parametrize("key", ["channel_names", "modality"])
    @pytest.mark.parametrize("below", ["", "imagesTr"])
    def test_data_sets_of_nnunet_name_the_channel_that_is_flair(self, tmp_path: Path, key: str, below: str) -> None:
        files = [f"imagesTr/{case}_{n:04}.nii.gz" for case in ("a", "b_1") for n in range(4)]
        self.write(tmp_path, key, self.CHANNELS, *files, "labelsTr/a.nii.gz", "labelsTr/b_1.nii.gz")
        cases = found(tmp_path / below)
        assert [case["image"] for case in cases.values()] == [["a_0003.nii.gz"], ["b_1_0003.nii.gz"]]
        if not below:
            assert [case["label"] for case in cases.values()] == [["a.nii.gz"], ["b_1.nii.gz"]]

    def test_data_sets_of_nnunet_without_a_description_are_an_error_of_each_case(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"imagesTr/{case}_{n:04}.nii.gz" for case in ("a", "b") for n in range(4)))
        cases = find_cases(tmp_path)
        assert [case["case"] for case in cases] == ["a", "b"]
        assert all("put nnU-Net's dataset.json beside the folder" in case["error"] for case in cases)

    def test_data_sets_of_nnunet_with_one_channel_are_cases_with_labels(self, tmp_path: Path) -> None:
        touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz")
        assert found(tmp_path) == {
            "a_0000": {"image": ["a_0000.nii.gz"], "label": ["a.nii.gz"]},
            "b_0000": {"image": ["b_0000.nii.gz"]},
        }

    def test_data_sets_of_one_channel_of_another_contrast_are_flagged(self, tmp_path: Path) -> None:
        self.write(tmp_path, "channel_names", ("T1w",), "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz")
        assert flags(tmp_path) == {name: ["named_other_contrast"] for name in ("a_0000", "b_0000")}

    @pytest.mark.parametrize(("names", "volume"), [(("FLAIR", "T1w", "t1gd", "T2w"), 0), (("T2w", "T2-FLAIR"), 1)])
    def test_data_sets_of_the_decathlon_name_the_volume_of_each_file(
        self, tmp_path: Path, names: tuple[str, ...], volume: int
    ) -> None:
        self.write(
            tmp_path, "modality", names, "imagesTr/B_001.nii.gz", "imagesTs/B_002.nii.gz", "labelsTr/B_001.nii.gz"
        )
        first, second = find_cases(tmp_path)
        assert (first["volume"], second["volume"]) == (volume, volume)
        assert [Path(file).parent.name for file in first["label"]] == ["labelsTr"]
        (given,) = find_cases(tmp_path / "imagesTs" / "B_002.nii.gz")
        assert given["volume"] == volume

    def test_volume_named_is_read_unless_the_user_names_another(self, tmp_path: Path) -> None:
        voxels = np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2)
        self.write(tmp_path, "modality", ("T1", "FLAIR"))
        (tmp_path / "imagesTr").mkdir()
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "imagesTr" / "a.nii")
        (case,) = find_cases(tmp_path)
        for options, volume in (({}, 1), ({"volume": 0}, 0)):
            image = LoadVolumed("image", **options)(case)["image"]
            np.testing.assert_array_equal(image[0], voxels[..., volume])

    @pytest.mark.parametrize("content", ["", "[1, 2]", '{"modality": 3}', '{"channel_names": {"red": 0}}'])
    def test_data_sets_described_otherwise_are_read_as_folders(self, tmp_path: Path, content: str) -> None:
        touch(tmp_path, "a.nii", "b.nii")
        (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
        assert list(found(tmp_path)) == ["a", "b"]

    def test_patients_numbered_with_four_digits_are_no_channels(self, tmp_path: Path) -> None:
        touch(tmp_path, "P_0001.nii.gz", "P_0002.nii.gz", "P_0003.nii.gz")
        assert list(found(tmp_path)) == ["P_0001", "P_0002", "P_0003"]


class TestLabels:
    @pytest.mark.parametrize(
        "label",
        [
            "P1_mask.nii.gz",
            "P1_label.nii",
            "P1-label.nrrd",
            "P1_segmentation.nii.gz",
            "P1_roi.nii.gz",
            "P1_lesion.nii.gz",
            "P1.seg.nrrd",
            "P1Mask.nii",
            "mask_P1.nii.gz",
            "P1_tumor_mask.mha",
            "masks/P1.nii.gz",
            "labelsTr/P1.nii.gz",
            "lesion_masks/P1_seg.nii.gz",
            "derivatives/drawn/P1_label-lesion_mask.nii.gz",
        ],
    )
    def test_labels_are_references_of_the_image_they_name_and_no_cases(self, tmp_path: Path, label: str) -> None:
        touch(tmp_path, "P1.nii.gz", "P2.nii.gz", label)
        assert found(tmp_path) == {
            "P1": {"image": ["P1.nii.gz"], "label": [Path(label).name]},
            "P2": {"image": ["P2.nii.gz"]},
        }

    def test_labels_belong_to_the_flair_of_their_patient(self, tmp_path: Path) -> None:
        touch(tmp_path, "B-0/B-0-t2f.nii.gz", "B-0/B-0-t1n.nii.gz", "B-0/B-0-seg.nii.gz")
        touch(tmp_path, "p/FLAIR.nii.gz", "p/T1.nii.gz", "p/mask.nii.gz", "q/Q_FLAIR.nii.gz", "q/Q_T1_mask.nii.gz")
        assert {name: case.get("label") for name, case in found(tmp_path).items()} == {
            "B-0-t2f": ["B-0-seg.nii.gz"],
            "FLAIR": ["mask.nii.gz"],
            "Q_FLAIR": None,
        }

    @pytest.mark.parametrize(
        "label",
        [
            "Segmentation.seg.nrrd",
            "Segmentation_1.nrrd",
            "P1_brain_mask.nii.gz",
            "P1_brainmask.nii.gz",
            "P1_dseg.nii.gz",
            "aseg.mgz",
            "P1_probability.nii.gz",
            "predictions/P1.nii.gz",
            "brain_masks/P1.nii.gz",
            "derivatives/bet/P1.nii.gz",
            "masks/other.nii.gz",
            "derivatives/sub-1_space-MNI_desc-lesion_mask.nii.gz",
        ],
    )
    def test_labels_of_other_things_are_neither_references_nor_cases(self, tmp_path: Path, label: str) -> None:
        touch(tmp_path, "P1.nii.gz", label)
        assert found(tmp_path) == {"P1": {"image": ["P1.nii.gz"]}}

    def test_labels_that_may_be_of_several_images_are_of_none(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.png", "b/1.png", "masks/1.png", "P.nii", "P_seg.nii", "P_label.nii")
        assert not any("label" in case for case in found(tmp_path).values())

    @pytest.mark.parametrize(
        ("images", "labels"),
        [("images/{}", "masks/{}"), ("{}/images", "{}/masks"), ("images/{}", "labels/{}"), ("{}", "gt/{}")],
    )
    def test_labels_of_slices_lie_in_folders_of_their_own(self, tmp_path: Path, images: str, labels: str) -> None:
        for patient in ("a", "b"):
            touch(tmp_path, *(f"{form.format(patient)}/{n}.png" for form in (images, labels) for n in (1, 2)))
        for case in find_cases(tmp_path):
            for image, label in zip(case["image"], case["label"], strict=True):
                image, label = Path(image).relative_to(tmp_path), Path(label).relative_to(tmp_path)
                assert label.name == image.name
                assert {"a", "b"} & set(label.parts) == {"a", "b"} & set(image.parts)

    def test_labels_in_a_folder_that_the_user_names_are_told_by_their_own_names_alone(self, tmp_path: Path) -> None:
        touch(tmp_path, "masks/P1.nii.gz", "masks/P2_mask.nii.gz")
        assert list(found(tmp_path / "masks")) == ["P1"]

    @pytest.mark.parametrize("name", ["P1_mask.nii.gz", "masks/P1.nii.gz", "s_1_mask.png", "Segmentation.seg.nrrd"])
    def test_labels_that_the_user_names_are_taken(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, name, "P1.nii.gz")
        (case,) = find_cases(tmp_path / name)
        assert case["image"] == [str(tmp_path / name)]

    def test_labels_of_data_sets_with_label_in_their_name_are_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "MSSEG_001_FLAIR.nii.gz", "MS-SEG_002_FLAIR.nii.gz")
        assert len(found(tmp_path)) == 2


class TestPictures:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
    def test_pictures_are_slices_as_tiff_files_are(self, tmp_path: Path, suffix: str) -> None:
        touch(tmp_path, *(f"s_{n}.{suffix}" for n in (10, 2, 1)))
        (case,) = find_cases(tmp_path)
        assert [Path(file).name for file in case["image"]] == [f"s_{n}.{suffix}" for n in (1, 2, 10)]
        assert case["source"] == "picture"

    def test_pictures_are_not_mixed_with_tiff_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1.tif", "s_2.tif", "s_1.png", "s_2.png")
        assert [case["source"] for case in find_cases(tmp_path)] == ["picture", "tiff"]


class TestDICOM:
    VOLUME = np.arange(3 * 8 * 6, dtype=np.int16).reshape(8, 6, 3)
    AFFINE = np.array([[0, -1.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1]])

    def write(self, folder: Path, **header: object) -> list[Path]:
        return write_series(folder, self.VOLUME, self.AFFINE, **header)

    def test_series_of_a_study_give_the_flair_wherever_its_files_lie(self, tmp_path: Path) -> None:
        study = {"study_uid": "1.2.3", "patient_id": "P 1", "StudyDate": "20200102"}
        flair = self.write(tmp_path / "a", series_uid="1.2.3.1", SeriesNumber=4, **study)
        self.write(tmp_path / "b", series_uid="1.2.3.2", description="AX T2", InversionTime=None, **study)
        (tmp_path / "c").mkdir()
        flair = [flair[0].rename(tmp_path / "c" / "moved"), *flair[1:]]
        (case,) = find_cases(tmp_path)
        assert case["case"] == "P_1_20200102_4"
        assert sorted(case["image"]) == sorted(map(str, flair))
        assert case["source"] == "dicom"
        assert case["series_uid"] == "1.2.3.1"
        assert case["series_description"] == "AX FLAIR"

    def test_a_study_without_flair_is_an_error_that_leaves_the_others(self, tmp_path: Path) -> None:
        for n, description in enumerate(("AX T1", "AX T2")):
            self.write(tmp_path / f"a{n}", study_uid="1.2.3", patient_id="A", description=description, EchoTime=10)
        self.write(tmp_path / "b", study_uid="1.2.4", patient_id="B")
        bad, good = find_cases(tmp_path)
        assert "AX T1" in bad["error"]
        assert "AX T2" in bad["error"]
        assert "series_uid" in bad["error"]
        assert "error" not in good

    def test_a_damaged_file_is_an_error_that_leaves_the_others(self, tmp_path: Path) -> None:
        self.write(tmp_path / "b", study_uid="1.2.4", patient_id="B")
        (tmp_path / "bad.dcm").write_bytes(b"damaged")
        good, bad = find_cases(tmp_path)
        assert "error" not in good
        assert str(tmp_path / "bad.dcm") in bad["error"]

    @pytest.mark.parametrize(
        ("header", "names"),
        [
            ({}, []),
            ({"EchoTime": None}, ["no_echo_time"]),
            ({"description": "AX T1", "EchoTime": 9}, ["named_other_contrast", "timing_not_flair"]),
            ({"description": "unknown", "EchoTime": 90, "InversionTime": 150}, ["timing_not_flair"]),
            ({"description": "FLAIR Sub"}, ["perhaps_a_map"]),
            ({"ImageType": ["DERIVED", "PRIMARY", "ADC"]}, ["not_flair_values"]),
        ],
    )
    def test_series_that_may_not_be_flair_are_flagged(self, tmp_path: Path, header: dict, names: list[str]) -> None:
        self.write(tmp_path, patient_id="P", study_uid="1.2.3", SeriesNumber=4, StudyDate="20200102", **header)
        assert flags(tmp_path) == {"P_20200102_4": names}

    def test_series_uid_takes_one_series_of_all(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a", study_uid="1.2.3", series_uid="1.2.3.1", patient_id="A")
        self.write(tmp_path / "b", study_uid="1.2.4", series_uid="1.2.4.1", patient_id="B")
        (case,) = find_cases(tmp_path, series_uid="1.2.4.1")
        assert {Path(file).parent.name for file in case["image"]} == {"b"}
        with pytest.raises(ValueError, match=r"(?s)no series 9\.9.*1\.2\.3\.1"):
            find_cases(tmp_path, series_uid="9.9")


class TestOrder:
    def test_slice_order_is_that_of_the_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"s_{n}.tif" for n in (10, 2, 1, 9, 100)))
        assert found(tmp_path)["s"]["image"] == ["s_1.tif", "s_2.tif", "s_9.tif", "s_10.tif", "s_100.tif"]

    def test_slice_order_holds_for_numbers_padded_with_zeros(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_010.tif", "s_002.tif", "s_001.tif")
        assert found(tmp_path)["s"]["image"] == ["s_001.tif", "s_002.tif", "s_010.tif"]

    @pytest.mark.parametrize("separator", ["_", "-", " ", ".", ""])
    def test_slice_order_does_not_mind_what_stands_before_the_number(self, tmp_path: Path, separator: str) -> None:
        touch(tmp_path, *(f"slice{separator}{n}.tif" for n in (11, 2)))
        assert found(tmp_path) == {"slice": {"image": [f"slice{separator}2.tif", f"slice{separator}11.tif"]}}

    def test_slice_order_goes_by_the_last_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "TCGA_CS_4941_19960909_2.tif", "TCGA_CS_4941_19960909_12.tif")
        assert list(found(tmp_path)) == ["TCGA_CS_4941_19960909"]


class TestMasks:
    def test_masks_become_labels_in_the_order_of_the_slices(self, tmp_path: Path) -> None:
        for n in (1, 2, 10):
            touch(tmp_path, f"s_{n}.tif", f"s_{n}_mask.tif")
        assert found(tmp_path) == {
            "s": {
                "image": ["s_1.tif", "s_2.tif", "s_10.tif"],
                "label": ["s_1_mask.tif", "s_2_mask.tif", "s_10_mask.tif"],
            }
        }

    def test_masks_are_left_out_when_one_is_missing(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1.tif", "s_1_mask.tif", "s_2.tif")
        assert found(tmp_path) == {"s": {"image": ["s_1.tif", "s_2.tif"]}}

    def test_masks_belong_to_files_of_several_pages_too(self, tmp_path: Path) -> None:
        pages(tmp_path / "head.tif", 3)
        pages(tmp_path / "head_mask.tif", 3)
        assert found(tmp_path) == {"head": {"image": ["head.tif"], "label": ["head_mask.tif"]}}

    def test_masks_belong_to_slices_of_the_same_folder_or_beside_a_folder_of_masks(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/s_1.tif", "b/s_1_mask.tif", "images/t_1.tif", "masks/t_1_mask.tif")
        assert found(tmp_path) == {
            "s": {"image": ["s_1.tif"]},
            "t": {"image": ["t_1.tif"], "label": ["t_1_mask.tif"]},
        }

    def test_masks_alone_are_no_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1_mask.tif")
        with pytest.raises(ValueError, match="holds no case"):
            find_cases(tmp_path)


class TestPages:
    def test_pages_of_one_file_make_a_case(self, tmp_path: Path) -> None:
        pages(tmp_path / "head.tif", 3)
        assert found(tmp_path) == {"head": {"image": ["head.tif"]}}

    def test_pages_of_several_numbered_files_make_a_case_each(self, tmp_path: Path) -> None:
        for n in (1, 2):
            pages(tmp_path / f"patient_{n}.tif", 3)
        assert found(tmp_path) == {
            "patient_1": {"image": ["patient_1.tif"]},
            "patient_2": {"image": ["patient_2.tif"]},
        }

    def test_pages_of_a_damaged_file_are_left_to_the_reader(self, tmp_path: Path) -> None:
        for n in (1, 2):
            (tmp_path / f"s_{n}.tif").write_bytes(b"damaged")
        assert found(tmp_path) == {"s": {"image": ["s_1.tif", "s_2.tif"]}}


class TestNames:
    def test_case_names_that_differ_in_case_alone_are_made_distinct(self, tmp_path: Path) -> None:
        touch(tmp_path, "one/FLAIR.nii", "two/flair.nii", "three/Flair.mha")
        assert set(found(tmp_path)) == {"one_FLAIR", "two_flair", "three_Flair"}

    def test_case_names_that_differ_in_case_alone_in_one_folder_get_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "HEAD.nrrd", "head.nrrd", "Straße.mha", "STRASSE.mha")
        names = [name.casefold() for name in found(tmp_path)]
        assert len(set(names)) == 4

    def test_case_names_with_numbers_never_become_that_of_another_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.nii", "x.mha", "x_1.nrrd")
        assert len({name.casefold() for name in found(tmp_path)}) == 3

    @pytest.mark.parametrize(("file", "name"), [("con.nii", "con_"), ("scan .nii.gz", "scan"), ("a:b.nrrd", "a_b")])
    def test_case_names_are_those_that_windows_allows(self, tmp_path: Path, file: str, name: str) -> None:
        touch(tmp_path, file)
        assert list(found(tmp_path)) == [name]

    def test_case_names_of_cases_in_different_folders_are_told_apart(self, tmp_path: Path) -> None:
        touch(tmp_path, "p1/flair_1.tif", "p1/flair_2.tif", "p2/day 1/flair.nii", "p3/other.nii")
        assert found(tmp_path) == {
            "other": {"image": ["other.nii"]},
            "p1_flair": {"image": ["flair_1.tif", "flair_2.tif"]},
            "p2_day 1_flair": {"image": ["flair.nii"]},
        }

    def test_case_names_of_cases_in_one_folder_get_a_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.nii", "head.nii.gz")
        assert found(tmp_path) == {"head_1": {"image": ["head.nii"]}, "head_2": {"image": ["head.nii.gz"]}}

    def test_case_names_that_become_the_same_by_the_folder_get_a_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/c.nii", "b/c.nii", "a_c.nii")
        assert list(found(tmp_path)) == ["a_c_1", "a_c_2", "b_c"]

    def test_case_names_are_told_apart_as_folders_of_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/day/1.tif", "x/day/2.tif", "y/day/1.tif", "y/day/2.tif")
        assert list(found(tmp_path)) == ["x_day_day", "y_day_day"]


class TestRefuses:
    @pytest.mark.parametrize("twin", ["s_01.tif", "s_1.tiff", "s-1.tif"])
    def test_find_cases_refuses_a_number_that_occurs_twice_in_that_case_alone(self, tmp_path: Path, twin: str) -> None:
        touch(tmp_path, "s_1.tif", "s_2.tif", twin, "other.nii")
        other, case = find_cases(tmp_path)
        assert "error" not in other
        assert "has slice number 1, like" in case["error"]
        assert twin in case["error"]
        assert "s_1.tif" in case["error"]

    def test_find_cases_refuses_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="gone: no such folder or file"):
            find_cases(tmp_path / "gone")

    def test_find_cases_refuses_what_is_empty(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/readme.txt", "b.csv")
        with pytest.raises(ValueError, match="holds no case"):
            find_cases(tmp_path)


class TestSeveralInputs:
    def test_cases_of_several_folders_and_files_are_found(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/one.nii.gz", "b/two.nii.gz", "b/notes.txt", "three_mask.nii")
        cases = find_cases([tmp_path / "a", tmp_path / "b", tmp_path / "three_mask.nii"])
        assert [case["case"] for case in cases] == ["one", "three_mask", "two"]

    def test_cases_with_the_same_name_get_the_folders_in_which_they_differ(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/flair.nii.gz", "b/x/FLAIR.nii.gz", "c/flair.nii")
        cases = find_cases([tmp_path / "a" / "flair.nii.gz", tmp_path / "b", tmp_path / "c" / "flair.nii"])
        assert [case["case"] for case in cases] == ["a_flair", "b_x_FLAIR", "c_flair"]

    def test_cases_with_the_same_name_in_one_folder_are_numbered(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.nii.gz", "head.nrrd")
        cases = find_cases([tmp_path / "head.nii.gz", tmp_path / "head.nrrd"])
        assert [case["case"] for case in cases] == ["head_1", "head_2"]

    def test_slices_named_one_by_one_are_one_volume_with_their_masks(self, tmp_path: Path) -> None:
        names = [f"P_{n}{end}.tif" for n in (1, 2, 10) for end in ("", "_mask")]
        touch(tmp_path, *names)
        (case,) = find_cases([tmp_path / name for name in names])
        assert [Path(file).name for file in case["image"]] == ["P_1.tif", "P_2.tif", "P_10.tif"]
        assert [Path(file).name for file in case["label"]] == ["P_1_mask.tif", "P_2_mask.tif", "P_10_mask.tif"]

    def test_volumes_that_are_named_are_all_taken_whatever_their_contrast(self, tmp_path: Path) -> None:
        touch(tmp_path, "P_t1.nii.gz", "P_flair.nii.gz")
        cases = find_cases([str(tmp_path / name) for name in ("P_t1.nii.gz", "P_flair.nii.gz")])
        assert [case["case"] for case in cases] == ["P_flair", "P_t1"]

    def test_dicom_files_named_one_by_one_are_one_series(self, tmp_path: Path) -> None:
        series = write_series(tmp_path / "s", np.zeros((4, 4, 3), np.uint16))
        (case,) = find_cases(series)
        assert len(case["image"]) == 3

    def test_input_given_twice_is_one_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/one.nii.gz")
        cases = find_cases([tmp_path, tmp_path / "a", tmp_path / "a" / "one.nii.gz", tmp_path / "a" / ".." / "a"])
        assert [case["case"] for case in cases] == ["one"]

    @pytest.mark.parametrize("name", ["empty", "notes.txt"])
    def test_input_without_a_case_is_named_among_others_that_have_one(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, "a/one.nii.gz", "notes.txt")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=rf"{name}: holds no case to segment.*Leave it out"):
            find_cases([tmp_path / "a", tmp_path / name])

    def test_input_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        touch(tmp_path, "one.nii.gz")
        with pytest.raises(FileNotFoundError, match=r"two\.nii\.gz: no such folder or file"):
            find_cases([tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"])

    def test_no_input_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="empty list"):
            find_cases([])

    def test_file_of_the_results_is_not_an_input(self, tmp_path: Path) -> None:
        touch(tmp_path, "flair.nii.gz", "result.nii.gz")
        cases = find_cases(tmp_path, exclude=tmp_path / "result.nii.gz")
        assert [case["case"] for case in cases] == ["flair"]
