"""Cases found in folders of every make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from dicom_series import write_series

from mri_seg.studies import find_cases


def touch(folder: Path, *files: str) -> Path:
    """Empty files: finding cases does not need their content."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def pages(file: Path, count: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, np.zeros((count, 4, 4), np.uint8), photometric="minisblack")
    return file


def found(dataset_dir: Path | str) -> dict[str, dict]:
    """Cases by name, their files by name alone."""
    cases = {}
    for case in find_cases(dataset_dir):
        assert set(case) <= {"case", "image", "label", "source"}
        entry = {key: [Path(file).name for file in case[key]] for key in ("image", "label") if key in case}
        cases[case["case"]] = entry
    return cases


class TestFolders:
    def test_of_patients(self, tmp_path: Path) -> None:
        touch(tmp_path, "TCGA_1/TCGA_1_1.tif", "TCGA_1/TCGA_1_2.tif", "TCGA_2/TCGA_2_1.tif", "TCGA_2/TCGA_2_2.tif")
        touch(tmp_path, "data.csv", "README.md")
        assert found(tmp_path) == {
            "TCGA_1": {"image": ["TCGA_1_1.tif", "TCGA_1_2.tif"]},
            "TCGA_2": {"image": ["TCGA_2_1.tif", "TCGA_2_2.tif"]},
        }

    def test_of_one_patient(self, tmp_path: Path) -> None:
        touch(tmp_path, "scan_1.tif", "scan_2.tif")
        assert found(tmp_path) == {"scan": {"image": ["scan_1.tif", "scan_2.tif"]}}

    def test_of_numbers_alone_name_the_case_after_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path / "Jane", "1.tif", "2.tif")
        assert found(tmp_path) == {"Jane": {"image": ["1.tif", "2.tif"]}}
        monkeypatch.chdir(tmp_path / "Jane")
        assert list(found(".")) == ["Jane"]

    def test_of_slices_of_several_cases(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_1.tif", "a_2.tif", "b_1.tif", "b_2.tif")
        assert found(tmp_path) == {"a": {"image": ["a_1.tif", "a_2.tif"]}, "b": {"image": ["b_1.tif", "b_2.tif"]}}

    def test_of_nifti_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.nii.gz", "a.v2.nii", "C.NII.GZ", "notes.txt")
        assert found(tmp_path) == {
            "C": {"image": ["C.NII.GZ"]},
            "a.v2": {"image": ["a.v2.nii"]},
            "b": {"image": ["b.nii.gz"]},
        }

    def test_of_every_kind_at_once(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/s_1.tif", "x/s_2.tif", "y/z/deep.nii", "one.tiff")
        assert list(found(tmp_path)) == ["deep", "one", "s"]

    def test_give_cases_sorted_by_name(self, tmp_path: Path) -> None:
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

    def test_may_be_given_as_text(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii")
        (case,) = find_cases(str(tmp_path))
        assert case == {"case": "a", "image": [str(tmp_path / "a.nii")], "source": "volume"}


class TestOneFile:
    @pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
    def test_nifti(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, name, "other.nii")
        assert found(tmp_path / name) == {"head": {"image": [name]}}

    def test_slice(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.tif", "other.tif")
        assert found(tmp_path / "head.tif") == {"head": {"image": ["head.tif"]}}

    def test_numbered_slice_leaves_its_neighbours(self, tmp_path: Path) -> None:
        touch(tmp_path, "head_1.tif", "head_2.tif")
        assert [case["image"] for case in found(tmp_path / "head_2.tif").values()] == [["head_2.tif"]]

    def test_several_pages(self, tmp_path: Path) -> None:
        file = pages(tmp_path / "head_3.tif", 4)
        assert [case["image"] for case in found(file).values()] == [["head_3.tif"]]

    def test_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.txt")
        with pytest.raises(ValueError, match=r"head\.txt: holds no case to segment"):
            find_cases(tmp_path / "head.txt")


class TestContrasts:
    def test_of_bids_other_than_flair_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-1/ses-2/anat/sub-1_ses-2_FLAIR.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz")
        touch(tmp_path, "sub-2/anat/sub-2_acq-3D_FLAIR.nii.gz", "sub-2/dwi/sub-2_dwi.nii.gz")
        assert list(found(tmp_path)) == ["sub-1_ses-2_FLAIR", "sub-2_acq-3D_FLAIR"]

    @pytest.mark.parametrize("name", ["B_1_flair.nii.gz", "BraTS-GLI-00000-000-t2f.nii.gz", "ax FLAIR.nrrd"])
    def test_beside_a_file_named_flair_are_passed_over(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, name, "x_t1.nii.gz", "x_t2.nii.gz", "x_seg.nii.gz")
        assert [case["image"] for case in found(tmp_path).values()] == [[name]]

    def test_are_not_guessed_where_no_file_names_flair(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii", "b.mha", "c.nrrd", "d.mhd")
        assert list(found(tmp_path)) == ["a", "b", "c", "d"]


class TestPictures:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
    def test_are_slices_as_tiff_files_are(self, tmp_path: Path, suffix: str) -> None:
        touch(tmp_path, *(f"s_{n}.{suffix}" for n in (10, 2, 1)))
        (case,) = find_cases(tmp_path)
        assert [Path(file).name for file in case["image"]] == [f"s_{n}.{suffix}" for n in (1, 2, 10)]
        assert case["source"] == "picture"

    def test_are_not_mixed_with_tiff_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1.tif", "s_2.tif", "s_1.png", "s_2.png")
        assert [case["source"] for case in find_cases(tmp_path)] == ["picture", "tiff"]


class TestResults:
    def test_of_an_earlier_run_are_not_cases(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii", "out/a/a_mask.nii.gz", "out/a/a_probability.nii.gz", "out/a/a_sheet.png")
        assert [case["case"] for case in find_cases(tmp_path, exclude=tmp_path / "out")] == ["a"]

    def test_named_mask_are_labels_of_the_volume_beside_them(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii.gz", "a_mask.nii.gz", "b_mask.nii.gz", "c_probability.nii")
        assert found(tmp_path) == {"a": {"image": ["a.nii.gz"], "label": ["a_mask.nii.gz"]}}


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

    def test_series_uid_takes_one_series_of_all(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a", study_uid="1.2.3", series_uid="1.2.3.1", patient_id="A")
        self.write(tmp_path / "b", study_uid="1.2.4", series_uid="1.2.4.1", patient_id="B")
        (case,) = find_cases(tmp_path, series_uid="1.2.4.1")
        assert {Path(file).parent.name for file in case["image"]} == {"b"}
        with pytest.raises(ValueError, match=r"(?s)no series 9\.9.*1\.2\.3\.1"):
            find_cases(tmp_path, series_uid="9.9")


class TestOrder:
    def test_is_that_of_the_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"s_{n}.tif" for n in (10, 2, 1, 9, 100)))
        assert found(tmp_path)["s"]["image"] == ["s_1.tif", "s_2.tif", "s_9.tif", "s_10.tif", "s_100.tif"]

    def test_holds_for_numbers_padded_with_zeros(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_010.tif", "s_002.tif", "s_001.tif")
        assert found(tmp_path)["s"]["image"] == ["s_001.tif", "s_002.tif", "s_010.tif"]

    @pytest.mark.parametrize("separator", ["_", "-", " ", ".", ""])
    def test_does_not_mind_what_stands_before_the_number(self, tmp_path: Path, separator: str) -> None:
        touch(tmp_path, *(f"slice{separator}{n}.tif" for n in (11, 2)))
        assert found(tmp_path) == {"slice": {"image": [f"slice{separator}2.tif", f"slice{separator}11.tif"]}}

    def test_goes_by_the_last_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "TCGA_CS_4941_19960909_2.tif", "TCGA_CS_4941_19960909_12.tif")
        assert list(found(tmp_path)) == ["TCGA_CS_4941_19960909"]


class TestMasks:
    def test_become_labels_in_the_order_of_the_slices(self, tmp_path: Path) -> None:
        for n in (1, 2, 10):
            touch(tmp_path, f"s_{n}.tif", f"s_{n}_mask.tif")
        assert found(tmp_path) == {
            "s": {
                "image": ["s_1.tif", "s_2.tif", "s_10.tif"],
                "label": ["s_1_mask.tif", "s_2_mask.tif", "s_10_mask.tif"],
            }
        }

    def test_are_left_out_when_one_is_missing(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1.tif", "s_1_mask.tif", "s_2.tif")
        assert found(tmp_path) == {"s": {"image": ["s_1.tif", "s_2.tif"]}}

    def test_belong_to_files_of_several_pages_too(self, tmp_path: Path) -> None:
        pages(tmp_path / "head.tif", 3)
        pages(tmp_path / "head_mask.tif", 3)
        assert found(tmp_path) == {"head": {"image": ["head.tif"], "label": ["head_mask.tif"]}}

    def test_belong_to_slices_of_the_same_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "images/s_1.tif", "masks/s_1_mask.tif")
        assert [set(case) for case in found(tmp_path).values()] == [{"image"}]

    def test_alone_are_no_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "s_1_mask.tif")
        with pytest.raises(ValueError, match="holds no case"):
            find_cases(tmp_path)


class TestPages:
    def test_make_a_case_of_one_file(self, tmp_path: Path) -> None:
        pages(tmp_path / "head.tif", 3)
        assert found(tmp_path) == {"head": {"image": ["head.tif"]}}

    def test_make_a_case_of_each_of_several_numbered_files(self, tmp_path: Path) -> None:
        for n in (1, 2):
            pages(tmp_path / f"patient_{n}.tif", 3)
        assert found(tmp_path) == {
            "patient_1": {"image": ["patient_1.tif"]},
            "patient_2": {"image": ["patient_2.tif"]},
        }

    def test_of_a_damaged_file_are_left_to_the_reader(self, tmp_path: Path) -> None:
        for n in (1, 2):
            (tmp_path / f"s_{n}.tif").write_bytes(b"damaged")
        assert found(tmp_path) == {"s": {"image": ["s_1.tif", "s_2.tif"]}}


class TestNames:
    def test_that_differ_in_case_alone_are_made_distinct(self, tmp_path: Path) -> None:
        touch(tmp_path, "one/FLAIR.nii", "two/flair.nii", "three/Flair.mha")
        assert set(found(tmp_path)) == {"one_FLAIR", "two_flair", "three_Flair"}

    def test_that_differ_in_case_alone_in_one_folder_get_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "HEAD.nrrd", "head.nrrd", "Straße.mha", "STRASSE.mha")
        names = [name.casefold() for name in found(tmp_path)]
        assert len(set(names)) == 4

    def test_with_numbers_never_become_that_of_another_case(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.nii", "x.mha", "x_1.nrrd")
        assert len({name.casefold() for name in found(tmp_path)}) == 3

    @pytest.mark.parametrize(("file", "name"), [("con.nii", "con_"), ("scan .nii.gz", "scan"), ("a:b.nrrd", "a_b")])
    def test_are_those_that_windows_allows(self, tmp_path: Path, file: str, name: str) -> None:
        touch(tmp_path, file)
        assert list(found(tmp_path)) == [name]

    def test_of_cases_in_different_folders_are_told_apart(self, tmp_path: Path) -> None:
        touch(tmp_path, "p1/flair_1.tif", "p1/flair_2.tif", "p2/day 1/flair.nii", "p3/other.nii")
        assert found(tmp_path) == {
            "other": {"image": ["other.nii"]},
            "p1_flair": {"image": ["flair_1.tif", "flair_2.tif"]},
            "p2_day 1_flair": {"image": ["flair.nii"]},
        }

    def test_of_cases_in_one_folder_get_a_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "head.nii", "head.nii.gz")
        assert found(tmp_path) == {"head_1": {"image": ["head.nii"]}, "head_2": {"image": ["head.nii.gz"]}}

    def test_that_become_the_same_by_the_folder_get_a_number(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/c.nii", "b/c.nii", "a_c.nii")
        assert list(found(tmp_path)) == ["a_c_1", "a_c_2", "b_c"]

    def test_are_told_apart_as_folders_of_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/day/1.tif", "x/day/2.tif", "y/day/1.tif", "y/day/2.tif")
        assert list(found(tmp_path)) == ["x_day_day", "y_day_day"]


class TestRefuses:
    @pytest.mark.parametrize("twin", ["s_01.tif", "s_1.tiff", "s-1.tif"])
    def test_a_number_that_occurs_twice_in_that_case_alone(self, tmp_path: Path, twin: str) -> None:
        touch(tmp_path, "s_1.tif", "s_2.tif", twin, "other.nii")
        other, case = find_cases(tmp_path)
        assert "error" not in other
        assert "slice 1 is also" in case["error"]
        assert twin in case["error"]
        assert "s_1.tif" in case["error"]

    def test_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="gone: no such folder or file"):
            find_cases(tmp_path / "gone")

    def test_what_is_empty(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/readme.txt", "b.csv")
        with pytest.raises(ValueError, match="holds no case"):
            find_cases(tmp_path)
