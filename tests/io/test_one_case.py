"""The one case of a path or of a list of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from case_folders import touch
from dicom_series import ramp, write_series
from tiff_slices import grey, write

from mri_seg.io.one_case import find_case


class TestFolders:
    def test_folder_with_several_cases_is_an_error_that_names_them(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/P1_FLAIR.nii.gz", "b/P2_FLAIR.nii.gz")
        with pytest.raises(ValueError, match=r"holds 2 cases, expected one: P1_FLAIR, P2_FLAIR\. .*the command"):
            find_case(tmp_path)

    def test_error_names_ten_cases_at_most(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{n:02}/P{n:02}_FLAIR.nii.gz" for n in range(12)))
        with pytest.raises(ValueError, match="P09_FLAIR and 2 more"):
            find_case(tmp_path)

    def test_case_that_cannot_be_segmented_is_an_error_with_its_reason(self, tmp_path: Path) -> None:
        touch(tmp_path, "P1_T1.nii.gz", "P1_T2.nii.gz")
        with pytest.raises(ValueError, match="P1"):
            find_case(tmp_path)


class TestLists:
    def test_numbered_slices_are_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        files = [write(tmp_path / f"x_{n}.tif", grey(n)) for n in (10, 9, 11)]
        found = find_case(files)
        assert [Path(file).name for file in found["image"]] == ["x_9.tif", "x_10.tif", "x_11.tif"]
        assert (found["case"], found["source"]) == ("x", "tiff")

    def test_slices_without_numbers_stay_in_the_order_of_the_list(self, tmp_path: Path) -> None:
        files = [write(tmp_path / f"{name}.tif", grey()) for name in ("low", "high", "ahead")]
        assert find_case(files)["image"] == [str(file) for file in files]

    def test_images_of_a_series_are_one_case(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "series", ramp(), series_uid="1.2.3")
        found = find_case([str(file) for file in reversed(files)])
        assert (found["source"], found["series_uid"], len(found["image"])) == ("dicom", "1.2.3", len(files))

    def test_one_file_in_a_list_is_that_file(self, tmp_path: Path) -> None:
        touch(tmp_path, "P1_mask.nii.gz")
        assert find_case([tmp_path / "P1_mask.nii.gz"]) == find_case(tmp_path / "P1_mask.nii.gz")

    def test_files_of_several_cases_are_an_error_that_names_them(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.nii.gz", "b.nii.gz")
        with pytest.raises(ValueError, match="2 files: holds 2 cases, expected one: a, b"):
            find_case(sorted(tmp_path.iterdir()))

    def test_two_files_of_the_same_number_are_an_error(self, tmp_path: Path) -> None:
        files = [write(tmp_path / name, grey()) for name in ("x_1.tif", "x_01.tif")]
        with pytest.raises(ValueError, match="slice number 1"):
            find_case(files)

    def test_file_that_is_no_image_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "notes.txt")
        files = [write(tmp_path / "x_1.tif", grey()), tmp_path / "notes.txt"]
        with pytest.raises(ValueError, match=r"notes\.txt: is no image"):
            find_case(files)

    def test_missing_file_and_empty_list_are_errors(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            find_case([tmp_path / "nowhere.tif"])
        with pytest.raises(ValueError, match="list of files is empty"):
            find_case([])
