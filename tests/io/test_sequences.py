"""Further sequences of a case are found beside its FLAIR image by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mri_seg.io.sequences import with_sequences, with_sequences_or_error


def write(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


def found(image: Path, *names: str) -> list[str]:
    case = with_sequences({"image": [str(image)]}, names)
    return [Path(file).name for file in case["sequences"]]


class TestNames:
    @pytest.mark.parametrize(
        ("flair", "names", "files"),
        [
            ("P1_flair.nii.gz", ("t1ce", "t2"), ("P1_t1ce.nii.gz", "P1_t2.nii.gz")),
            ("BraTS-GLI-00005-100-t2f.nii.gz", ("t1c",), ("BraTS-GLI-00005-100-t1c.nii.gz",)),
            ("flair.nrrd", ("T1",), ("t1.nrrd",)),
            ("sub-01_FLAIR.nii.gz", ("T1w",), ("sub-01_T1w.nii.gz",)),
            ("sub-01_FLAIR.nii.gz", ("ce-gd_T1w",), ("sub-01_ce-gd_T1w.nii.gz",)),
            ("P1_T2_FLAIR.mha", ("T2",), ("P1_T2.mha",)),
        ],
    )
    def test_sequence_differs_from_flair_in_its_own_name_alone(
        self, flair: str, names: tuple[str, ...], files: tuple[str, ...], tmp_path: Path
    ) -> None:
        suffix = flair[flair.index(".") :]
        others = ("P2_t1ce", "P1_t1ce_seg", "P10_t1ce", "sub-01_desc-x_T1w", "sub-02_T1w", "t1ce_old", "P1_t1", "P2_T2")
        image, *_ = write(tmp_path, flair, *files, *(f"{name}{suffix}" for name in others))
        assert found(image, *names) == list(files)

    def test_file_of_all_patients_is_no_sequence_of_one(self, tmp_path: Path) -> None:
        image, *_ = write(tmp_path, "P1_flair.nii.gz", "P2_flair.nii.gz", "t1ce.nii.gz")
        with pytest.raises(ValueError, match="sequence t1ce, found none"):
            found(image, "t1ce")

    def test_channel_of_nnunet_is_found_by_its_name_in_dataset_json(self, tmp_path: Path) -> None:
        names = {"0": "T1", "1": "FLAIR", "2": "T1-CE"}
        (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}))
        files = [f"{case}_000{channel}.nii.gz" for case in ("A_1", "A_2") for channel in range(3)]
        image = write(tmp_path / "imagesTr", *files)[4]
        assert image.name == "A_2_0001.nii.gz"
        assert found(image, "t1ce", "t1") == ["A_2_0002.nii.gz", "A_2_0000.nii.gz"]


class TestNoSequence:
    def test_missing_sequence_is_named_with_what_would_be_understood(self, tmp_path: Path) -> None:
        image, *_ = write(tmp_path, "P1_flair.nii.gz", "P1_t1.nii.gz")
        case = with_sequences_or_error({"image": [str(image)]}, ["t1ce"])
        assert case["error"].startswith(
            f"{image}: expected one volume beside it that is its sequence t1ce, found none."
        )
        assert "--datalist" in case["error"]

    def test_two_files_that_may_be_a_sequence_are_both_named(self, tmp_path: Path) -> None:
        image, *_ = write(tmp_path, "P1_flair.nii.gz", "P1_t1ce.nii.gz", "P1_T1-CE.nii.gz")
        with pytest.raises(ValueError, match=r"found 2 files \(P1_T1-CE.nii.gz, P1_t1ce.nii.gz\)"):
            found(image, "t1ce")

    @pytest.mark.parametrize("files", [("a_1.png", "a_2.png"), ("a.dcm",), ("a.tif",)])
    def test_slices_and_dicom_have_no_further_sequences(self, files: tuple[str, ...], tmp_path: Path) -> None:
        images = [str(file) for file in write(tmp_path, *files)]
        with pytest.raises(ValueError, match="--sequences takes volumes in one file"):
            with_sequences({"image": images}, ["t1ce"])

    def test_listed_volumes_and_names_must_be_as_many(self) -> None:
        case = {"image": ["flair.nii.gz"], "sequences": ["t1ce.nii.gz"]}
        assert with_sequences(case, ["any name"]) == case
        for names in ([], ["t1ce", "t2"]):
            with pytest.raises(ValueError, match=rf"lists 2 volumes, expected {1 + len(names)}: FLAIR"):
                with_sequences(case, names)

    def test_error_that_a_case_has_already_stays(self) -> None:
        case = {"image": ["a.png"], "error": "a.png: has no label."}
        assert with_sequences_or_error(case, ["t1ce"]) == case
