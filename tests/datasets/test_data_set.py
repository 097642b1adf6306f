"""Forms that need a decision, splits by patient, lists of cases, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from data_set_forms import FORMS, PATIENTS, Case, make_cases, nifti

from mri_seg.datasets.data_set import DataSet, datalist, write_split
from mri_seg.datasets.splits import random_split

VOLUME = make_cases()[0].image
LABEL = make_cases()[0].label


def pair(root: Path, name: str, label: str = "_mask") -> None:
    nifti(root / f"{name}.nii.gz", VOLUME)
    nifti(root / f"{name}{label}.nii.gz", LABEL)


def write_list(file: Path, **sections: list[Any]) -> Path:
    file.write_text(json.dumps(sections))
    return file


@pytest.fixture
def cases() -> list[Case]:
    return make_cases()


class TestForms:
    @pytest.mark.parametrize("form", ["pairs with _mask", "BraTS", "nnU-Net", "MSD", "BIDS"])
    def test_a_line_of_the_log_says_the_form_that_was_found(
        self, form: str, cases: list[Case], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        FORMS[form](tmp_path, cases)
        with caplog.at_level(logging.INFO, "mri_seg.datasets"):
            found = DataSet(tmp_path)
        lines = [line for line in caplog.messages if "4 cases of 4 patients" in line]
        assert len(lines) == 1
        assert found.found.form in lines[0]

    def test_folder_without_a_label_is_refused_in_one_line_that_says_what_is_there(self, tmp_path: Path) -> None:
        for name in PATIENTS:
            nifti(tmp_path / f"{name}.nii.gz", VOLUME)
        (tmp_path / "notes.zip").write_bytes(b"PK")
        with pytest.raises(ValueError, match="holds 4 images and no label of any of them; 1 zip file") as error:
            DataSet(tmp_path)
        for words in ("nnU-Net", "BIDS", "MSD", "DICOM SEG", "pairs", "TCGA-LGG", "--datalist"):
            assert words in str(error.value)
        assert "\n" not in str(error.value)
        assert "fetch" not in str(error.value)

    @pytest.mark.parametrize("name", ["mine", "kaggle_3m"])
    def test_only_the_folder_of_tcga_lgg_is_offered_to_be_fetched(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such folder") as error:
            DataSet(tmp_path / name)
        assert ("mri_seg.datasets.lgg fetch" in str(error.value)) is (name == "kaggle_3m")

    def test_nnunet_without_a_flair_channel_is_refused_with_its_channels(
        self, cases: list[Case], tmp_path: Path
    ) -> None:
        FORMS["nnU-Net"](tmp_path, cases)
        (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
        with pytest.raises(ValueError, match=r"expected one channel named FLAIR .* channel 0 is T1, 1 is T2"):
            DataSet(tmp_path)

    def test_label_that_no_case_uses_is_warned_of(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        pair(tmp_path, "P01_FLAIR")
        pair(tmp_path, "P02_T1", "_seg")
        assert [case["case"] for case in datalist(tmp_path, "all")] == ["P01_FLAIR"]
        (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "P02_T1_seg.nii.gz: this label has no image" in warning

    def test_nnunet_with_labels_of_test_images_has_a_test_section(self, cases: list[Case], tmp_path: Path) -> None:
        FORMS["nnU-Net"](tmp_path, cases)
        for folder, name in (("imagesTs", "T01_0001"), ("labelsTs", "T01")):
            nifti(tmp_path / folder / f"{name}.nii.gz", LABEL)
        data_set = DataSet(tmp_path)
        assert [case["case"] for case in datalist(data_set, "random:2:1", "test")] == ["T01"]
        assert "T01" not in {case["case"] for case in datalist(data_set, "all")}

    def test_bids_mask_is_that_of_the_lesion_and_of_the_same_run(self, tmp_path: Path) -> None:
        for run in ("1", "2"):
            nifti(tmp_path / "sub-1" / "anat" / f"sub-1_run-{run}_FLAIR.nii.gz", VOLUME)
            masks = tmp_path / "derivatives" / "x" / "sub-1" / "anat"
            nifti(masks / f"sub-1_run-{run}_label-lesion_mask.nii.gz", LABEL)
            nifti(masks / f"sub-1_run-{run}_label-ventricle_mask.nii.gz", LABEL)
            nifti(masks / f"sub-1_run-{run}_space-MNI152_label-lesion_mask.nii.gz", LABEL)
        found = datalist(tmp_path, "all")
        assert {case["patient"] for case in found} == {"sub-1"}
        for case in found:
            (label,) = case["label"]
            assert Path(label).name == f"{case['case'].removesuffix('_FLAIR')}_label-lesion_mask.nii.gz"

    def test_bids_mask_that_fits_two_images_is_refused(self, tmp_path: Path) -> None:
        for run in ("1", "2"):
            nifti(tmp_path / "sub-1" / "anat" / f"sub-1_run-{run}_FLAIR.nii.gz", VOLUME)
        nifti(tmp_path / "derivatives" / "sub-1" / "anat" / "sub-1_label-lesion_mask.nii.gz", LABEL)
        with pytest.raises(ValueError, match="fits several images"):
            datalist(tmp_path, "all")

    def test_missing_label_is_refused_and_left_out_only_when_allowed(self, tmp_path: Path) -> None:
        for name in PATIENTS[:2]:
            pair(tmp_path, name)
        nifti(tmp_path / "P09.nii.gz", VOLUME)
        with pytest.raises(ValueError, match=r"P09\.nii\.gz: has no label"):
            datalist(tmp_path, "all")
        assert [case["case"] for case in datalist(tmp_path, "all", allow_missing=True)] == ["P01", "P02"]


class TestRandomSplit:
    @staticmethod
    def make(patients: int, scans: int = 2) -> list[dict[str, str]]:
        return [
            {"case": f"{n}_{scan}", "patient": f"{n:02d}", "institution": "AB"[n % 3 == 0]}
            for n in range(patients)
            for scan in range(scans)
        ]

    def test_folds_of_a_seed_are_disjoint_cover_all_patients_and_are_balanced_by_institution(self) -> None:
        cases = self.make(30)
        folds = [set(random_split(cases, f"random:5:{fold}", 3).sections["validation"]) for fold in range(5)]
        assert sorted(patient for fold in folds for patient in fold) == sorted({case["patient"] for case in cases})
        place = {case["patient"]: case["institution"] for case in cases}
        assert {sum(place[patient] == "B" for patient in fold) for fold in folds} == {2}
        assert {len(fold) for fold in folds} == {6}

    def test_draw_depends_on_the_seed_and_not_on_the_order_of_the_cases(self) -> None:
        cases = self.make(20)
        first = random_split(cases, "random:4:1", 0)
        assert random_split(cases[::-1], "random:4:1", 0) == first
        assert random_split(cases, "random:4:1", 1) != first

    @pytest.mark.parametrize("name", ["random:5:5", "random:1:0", "random:5", "random:a:0", "random:9:0"])
    def test_folds_that_cannot_be_drawn_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="--split"):
            random_split(self.make(8), name, 0)

    def test_visits_of_a_patient_stay_together(self, tmp_path: Path) -> None:
        for subject in "1234":
            for visit in "ab":
                folder = tmp_path / f"sub-{subject}" / f"ses-{visit}" / "anat"
                stem = f"sub-{subject}_ses-{visit}"
                nifti(folder / f"{stem}_FLAIR.nii.gz", VOLUME)
                masks = tmp_path / "derivatives" / "m" / folder.relative_to(tmp_path)
                nifti(masks / f"{stem}_label-lesion_mask.nii.gz", LABEL)
        sections = [datalist(tmp_path, "random:4:2", section) for section in ("training", "validation")]
        assert [len(section) for section in sections] == [6, 2]
        assert len({case["patient"] for case in sections[1]}) == 1

    def test_table_beside_pairs_says_which_cases_are_of_one_patient(self, tmp_path: Path) -> None:
        for name in "abcd":
            pair(tmp_path, name)
        (tmp_path / "cases.csv").write_text("case,group,site\na,X,1\nb,X,1\nc,Y,2\nd,Z,2\n")
        assert {case["case"]: case["patient"] for case in datalist(tmp_path, "all")} == dict(zip("abcd", "XXYZ"))
        with pytest.raises(ValueError, match="needs 4 patients or more, found 3"):
            datalist(tmp_path, "random:4:0")


class TestWrittenSplit:
    def test_split_of_a_run_is_read_again_and_gives_the_same_cases(self, tmp_path: Path) -> None:
        for name in PATIENTS:
            pair(tmp_path / "data", name)
        drawn = {s: datalist(tmp_path / "data", "random:2:0", s, seed=5) for s in ("training", "validation")}
        write_split(tmp_path, *drawn.values())
        assert "seed 5" in json.loads((tmp_path / "split.json").read_text())["description"]
        for section, cases in drawn.items():
            assert datalist(tmp_path / "data", tmp_path / "split.json", section) == cases

    def test_resuming_is_refused_if_new_patients_change_the_draw(self, tmp_path: Path) -> None:
        for name in PATIENTS:
            pair(tmp_path / "data", name)
        write_split(tmp_path, datalist(tmp_path / "data"))
        (tmp_path / "checkpoint_iteration=1.pt").write_bytes(b"")
        write_split(tmp_path, datalist(tmp_path / "data"))
        pair(tmp_path / "data", "P00")
        with pytest.raises(ValueError, match="another split"):
            write_split(tmp_path, datalist(tmp_path / "data"))

    def test_split_file_that_puts_visits_of_a_patient_into_two_sections_is_refused(self, tmp_path: Path) -> None:
        for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
            pair(tmp_path / "data", name)
        split = write_list(
            tmp_path / "s.json",
            training=["BraTS-GLI-00001-000", "BraTS-GLI-00002-000"],
            validation=["BraTS-GLI-00001-001"],
        )
        with pytest.raises(ValueError, match="patient BraTS-GLI-00001 is in two sections"):
            datalist(tmp_path / "data", split)


class TestDatalist:
    @pytest.fixture
    def entries(self, tmp_path: Path) -> list[dict[str, Any]]:
        for name in PATIENTS:
            pair(tmp_path / "data", name)
        return [{"image": f"{name}.nii.gz", "label": f"{name}_mask.nii.gz"} for name in PATIENTS]

    def test_paths_start_from_the_data_set_or_from_the_list(self, entries: list[dict], tmp_path: Path) -> None:
        elsewhere = write_list(tmp_path / "l.json", training=entries)
        beside = write_list(tmp_path / "data" / "l.json", training=entries)
        found = datalist(DataSet(tmp_path / "data", elsewhere), "all")
        assert datalist(DataSet(tmp_path / "nowhere", beside), "all") == found
        with pytest.raises(FileNotFoundError, match=r"entry 1 of training: image: P01\.nii\.gz: no such file"):
            DataSet(tmp_path / "nowhere", elsewhere)

    def test_folds_of_the_list_are_for_validation_in_turn(self, entries: list[dict], tmp_path: Path) -> None:
        file = write_list(tmp_path / "l.json", training=[{**one, "fold": n % 2} for n, one in enumerate(entries)])
        data_set = DataSet(tmp_path / "data", file)
        assert [case["case"] for case in datalist(data_set, section="validation")] == ["P01", "P03"]
        assert [case["case"] for case in datalist(data_set, "fold:1", "validation")] == ["P02", "P04"]
        with pytest.raises(ValueError, match="expected a fold of the data set: fold:0, fold:1"):
            datalist(data_set, "fold:2")

    def test_list_without_validation_trains_without_it(self, entries: list[dict], tmp_path: Path) -> None:
        file = write_list(tmp_path / "l.json", training=entries[:3], test=entries[3:])
        data_set = DataSet(tmp_path / "data", file)
        assert datalist(data_set, "own", "validation", optional=True) == []
        assert len(datalist(data_set, "own", "training")) == 3

    def test_group_of_an_entry_is_its_patient_and_may_not_be_in_two_sections(
        self, entries: list[dict], tmp_path: Path
    ) -> None:
        entries = [{**one, "group": "A", "institution": "X"} for one in entries]
        file = write_list(tmp_path / "l.json", training=entries[:3], validation=entries[3:])
        with pytest.raises(ValueError, match=r"patient A is in two sections, 'training' .* and 'validation'"):
            datalist(DataSet(tmp_path / "data", file))

    def test_slices_of_a_case_are_a_list(self, cases: list[Case], tmp_path: Path) -> None:
        FORMS["images and masks of PNG slices"](tmp_path, cases)
        files = {
            key: [f"{folder}/P01_{n:03d}.png" for n in (1, 2, 3, 4)]
            for key, folder in (("image", "images"), ("label", "masks"))
        }
        (case,) = datalist(DataSet(tmp_path, write_list(tmp_path / "l.json", training=[files])), "all")
        assert case["case"] == "P01"
        assert len(case["image"]) == 4

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"image": 5}, "image is '5', expected a path"),
            ({"fold": "one"}, "fold is 'one', expected a whole number"),
            ({"image": ["P01.nii.gz", "l.json"]}, "image lists 1 volumes and 1 other files"),
            ({"image": "P02.nii.gz"}, "twice, under training and training"),
        ],
    )
    def test_faulty_entries_are_named(self, change: dict, problem: str, entries: list[dict], tmp_path: Path) -> None:
        file = write_list(tmp_path / "l.json", training=[{**entries[0], **change}, *entries[1:]])
        with pytest.raises(ValueError, match=problem) as error:
            DataSet(tmp_path / "data", file)
        assert str(file) in str(error.value)

    def test_volumes_of_an_entry_are_flair_and_the_sequences_that_the_option_names(
        self, entries: list[dict], tmp_path: Path
    ) -> None:
        entries[0]["image"] = ["P01.nii.gz", "P02.nii.gz"]
        found = DataSet(tmp_path / "data", write_list(tmp_path / "data" / "list.json", training=entries[:1]))
        (case,) = datalist(found, "all", sequences=["t1ce"])
        assert [Path(name).name for name in (*case["image"], *case["sequences"])] == entries[0]["image"]
        with pytest.raises(ValueError, match=r"lists 2 volumes, expected 1: FLAIR\. Name those beside FLAIR"):
            datalist(found, "all")

    @pytest.mark.parametrize("content", ["{", "[]", '{"training": {}}', '{"train": []}', '{"training": ["a"]}'])
    def test_files_that_list_no_case_are_refused(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "l.json").write_text(content)
        with pytest.raises(ValueError, match=r"l\.json: "):
            DataSet(tmp_path, tmp_path / "l.json")


def test_volumes_of_one_name_in_folders_of_patients_are_told_apart(tmp_path: Path) -> None:
    for name in PATIENTS:
        nifti(tmp_path / name / "flair.nii.gz", VOLUME)
        nifti(tmp_path / name / "seg.nii.gz", LABEL)
    found = datalist(tmp_path, "all")
    assert [case["patient"] for case in found] == list(PATIENTS)
    assert all(np.asarray(nibabel.load(case["label"][0]).dataobj).max() == 1 for case in found)
