"""The synthetic data set: its files, its split, and that it can be made again."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from phantom_parts import SMALL, needs_nilearn

from mri_seg.datasets.phantom import make_phantom, phantom_volume
from mri_seg.datasets.phantom.__main__ import main
from mri_seg.datasets.phantom.anatomy import load_head
from mri_seg.datasets.phantom.dataset import patient_name, split_patients
from mri_seg.datasets.phantom.volume import has_tumor


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("phantom") / "cases"
    make_phantom(dest, patients=3, seed=5, slices=12, size=64)
    return dest


@needs_nilearn
class TestFiles:
    def test_patient_folders_hold_numbered_slices_and_masks(self, dataset: Path):
        folders = sorted(path for path in dataset.iterdir() if path.is_dir())
        assert len(folders) == 3
        for folder in folders:
            assert re.fullmatch(r"PHANTOM_[A-Z]{2}_\d{4}_\d{8}", folder.name)
            expected = {f"{folder.name}_{n}{kind}.tif" for n in range(1, 13) for kind in ("", "_mask")}
            assert {path.name for path in folder.iterdir()} == expected

    def test_slices_are_8_bit_rgb_with_equal_channels(self, dataset: Path):
        for path in dataset.glob("*/*_7.tif"):
            with tifffile.TiffFile(path) as tiff:
                assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
                image = tiff.asarray()
            assert image.shape == (64, 64, 3)
            assert image.dtype == np.uint8
            assert (image == image[..., :1]).all()

    def test_masks_are_0_or_255(self, dataset: Path):
        values: set[int] = set()
        for path in dataset.glob("*/*_mask.tif"):
            mask = tifffile.imread(path)
            assert mask.shape == (64, 64)
            assert mask.dtype == np.uint8
            values |= set(np.unique(mask).tolist())
        assert values == {0, 255}

    def test_slices_are_those_of_the_volume_from_the_lowest(self, dataset: Path):
        name = patient_name(5, 1)
        image, mask = phantom_volume(5, 1, slices=12, size=64)
        for n in (1, 12):
            np.testing.assert_array_equal(
                tifffile.imread(dataset / name / f"{name}_{n}.tif")[..., 1], image[..., n - 1]
            )
            np.testing.assert_array_equal(
                tifffile.imread(dataset / name / f"{name}_{n}_mask.tif") > 0, mask[..., n - 1]
            )

    def test_phantom_says_everywhere_that_it_is_synthetic(self, dataset: Path):
        readme = (dataset / "README.txt").read_text()
        assert "SYNTHETIC" in readme
        assert "ICBM 152" in readme
        assert "Copyright (C) 1993-2009" in readme  # the atlas may be passed on with its notice
        with tifffile.TiffFile(next(dataset.glob("*/*_1.tif"))) as tiff:
            assert "SYNTHETIC" in tiff.pages[0].description
            assert tiff.pages[0].software == "mri_seg.datasets.phantom"
            assert "DateTime" not in tiff.pages[0].tags

    def test_phantom_leaves_nothing_unfinished(self, dataset: Path):
        assert not list(dataset.glob(".*"))


@needs_nilearn
class TestRepeatability:
    def test_same_seed_same_bytes(self, tmp_path: Path):
        for name in ("a", "b"):
            make_phantom(tmp_path / name, patients=2, seed=3, **SMALL)
        assert read_files(tmp_path / "a") == read_files(tmp_path / "b")

    def test_a_patient_is_the_same_among_more(self, tmp_path: Path):
        make_phantom(tmp_path / "few", patients=2, seed=3, **SMALL)
        make_phantom(tmp_path / "more", patients=4, seed=3, **SMALL)
        few, more = read_files(tmp_path / "few"), read_files(tmp_path / "more")
        tiffs = [name for name in few if name.endswith(".tif")]
        assert len(tiffs) == 2 * 3 * 2
        assert all(few[name] == more[name] for name in tiffs)


class TestSplit:
    @pytest.mark.parametrize("patients", [*range(3, 20), 60])
    def test_phantom_split_names_every_patient_once_and_shows_a_tumour_in_each_part(self, patients: int):
        for seed in range(4):
            parts = split_patients(seed, patients)
            assert sorted(index for indices in parts.values() for index in indices) == list(range(patients))
            for indices in parts.values():
                assert any(has_tumor(seed, index) for index in indices)

    @pytest.mark.parametrize(
        ("patients", "sizes"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (12, [8, 2, 2]), (100, [70, 15, 15])]
    )
    def test_phantom_split_has_the_usual_sizes(self, patients: int, sizes: list[int]):
        parts = split_patients(0, patients)
        assert [len(parts[part]) for part in ("training", "validation", "test")] == sizes

    @needs_nilearn
    def test_file_counts_the_slices_of_each_patient(self, dataset: Path):
        split = json.loads((dataset / "split.json").read_text())
        assert list(split) == ["description", "training", "validation", "test"]
        assert "Synthetic" in split["description"]
        counts = {name: n for part in ("training", "validation", "test") for name, n in split[part].items()}
        assert counts == {patient_name(5, index): 12 for index in range(3)}


@needs_nilearn
class TestOverwriting:
    def test_phantom_refuses_a_folder_with_earlier_cases(self, tmp_path: Path):
        make_phantom(tmp_path, patients=1, **SMALL)
        before = read_files(tmp_path)
        with pytest.raises(FileExistsError, match=r"PHANTOM_.*--overwrite"):
            make_phantom(tmp_path, patients=1, **SMALL)
        assert read_files(tmp_path) == before

    def test_phantom_writes_them_anew_when_told_to(self, tmp_path: Path):
        make_phantom(tmp_path, patients=1, slices=5, size=32)
        make_phantom(tmp_path, patients=2, overwrite=True, **SMALL)
        assert [len(list((tmp_path / patient_name(0, index)).iterdir())) for index in range(2)] == [6, 6]

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_phantom_never_writes_among_other_files(self, tmp_path: Path, overwrite: bool):
        (tmp_path / "TCGA_CS_4941_19960909").mkdir()
        with pytest.raises(FileExistsError, match="found TCGA_CS_4941_19960909, which this command did not write"):
            make_phantom(tmp_path, patients=1, overwrite=overwrite, **SMALL)
        assert [path.name for path in tmp_path.iterdir()] == ["TCGA_CS_4941_19960909"]

    def test_phantom_refuses_a_file_as_folder(self, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError, match="expected a folder"):
            make_phantom(tmp_path / "file", patients=1)

    def test_a_failure_leaves_no_part_of_a_patient(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail_on_the_second(path: Path, *args: object, calls: list[Path] = [], **kwargs: object) -> None:  # noqa: B006
            calls.append(path)
            if len(calls) == 2:
                raise OSError("disk full")
            Path(path).touch()

        monkeypatch.setattr(tifffile, "imwrite", fail_on_the_second)
        with pytest.raises(OSError, match="disk full"):
            make_phantom(tmp_path, patients=1, **SMALL)
        assert [path.name for path in tmp_path.iterdir()] == ["README.txt"]


class TestWithoutNilearn:
    def test_error_names_the_extra_and_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        load_head.cache_clear()
        with pytest.raises(ImportError, match=re.escape("pip install 'mri_seg[phantom]'")):
            make_phantom(tmp_path / "cases", patients=1)
        assert not (tmp_path / "cases").exists()


class TestCommand:
    @needs_nilearn
    def test_phantom_command_ends_by_saying_where_and_that_they_are_synthetic(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert main([str(tmp_path), "--patients", "2", "--seed", "1", "--slices", "2", "--size", "32"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert str(tmp_path) in last
        assert "synthetic" in last

    def test_phantom_command_fails_in_a_line_without_a_traceback(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert main([str(tmp_path), "--patients", "0"]) == 1
        assert "patients is 0; expected 1 to 9999" in capsys.readouterr().err
