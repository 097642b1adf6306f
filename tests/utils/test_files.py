"""Files that are whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mri_seg.utils.files import atomic_write, refuse_unwritable, safe_name


class TestWholeFile:
    def test_whole_file_gets_its_name_when_written(self, tmp_path: Path) -> None:
        with atomic_write(tmp_path / "new" / "a.nii.gz") as unfinished:
            unfinished.write_text("all")
            assert unfinished.name.endswith("a.nii.gz")
            assert not (tmp_path / "new" / "a.nii.gz").exists()
        assert (tmp_path / "new" / "a.nii.gz").read_text() == "all"

    def test_whole_file_takes_the_place_of_another(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        with atomic_write(tmp_path / "a") as unfinished:
            unfinished.write_text("new")
        assert (tmp_path / "a").read_text() == "new"

    def test_whole_file_leaves_what_was_there_when_interrupted(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")

        def interrupted() -> None:
            with atomic_write(tmp_path / "a") as unfinished:
                unfinished.write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [file.name for file in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_text() == "old"

    def test_whole_file_is_written_by_several_threads_at_once(self, tmp_path: Path) -> None:
        def write(number: int) -> None:
            for _ in range(50):
                with atomic_write(tmp_path / "a") as unfinished:
                    unfinished.write_text(str(number))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def test_whole_file_may_have_a_name_as_long_as_may_be(self, tmp_path: Path) -> None:
        with atomic_write(tmp_path / f"{'x' * 248}.nii.gz") as unfinished:
            unfinished.write_text("all")
        assert [len(file.name) for file in tmp_path.iterdir()] == [255]


class TestPlaceForResults:
    @pytest.mark.parametrize("name", ["new", "new/deeper", "there", "mask.nii.gz", "there/old.nii.gz", "there/x.nii"])
    def test_places_that_can_be_written_pass_and_nothing_is_made(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "old.nii.gz").write_text("")
        before = sorted(tmp_path.rglob("*"))
        refuse_unwritable(tmp_path / name, "--output_dir")
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("name", ["notes.txt", "notes.txt/sub/deeper", "notes.txt/mask.nii.gz"])
    def test_file_in_the_place_of_a_folder_is_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"--output_dir .*notes\.txt.* is a file, expected a folder or a new name"):
            refuse_unwritable(tmp_path / name, "--output_dir")

    @pytest.mark.parametrize("name", ["", "new/deeper", "mask.nii.gz"])
    def test_folder_in_which_the_user_may_not_write_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
        with pytest.raises(PermissionError, match="you may not write"):
            refuse_unwritable(tmp_path / name, "--output_dir")


class TestSafeName:
    @pytest.mark.parametrize("name", ["TCGA_CS_4941", "sub-01_FLAIR", "a.b-c", "患者 7", "console", "com10"])
    def test_safe_name_leaves_most_names_as_they_are(self, name: str) -> None:
        assert safe_name(name) == name

    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("CON", "CON_"),
            ("nul.txt", "nul_.txt"),
            ("Com1", "Com1_"),
            ("trailing. . ", "trailing"),
            ('<a>|"b"?*', "_a_b_"),
            ("a/b\\c\n", "a_b_c_"),
            (" . ", "case"),
            ("", "case"),
        ],
    )
    def test_safe_name_changes_what_a_system_does_not_allow(self, name: str, safe: str) -> None:
        assert safe_name(name) == safe

    def test_safe_name_of_composed_and_decomposed_letters_is_the_same(self) -> None:
        assert safe_name("Mu\u0308ller") == safe_name("M\u00fcller")
