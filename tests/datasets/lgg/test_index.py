"""Patients and slices of a TCGA-LGG folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from lgg_folders import OTHER, PATIENT, THIRD, write_image, write_patient

from mri_seg.datasets.lgg import (
    find_patients,
    institution,
    slice_files,
)


class TestFindPatients:
    def test_find_patients_finds_patients_and_ignores_everything_else(self, dataset: Path) -> None:
        (dataset / "notes").mkdir()
        (dataset / "notes" / "a.tif").touch()
        assert find_patients(dataset) == {PATIENT: dataset / PATIENT, OTHER: dataset / OTHER}

    def test_find_patients_finds_patients_further_down(self, dataset: Path) -> None:
        assert list(find_patients(dataset.parent)) == [PATIENT, OTHER]

    def test_find_patients_finds_the_folder_that_is_a_patient_itself(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(dataset / PATIENT)
        assert find_patients(".") == {PATIENT: Path(".")}

    def test_find_patients_finds_a_patient_unpacked_into_a_folder_of_its_own_name(self, tmp_path: Path) -> None:
        inner = write_patient(tmp_path / PATIENT)
        assert find_patients(tmp_path) == {PATIENT: inner}

    def test_find_patients_does_not_look_inside_patients(self, dataset: Path) -> None:
        write_patient(dataset / PATIENT / "old", PATIENT)
        assert find_patients(dataset)[PATIENT] == dataset / PATIENT

    def test_find_patients_takes_patients_of_any_name(self, tmp_path: Path) -> None:
        write_patient(tmp_path, "my (own) case")
        assert list(find_patients(tmp_path)) == ["my (own) case"]

    def test_find_patients_passes_over_hidden_folders_and_macos_leftovers(self, dataset: Path) -> None:
        write_patient(dataset / ".fetch-x", PATIENT)
        (dataset / "__MACOSX" / PATIENT).mkdir(parents=True)
        assert len(find_patients(dataset)) == 2

    def test_find_patients_follows_links_but_not_in_circles(self, dataset: Path, tmp_path: Path) -> None:
        (dataset / "loop").symlink_to(dataset)
        (dataset / "alias").symlink_to(dataset / PATIENT)  # comes before the patient, whose files it does not name
        linked = tmp_path / "linked"
        linked.mkdir()
        (linked / THIRD).symlink_to(write_patient(tmp_path / "store", THIRD))
        (dataset / "more").symlink_to(linked)
        assert list(find_patients(dataset)) == [PATIENT, OTHER, THIRD]

    def test_find_patients_refuses_the_same_patient_twice(self, dataset: Path) -> None:
        copy = write_patient(dataset / "lgg-mri-segmentation", PATIENT)
        with pytest.raises(ValueError, match="twice") as error:
            find_patients(dataset)
        assert str(copy) in str(error.value)
        assert str(dataset / PATIENT) in str(error.value)

    def test_find_patients_refuses_a_patient_without_slices(self, dataset: Path) -> None:
        (dataset / THIRD).mkdir()
        with pytest.raises(ValueError, match=f"{THIRD}: a patient's folder without slices"):
            find_patients(dataset)

    def test_find_patients_says_how_to_get_the_data_when_the_folder_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"python -m mri_seg\.datasets\.lgg fetch"):
            find_patients(tmp_path / "missing")

    def test_find_patients_refuses_a_file(self, dataset: Path) -> None:
        with pytest.raises(NotADirectoryError, match=r"data\.csv"):
            find_patients(dataset / "data.csv")

    def test_find_patients_refuses_a_folder_without_patients(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no patient found"):
            find_patients(tmp_path)


class TestSliceFiles:
    def test_slice_files_orders_by_number_not_by_text(self, tmp_path: Path) -> None:
        folder = write_patient(tmp_path, slices=11)
        numbers, images, masks = zip(*slice_files(folder), strict=True)
        assert numbers == tuple(range(1, 12))
        assert images[9].name == f"{PATIENT}_10.tif"
        assert masks[9].name == f"{PATIENT}_10_mask.tif"

    @pytest.mark.parametrize(("kept", "lost"), [("_2.tif", "_2_mask.tif"), ("_2_mask.tif", "_2.tif")])
    def test_slice_files_names_the_file_without_a_partner(self, tmp_path: Path, kept: str, lost: str) -> None:
        folder = write_patient(tmp_path)
        (folder / f"{PATIENT}{lost}").unlink()
        with pytest.raises(FileNotFoundError) as error:
            slice_files(folder)
        assert str(folder / f"{PATIENT}{kept}") in str(error.value)
        assert f"{PATIENT}{lost}" in str(error.value)

    def test_slice_files_refuses_two_files_for_one_slice(self, tmp_path: Path) -> None:
        folder = write_patient(tmp_path)
        write_image(folder / f"{PATIENT}_02.tif")
        with pytest.raises(ValueError, match="slice 2 already exists"):
            slice_files(folder)

    def test_slice_files_refuses_a_folder_without_slices(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no slices"):
            slice_files(tmp_path)


class TestInstitution:
    @pytest.mark.parametrize(("patient", "code"), [(PATIENT, "CS"), (OTHER, "DU"), ("case1", "unknown")])
    def test_institution_is_the_second_part_of_the_name(self, patient: str, code: str) -> None:
        assert institution(patient) == code
