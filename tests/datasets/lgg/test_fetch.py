"""The data set fetched from Kaggle."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from lgg_folders import OTHER, PATIENT, write_patient

from mri_seg.datasets.lgg import (
    fetch,
    find_patients,
    slice_files,
)
from mri_seg.datasets.lgg.__main__ import main


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
    def test_fetch_puts_the_patients_into_the_folder(self, kaggle: Path, tmp_path: Path) -> None:
        target = tmp_path / "data" / "lgg"
        assert fetch(target) == [PATIENT, OTHER]
        assert sorted(path.name for path in target.iterdir()) == [PATIENT, OTHER]
        assert len(slice_files(target / PATIENT)) == 3
        assert len(find_patients(kaggle / "kaggle_3m")) == 2  # the cache stays kagglehub's

    def test_fetch_leaves_patients_that_are_there(self, kaggle: Path, tmp_path: Path) -> None:
        mine = write_patient(tmp_path / "data" / "deeper", PATIENT, slices=1)
        (tmp_path / "data" / OTHER).mkdir()
        assert fetch(tmp_path / "data") == []
        assert len(slice_files(mine)) == 1
        assert list((tmp_path / "data" / OTHER).iterdir()) == []

    def test_fetch_leaves_no_part_of_a_patient_when_copying_fails(
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

    def test_fetch_refuses_a_download_without_the_data_set(self, kaggle: Path, tmp_path: Path) -> None:
        for folder in (kaggle / "kaggle_3m", kaggle / "lgg-mri-segmentation" / "kaggle_3m"):
            folder.rename(folder.with_name("renamed"))
        with pytest.raises(ValueError, match="no folder kaggle_3m"):
            fetch(tmp_path / "data")


class TestFetchCommand:
    def test_fetch_command_checks_what_it_fetched(
        self, kaggle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["fetch", str(tmp_path / "data")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"2 patients added to {tmp_path / 'data'}"
        assert lines[-1] == "no defects"

    def test_fetch_command_names_the_extra_when_kagglehub_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        assert main(["fetch", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert "pip install 'mri_seg[fetch]'" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "data").exists()

    def test_fetch_command_says_what_to_do_by_hand_when_the_download_fails(
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
