"""The TCGA-LGG data set: index, splits, check and fetch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mri_seg.datasets.lgg import (
    SHIPPED_SPLITS,
    Counts,
    check,
    datalist,
    fetch,
    find_patients,
    institution,
    load_split,
    slice_files,
)
from mri_seg.datasets.lgg.__main__ import main
from mri_seg.datasets.lgg.split import derive_splits, write_splits

PATIENT = "TCGA_CS_4941_19960909"
OTHER = "TCGA_DU_5851_19950428"
THIRD = "TCGA_HT_7473_19970826"


def write_image(path: Path, shape: tuple[int, ...] = (8, 6, 3), dtype: type = np.uint8) -> None:
    photometric = "rgb" if shape[-1] == 3 else "minisblack"
    tifffile.imwrite(path, np.full(shape, 7, dtype), photometric=photometric)


def write_mask(path: Path, values: tuple[int, ...] = (0, 255), shape: tuple[int, ...] = (8, 6)) -> None:
    tifffile.imwrite(path, np.resize(np.array(values, np.uint8), shape), photometric="minisblack")


def write_patient(parent: Path, patient: str = PATIENT, slices: int = 3) -> Path:
    """A patient whose first mask is empty and whose others show tumour."""
    folder = parent / patient
    folder.mkdir(parents=True)
    for number in range(1, slices + 1):
        write_image(folder / f"{patient}_{number}.tif")
        write_mask(folder / f"{patient}_{number}_mask.tif", (0,) if number == 1 else (0, 255))
    return folder


def write_split(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two patients, of 3 and 2 slices, beside what Kaggle's folder holds besides patients."""
    folder = tmp_path / "kaggle_3m"
    write_patient(folder, PATIENT, slices=3)
    write_patient(folder, OTHER, slices=2)
    (folder / "data.csv").write_text("Patient,tumor\n", encoding="utf-8")
    (folder / "README.md").write_text("# Data\n", encoding="utf-8")
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "split.json", {"training": {PATIENT: 3}, "validation": {OTHER: 2}})


class TestFindPatients:
    def test_finds_patients_and_ignores_everything_else(self, dataset: Path) -> None:
        (dataset / "notes").mkdir()
        (dataset / "notes" / "a.tif").touch()
        assert find_patients(dataset) == {PATIENT: dataset / PATIENT, OTHER: dataset / OTHER}

    def test_finds_patients_further_down(self, dataset: Path) -> None:
        assert list(find_patients(dataset.parent)) == [PATIENT, OTHER]

    def test_finds_the_folder_that_is_a_patient_itself(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(dataset / PATIENT)
        assert find_patients(".") == {PATIENT: Path(".")}

    def test_finds_a_patient_unpacked_into_a_folder_of_its_own_name(self, tmp_path: Path) -> None:
        inner = write_patient(tmp_path / PATIENT)
        assert find_patients(tmp_path) == {PATIENT: inner}

    def test_does_not_look_inside_patients(self, dataset: Path) -> None:
        write_patient(dataset / PATIENT / "old", PATIENT)
        assert find_patients(dataset)[PATIENT] == dataset / PATIENT

    def test_takes_patients_of_any_name(self, tmp_path: Path) -> None:
        write_patient(tmp_path, "my (own) case")
        assert list(find_patients(tmp_path)) == ["my (own) case"]

    def test_passes_over_hidden_folders_and_macos_leftovers(self, dataset: Path) -> None:
        write_patient(dataset / ".fetch-x", PATIENT)
        (dataset / "__MACOSX" / PATIENT).mkdir(parents=True)
        assert len(find_patients(dataset)) == 2

    def test_follows_links_but_not_in_circles(self, dataset: Path, tmp_path: Path) -> None:
        (dataset / "loop").symlink_to(dataset)
        (dataset / "alias").symlink_to(dataset / PATIENT)  # comes before the patient, whose files it does not name
        linked = tmp_path / "linked"
        linked.mkdir()
        (linked / THIRD).symlink_to(write_patient(tmp_path / "store", THIRD))
        (dataset / "more").symlink_to(linked)
        assert list(find_patients(dataset)) == [PATIENT, OTHER, THIRD]

    def test_refuses_the_same_patient_twice(self, dataset: Path) -> None:
        copy = write_patient(dataset / "lgg-mri-segmentation", PATIENT)
        with pytest.raises(ValueError, match="twice") as error:
            find_patients(dataset)
        assert str(copy) in str(error.value)
        assert str(dataset / PATIENT) in str(error.value)

    def test_refuses_a_patient_without_slices(self, dataset: Path) -> None:
        (dataset / THIRD).mkdir()
        with pytest.raises(ValueError, match=f"{THIRD}: a patient's folder without slices"):
            find_patients(dataset)

    def test_says_how_to_get_the_data_when_the_folder_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"python -m mri_seg\.datasets\.lgg fetch"):
            find_patients(tmp_path / "missing")

    def test_refuses_a_file(self, dataset: Path) -> None:
        with pytest.raises(NotADirectoryError, match=r"data\.csv"):
            find_patients(dataset / "data.csv")

    def test_refuses_a_folder_without_patients(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no patient found"):
            find_patients(tmp_path)


class TestSliceFiles:
    def test_orders_by_number_not_by_text(self, tmp_path: Path) -> None:
        folder = write_patient(tmp_path, slices=11)
        numbers, images, masks = zip(*slice_files(folder), strict=True)
        assert numbers == tuple(range(1, 12))
        assert images[9].name == f"{PATIENT}_10.tif"
        assert masks[9].name == f"{PATIENT}_10_mask.tif"

    @pytest.mark.parametrize(("kept", "lost"), [("_2.tif", "_2_mask.tif"), ("_2_mask.tif", "_2.tif")])
    def test_names_the_file_without_a_partner(self, tmp_path: Path, kept: str, lost: str) -> None:
        folder = write_patient(tmp_path)
        (folder / f"{PATIENT}{lost}").unlink()
        with pytest.raises(FileNotFoundError) as error:
            slice_files(folder)
        assert str(folder / f"{PATIENT}{kept}") in str(error.value)
        assert f"{PATIENT}{lost}" in str(error.value)

    def test_refuses_two_files_for_one_slice(self, tmp_path: Path) -> None:
        folder = write_patient(tmp_path)
        write_image(folder / f"{PATIENT}_02.tif")
        with pytest.raises(ValueError, match="slice 2 already exists"):
            slice_files(folder)

    def test_refuses_a_folder_without_slices(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no slices"):
            slice_files(tmp_path)


class TestInstitution:
    @pytest.mark.parametrize(("patient", "code"), [(PATIENT, "CS"), (OTHER, "DU"), ("case1", "unknown")])
    def test_is_the_second_part_of_the_name(self, patient: str, code: str) -> None:
        assert institution(patient) == code


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
    def test_reads_a_users_file(self, split: Path) -> None:
        expected = {"training": {PATIENT: 3}, "validation": {OTHER: 2}}
        assert load_split(split) == load_split(str(split)) == expected

    def test_reads_plain_lists_of_patients(self, tmp_path: Path) -> None:
        path = write_split(tmp_path / "s.json", {"description": "mine", "test": [PATIENT, OTHER], "training": {}})
        assert load_split(path) == {"test": {PATIENT: None, OTHER: None}, "training": {}}

    def test_lists_the_shipped_names_for_an_unknown_one(self) -> None:
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
    def test_names_the_malformed_file_and_its_problem(self, tmp_path: Path, content: object, problem: str) -> None:
        path = write_split(tmp_path / "mine.json", content)
        with pytest.raises(ValueError, match=problem) as error:
            load_split(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00{"])
    def test_refuses_a_file_that_is_not_json(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "mine.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.json: not a JSON file"):
            load_split(tmp_path / "mine.json")

    def test_refuses_a_patient_in_two_sections(self, tmp_path: Path) -> None:
        path = write_split(tmp_path / "mine.json", {"training": [PATIENT], "test": {PATIENT: 3}})
        with pytest.raises(ValueError, match=f"{PATIENT} is in two sections, 'training' and 'test'"):
            load_split(path)


class TestDatalist:
    def test_lists_a_case_a_patient_with_files_by_number(self, dataset: Path, split: Path) -> None:
        folder = dataset / PATIENT
        assert datalist(dataset, split, "training") == [
            {
                "image": [str(folder / f"{PATIENT}_{n}.tif") for n in (1, 2, 3)],
                "label": [str(folder / f"{PATIENT}_{n}_mask.tif") for n in (1, 2, 3)],
                "case": PATIENT,
            }
        ]

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

    def test_lists_the_first_ten_of_many(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match=r"89 patients missing: (TCGA_\w+, ){9}TCGA_\w+ and 79 more"):
            datalist(dataset, "published", "training")

    def test_refuses_a_section_of_which_nothing_is_there(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match="none of the 15 patients in section 'test'"):
            datalist(dataset, "published", "test", allow_missing=True)

    def test_names_the_known_sections(self, dataset: Path, split: Path) -> None:
        with pytest.raises(ValueError, match="no section 'test', expected training, validation or all"):
            datalist(dataset, split, "test")

    def test_works_with_the_shipped_splits(self, dataset: Path) -> None:
        with pytest.raises(ValueError, match=f"{PATIENT} \\(3 instead of 23\\)"):
            datalist(dataset, section="validation")
        assert len(datalist(dataset, "institution/CS", "validation", allow_missing=True)) == 1


def spoil(folder: Path, name: str, content: bytes | None = None) -> Path:
    """Replace a file's content, or cut the file in half."""
    path = folder / f"{PATIENT}{name}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    return path


def defects_of(dataset: Path) -> list[str]:
    return [str(defect) for defect in check(dataset).defects]


class TestCheck:
    def test_counts_by_institution(self, dataset: Path) -> None:
        write_patient(dataset, "TCGA_DU_5852_19950709", slices=4)
        report = check(dataset)
        assert report.institutions == {"CS": Counts(1, 3, 2), "DU": Counts(2, 6, 4)}
        assert report.total == Counts(patients=3, slices=9, tumor_slices=6)
        assert report.table().splitlines()[-1].split() == ["total", "3", "9", "6"]
        assert report.defects == []

    @pytest.mark.parametrize(("kept", "lost"), [("_2.tif", "_2_mask.tif"), ("_2_mask.tif", "_2.tif")])
    def test_finds_files_without_a_partner(self, dataset: Path, kept: str, lost: str) -> None:
        (dataset / PATIENT / f"{PATIENT}{lost}").unlink()
        (defect,) = defects_of(dataset)
        assert defect.startswith(str(dataset / PATIENT / f"{PATIENT}{kept}: its "))
        assert lost in defect

    def test_finds_gaps_in_the_numbering(self, dataset: Path) -> None:
        for number in (1, 3, 4):
            for name in (f"{THIRD}_{number}.tif", f"{THIRD}_{number}_mask.tif"):
                (dataset / THIRD).mkdir(exist_ok=True)
                (write_mask if "mask" in name else write_image)(dataset / THIRD / name)
        write_image(dataset / THIRD / f"{THIRD}_20000101.tif")
        write_mask(dataset / THIRD / f"{THIRD}_20000101_mask.tif")
        gap, long_gap = defects_of(dataset)
        assert gap.startswith(f"{dataset / THIRD / THIRD}_2.tif: gap")
        assert "slice 2 is missing" in gap
        assert "slices 5 to 20000100 are missing" in long_gap

    @pytest.mark.parametrize("name", ["_2.tif", "_2_mask.tif"])
    @pytest.mark.parametrize("content", [None, b"", b"not a TIFF", b"II*\0\0\0\0\0"])
    def test_finds_files_that_cannot_be_decoded(self, dataset: Path, name: str, content: bytes | None) -> None:
        path = spoil(dataset / PATIENT, name, content)
        (defect,) = defects_of(dataset)
        assert defect.startswith(f"{path}: cannot be decoded")
        assert "\n" not in defect

    def test_finds_files_with_several_images(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        tifffile.imwrite(path, np.zeros((2, 8, 6, 3), np.uint8), photometric="rgb")
        (defect,) = defects_of(dataset)
        assert "2 images in the file, expected 1" in defect

    def test_finds_an_image_of_another_size_than_the_patients_others(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_1.tif"
        write_image(path, (4, 6, 3))
        write_mask(dataset / PATIENT / f"{PATIENT}_1_mask.tif", shape=(4, 6))
        assert defects_of(dataset) == [f"{path}: shape (4, 6, 3), but most of the patient's slices are 8 x 6"]

    def test_finds_a_mask_of_another_size_than_its_image(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        write_mask(path, shape=(8, 8))
        assert defects_of(dataset) == [f"{path}: shape (8, 8), but its image is 8 x 6"]

    def test_finds_a_mask_with_channels(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        tifffile.imwrite(path, np.zeros((8, 6, 3), np.uint8), photometric="rgb")
        assert defects_of(dataset) == [f"{path}: shape (8, 6, 3), expected one channel (shape (H, W))"]

    def test_finds_images_with_other_than_three_channels(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        write_image(path, (8, 6))
        assert defects_of(dataset) == [f"{path}: 1 channel (shape (8, 6)), expected 3 (shape (H, W, 3))"]

    def test_finds_values_that_are_not_8_bit(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        write_image(path, dtype=np.uint16)
        mask = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        tifffile.imwrite(mask, np.zeros((8, 6), np.float32))
        assert defects_of(dataset) == [
            f"{path}: values of type uint16, expected uint8",
            f"{mask}: values of type float32, expected uint8",
        ]

    def test_finds_mask_values_between(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        write_mask(path, (0, 1, 2, 3, 4, 5, 6, 255))
        assert defects_of(dataset) == [f"{path}: values 1, 2, 3, 4, 5 and 1 more, expected 0 and 255 only"]

    def test_finds_patients_without_slices(self, dataset: Path) -> None:
        (dataset / THIRD).mkdir()
        assert defects_of(dataset) == [f"{dataset / THIRD}: a patient's folder without slices"]

    def test_finds_the_same_patient_twice_and_counts_it_once(self, dataset: Path) -> None:
        copy = write_patient(dataset / "lgg", PATIENT)
        spoil(copy, "_3.tif")
        twice, undecodable = defects_of(dataset)
        assert str(copy) in twice
        assert "twice" in twice
        assert str(dataset / PATIENT) in twice
        assert undecodable.startswith(str(copy))
        assert check(dataset).total == Counts(2, 5, 3)

    def test_finds_two_files_for_one_slice(self, dataset: Path) -> None:
        write_image(dataset / PATIENT / f"{PATIENT}_02.tif")
        (defect,) = defects_of(dataset)
        assert "slice 2 already exists" in defect


class TestCheckCommand:
    def test_prints_the_table_and_that_there_are_no_defects(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["check", str(dataset)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["CS", "1", "3", "2"]
        assert lines[3].split() == ["total", "2", "5", "3"]
        assert lines[4:] == ["no defects"]

    def test_prints_a_line_a_defect_and_fails(self, dataset: Path) -> None:
        # In a process of its own: what libraries log must not stand between the lines.
        spoil(dataset / PATIENT, "_2.tif", (dataset / PATIENT / f"{PATIENT}_2.tif").read_bytes()[:120])
        (dataset / PATIENT / f"{PATIENT}_3_mask.tif").unlink()
        done = subprocess.run(
            [sys.executable, "-m", "mri_seg.datasets.lgg", "check", str(dataset)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == ""
        *_, first, second, summary = done.stdout.splitlines()
        assert f"{PATIENT}_3.tif" in first
        assert f"{PATIENT}_2.tif" in second
        assert summary == "2 defects"

    @pytest.mark.parametrize("exists", [False, True])
    def test_says_in_one_line_that_there_is_no_data(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool
    ) -> None:
        folder = tmp_path if exists else tmp_path / "missing"
        assert main(["check", str(folder)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"error: {folder}: no ")
        assert output.err.count("\n") == 1


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for kagglehub whose cache holds the tree twice, as Kaggle's archive does."""
    download = tmp_path / "cache" / "versions" / "2"
    for tree in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
        write_patient(download / tree, PATIENT)
        write_patient(download / tree, OTHER, slices=2)
        (download / tree / "data.csv").touch()

    def dataset_download(handle: str) -> str:
        assert handle == "mateuszbuda/lgg-mri-segmentation"
        return str(download)

    module = types.ModuleType("kagglehub")
    module.dataset_download = dataset_download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return download


class TestFetch:
    def test_puts_the_patients_into_the_folder(self, kaggle: Path, tmp_path: Path) -> None:
        target = tmp_path / "data" / "lgg"
        assert fetch(target) == [PATIENT, OTHER]
        assert sorted(path.name for path in target.iterdir()) == [PATIENT, OTHER]
        assert len(slice_files(target / PATIENT)) == 3
        assert len(find_patients(kaggle / "kaggle_3m")) == 2  # the cache stays kagglehub's

    def test_leaves_patients_that_are_there(self, kaggle: Path, tmp_path: Path) -> None:
        mine = write_patient(tmp_path / "data" / "deeper", PATIENT, slices=1)
        (tmp_path / "data" / OTHER).mkdir()
        assert fetch(tmp_path / "data") == []
        assert len(slice_files(mine)) == 1
        assert list((tmp_path / "data" / OTHER).iterdir()) == []

    def test_leaves_no_part_of_a_patient_when_copying_fails(
        self, kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import shutil

        copyfile = shutil.copyfile

        def full_disk(source: Path, target: Path) -> None:
            if Path(source).name == f"{OTHER}_2.tif":
                raise OSError("No space left on device")
            copyfile(source, target)

        monkeypatch.setattr(shutil, "copyfile", full_disk)
        with pytest.raises(OSError, match="No space left"):
            fetch(tmp_path / "data")
        assert [path.name for path in (tmp_path / "data").iterdir()] == [PATIENT]
        assert len(slice_files(tmp_path / "data" / PATIENT)) == 3

    def test_refuses_a_download_without_the_data_set(self, kaggle: Path, tmp_path: Path) -> None:
        for folder in (kaggle / "kaggle_3m", kaggle / "lgg-mri-segmentation" / "kaggle_3m"):
            folder.rename(folder.with_name("renamed"))
        with pytest.raises(ValueError, match="no folder kaggle_3m"):
            fetch(tmp_path / "data")


class TestFetchCommand:
    def test_checks_what_it_fetched(self, kaggle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["fetch", str(tmp_path / "data")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"2 patients added to {tmp_path / 'data'}"
        assert lines[-1] == "no defects"

    def test_names_the_extra_when_kagglehub_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        assert main(["fetch", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert "pip install 'mri_seg[fetch]'" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "data").exists()

    def test_says_what_to_do_by_hand_when_the_download_fails(
        self, kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def offline(handle: str) -> str:
            raise ConnectionError("no route to host\n(tried 3 times)")

        monkeypatch.setattr(sys.modules["kagglehub"], "dataset_download", offline)
        assert main(["fetch", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert "ConnectionError: no route to host (tried 3 times)" in error
        assert error.count("\n") == 1
        assert "By hand: download the archive from https://www.kaggle.com/datasets/mateuszbuda/" in error


@pytest.fixture
def real_dataset() -> Path:
    folder = os.environ.get("MRI_SEG_DATASET", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the environment variable MRI_SEG_DATASET does not name a folder with the TCGA-LGG patients")
    return Path(folder)


@pytest.mark.real_data
class TestRealData:
    def test_has_no_defects(self, real_dataset: Path) -> None:
        report = check(real_dataset)
        assert report.defects == []
        # A folder fetched from Kaggle holds the 15 published test patients, too.
        if report.total.patients == 95:
            assert report.total == Counts(patients=95, slices=3576, tumor_slices=1253)

    def test_matches_every_shipped_split(self, real_dataset: Path) -> None:
        for name in SHIPPED_SPLITS:
            cases = [*datalist(real_dataset, name, "training"), *datalist(real_dataset, name, "validation")]
            assert len(cases) == 95
            assert sum(len(case["image"]) for case in cases) == 3576
