"""Which patients are for what."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import pytest
from lgg_folders import OTHER, PATIENT, THIRD, write_patient

from mri_seg.datasets.lgg import (
    SHIPPED_SPLITS,
    Counts,
    check,
    datalist,
    institution,
    load_split,
)
from mri_seg.datasets.lgg.split import derive_splits, write_splits


def write_split(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "split.json", {"training": {PATIENT: 3}, "validation": {OTHER: 2}})


class TestShippedSplits:
    def test_published_has_the_baselines_slices(self) -> None:
        sections = load_split("published")
        assert {name: len(patients) for name, patients in sections.items()} == {
            "training": 90,
            "validation": 5,
            "test": 15,
        }
        assert [sum(patients.values()) for patients in sections.values()] == [3329, 247, 353]

    def test_files_are_what_is_derived_from_the_published_split(self, tmp_path: Path) -> None:
        shipped = resources.files("mri_seg.datasets.lgg") / "splits"
        published = json.loads((shipped / "published.json").read_text(encoding="utf-8"))
        assert tuple(derive_splits(published)) == SHIPPED_SPLITS
        write_splits(tmp_path)
        for name in SHIPPED_SPLITS:
            assert (shipped / f"{name}.json").read_bytes() == (tmp_path / f"{name}.json").read_bytes()

    @pytest.mark.parametrize("name", SHIPPED_SPLITS)
    def test_every_one_keeps_the_published_test_patients(self, name: str) -> None:
        sections, published = load_split(name), load_split("published")
        assert sections["test"] == published["test"]
        assert {**sections["training"], **sections["validation"]} == {
            **published["training"],
            **published["validation"],
        }

    @pytest.mark.parametrize(("code", "patients"), [("CS", 2), ("DU", 44), ("FG", 14), ("HT", 34)])
    def test_institution_is_left_out_of_training(self, code: str, patients: int) -> None:
        sections = load_split(f"institution/{code}")
        assert {institution(patient) for patient in sections["validation"]} == {code}
        assert len(sections["validation"]) == patients
        assert code not in {institution(patient) for patient in sections["training"]}
        assert "EZ" in {institution(patient) for patient in sections["training"]}

    def test_folds_part_the_patients_evenly_by_institution(self) -> None:
        folds = [list(load_split(f"folds/{fold}")["validation"]) for fold in range(1, 6)]
        assert [len(fold) for fold in folds] == [19] * 5
        assert len({patient for fold in folds for patient in fold}) == 95
        for code in ("CS", "DU", "EZ", "FG", "HT"):
            shares = [sum(institution(patient) == code for patient in fold) for fold in folds]
            assert max(shares) - min(shares) <= 1


class TestLoadSplit:
    def test_load_split_reads_a_users_file(self, split: Path) -> None:
        expected = {"training": {PATIENT: 3}, "validation": {OTHER: 2}}
        assert load_split(split) == load_split(str(split)) == expected

    def test_load_split_reads_plain_lists_of_patients(self, tmp_path: Path) -> None:
        path = write_split(tmp_path / "s.json", {"description": "mine", "test": [PATIENT, OTHER], "training": {}})
        assert load_split(path) == {"test": {PATIENT: None, OTHER: None}, "training": {}}

    def test_load_split_lists_the_shipped_names_for_an_unknown_one(self) -> None:
        with pytest.raises(ValueError, match="neither a shipped split nor a file") as error:
            load_split("publishd")
        assert "institution/CS" in str(error.value)
        assert "path of a JSON file" in str(error.value)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ([PATIENT], "holds a list"),
            ({}, "no sections"),
            ({"description": "nothing else"}, "no sections"),
            ({"train": [PATIENT]}, "'train' is not a section"),
            ({"training": PATIENT}, "'training' is a str"),
            ({"training": [1]}, "lists 1"),
            ({"training": {PATIENT: "3"}}, "gives '3' slices"),
            ({"training": {PATIENT: True}}, "gives True slices"),
            ({"training": {PATIENT: 0}}, "gives 0 slices"),
        ],
    )
    def test_load_split_names_the_malformed_file_and_its_problem(
        self, tmp_path: Path, content: object, problem: str
    ) -> None:
        path = write_split(tmp_path / "mine.json", content)
        with pytest.raises(ValueError, match=problem) as error:
            load_split(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00{"])
    def test_load_split_refuses_a_file_that_is_not_json(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "mine.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.json: not a JSON file"):
            load_split(tmp_path / "mine.json")

    def test_load_split_refuses_a_patient_in_two_sections(self, tmp_path: Path) -> None:
        path = write_split(tmp_path / "mine.json", {"training": [PATIENT], "test": {PATIENT: 3}})
        with pytest.raises(ValueError, match=f"{PATIENT} is in two sections, 'training' and 'test'"):
            load_split(path)


class TestDatalist:
    def test_datalist_lists_a_case_a_patient_with_files_by_number(self, dataset: Path, split: Path) -> None:
        folder = dataset / PATIENT
        assert datalist(dataset, split, "training") == [
            {
                "image": [str(folder / f"{PATIENT}_{n}.tif") for n in (1, 2, 3)],
                "label": [str(folder / f"{PATIENT}_{n}_mask.tif") for n in (1, 2, 3)],
                "case": PATIENT,
                "patient": PATIENT,
                "group": "CS",
            }
        ]

    def test_patients_whose_names_are_not_tcgas_have_no_group(self, tmp_path: Path) -> None:
        write_patient(tmp_path / "data", "patient_07")
        split = write_split(tmp_path / "s.json", {"test": ["patient_07"]})
        assert [case["group"] for case in datalist(tmp_path / "data", split, "test")] == [""]

    def test_all_is_every_patient_of_the_split_sorted(self, dataset: Path, tmp_path: Path) -> None:
        split = write_split(tmp_path / "s.json", {"training": [OTHER], "test": [PATIENT]})
        assert [case["case"] for case in datalist(dataset, split, "all")] == [PATIENT, OTHER]

    def test_sections_are_joined_by_a_plus(self, dataset: Path, tmp_path: Path) -> None:
        split = write_split(tmp_path / "s.json", {"training": [OTHER], "validation": [PATIENT], "test": [THIRD]})
        assert [case["case"] for case in datalist(dataset, split, "training+validation")] == [PATIENT, OTHER]
        with pytest.raises(ValueError, match="has no section 'validaton'"):
            datalist(dataset, split, "training+validaton")

    def test_only_the_section_asked_for_must_be_complete(self, dataset: Path, tmp_path: Path) -> None:
        split = write_split(tmp_path / "s.json", {"training": [OTHER, PATIENT], "test": [THIRD]})
        assert len(datalist(dataset, split, "training")) == 2
        with pytest.raises(ValueError, match=f"1 patient missing: {THIRD}"):
            datalist(dataset, split, "all")

    @pytest.mark.parametrize(
        ("sections", "problem"),
        [
            ({"training": [PATIENT, OTHER, THIRD]}, f"1 patient missing: {THIRD}"),
            ({"training": {PATIENT: 3, OTHER: 4}}, f"than in the split: {OTHER} \\(2 instead of 4\\)"),
            ({"training": [PATIENT]}, f"1 patient in no section of the split: {OTHER}"),
        ],
    )
    def test_a_folder_that_does_not_match_is_an_error_unless_allowed(
        self, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, sections: dict, problem: str
    ) -> None:
        split = write_split(tmp_path / "s.json", sections)
        with pytest.raises(ValueError, match=problem) as error:
            datalist(dataset, split)
        assert "allow_missing" in str(error.value)

        cases = [case["case"] for case in datalist(dataset, split, allow_missing=True)]
        assert cases == [patient for patient in (PATIENT, OTHER) if patient in sections["training"]]
        assert f"with {len(cases)} of {len(sections['training'])} patients" in caplog.text

    def test_datalist_lists_the_first_ten_of_many(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match=r"89 patients missing: (TCGA_\w+, ){9}TCGA_\w+ and 79 more"):
            datalist(dataset, "published", "training")

    def test_datalist_refuses_a_section_of_which_nothing_is_there(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match="none of the 15 patients in section 'test'"):
            datalist(dataset, "published", "test", allow_missing=True)

    def test_datalist_names_the_known_sections(self, dataset: Path, split: Path) -> None:
        with pytest.raises(ValueError, match="no section 'test', expected training, validation or all"):
            datalist(dataset, split, "test")

    def test_datalist_works_with_the_shipped_splits(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match=f"{PATIENT} \\(3 instead of 23\\)"):
            datalist(dataset, section="validation")
        assert len(datalist(dataset, "institution/CS", "validation", allow_missing=True)) == 1


@pytest.fixture
def real_dataset() -> Path:
    folder = os.environ.get("MRI_SEG_DATASET", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the environment variable MRI_SEG_DATASET does not name a folder with the TCGA-LGG patients")
    return Path(folder)


@pytest.mark.real_data
class TestRealData:
    def test_real_data_set_has_no_defects(self, real_dataset: Path) -> None:
        report = check(real_dataset)
        assert report.defects == []
        # A folder fetched from Kaggle holds the 15 published test patients, too.
        if report.total.patients == 95:
            assert report.total == Counts(patients=95, slices=3576, tumor_slices=1253)

    def test_real_data_set_matches_every_shipped_split(self, real_dataset: Path) -> None:
        for name in SHIPPED_SPLITS:
            cases = [*datalist(real_dataset, name, "training"), *datalist(real_dataset, name, "validation")]
            assert len(cases) == 95
            assert sum(len(case["image"]) for case in cases) == 3576
