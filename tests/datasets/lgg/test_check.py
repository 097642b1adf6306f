"""Defects of a TCGA-LGG folder, found and told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lgg_folders import PATIENT, THIRD, write_image, write_mask, write_patient

from mri_seg.datasets.lgg import (
    Counts,
    check,
)
from mri_seg.datasets.lgg.__main__ import main


def spoil(folder: Path, name: str, content: bytes | None = None) -> Path:
    """Replace a file's content, or cut the file in half."""
    path = folder / f"{PATIENT}{name}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    return path


def defects_of(dataset: Path) -> list[str]:
    return [str(defect) for defect in check(dataset).defects]


class TestCheck:
    def test_check_counts_by_institution(self, dataset: Path) -> None:
        write_patient(dataset, "TCGA_DU_5852_19950709", slices=4)
        report = check(dataset)
        assert report.institutions == {"CS": Counts(1, 3, 2), "DU": Counts(2, 6, 4)}
        assert report.total == Counts(patients=3, slices=9, tumor_slices=6)
        assert report.table().splitlines()[-1].split() == ["total", "3", "9", "6"]
        assert report.defects == []

    @pytest.mark.parametrize(("kept", "lost"), [("_2.tif", "_2_mask.tif"), ("_2_mask.tif", "_2.tif")])
    def test_check_finds_files_without_a_partner(self, dataset: Path, kept: str, lost: str) -> None:
        (dataset / PATIENT / f"{PATIENT}{lost}").unlink()
        (defect,) = defects_of(dataset)
        assert defect.startswith(str(dataset / PATIENT / f"{PATIENT}{kept}: its "))
        assert lost in defect

    def test_check_finds_gaps_in_the_numbering(self, dataset: Path) -> None:
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
    def test_check_finds_files_that_cannot_be_decoded(self, dataset: Path, name: str, content: bytes | None) -> None:
        path = spoil(dataset / PATIENT, name, content)
        (defect,) = defects_of(dataset)
        assert defect.startswith(f"{path}: cannot be decoded")
        assert "\n" not in defect

    def test_check_finds_files_with_several_images(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        tifffile.imwrite(path, np.zeros((2, 8, 6, 3), np.uint8), photometric="rgb")
        (defect,) = defects_of(dataset)
        assert "2 images in the file, expected 1" in defect

    def test_check_finds_an_image_of_another_size_than_the_patients_others(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_1.tif"
        write_image(path, (4, 6, 3))
        write_mask(dataset / PATIENT / f"{PATIENT}_1_mask.tif", shape=(4, 6))
        assert defects_of(dataset) == [f"{path}: shape (4, 6, 3), but most of the patient's slices are 8 x 6"]

    def test_check_finds_a_mask_of_another_size_than_its_image(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        write_mask(path, shape=(8, 8))
        assert defects_of(dataset) == [f"{path}: shape (8, 8), but its image is 8 x 6"]

    def test_check_finds_a_mask_with_channels(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        tifffile.imwrite(path, np.zeros((8, 6, 3), np.uint8), photometric="rgb")
        assert defects_of(dataset) == [f"{path}: shape (8, 6, 3), expected one channel (shape (H, W))"]

    @pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1)])
    def test_images_of_one_channel_which_train_fine_are_no_defect(self, dataset: Path, shape: tuple[int, ...]) -> None:
        write_image(dataset / PATIENT / f"{PATIENT}_2.tif", shape)
        assert defects_of(dataset) == []

    def test_check_finds_images_with_other_than_three_channels_or_one(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        tifffile.imwrite(path, np.zeros((8, 6, 4), np.uint8), photometric="rgb")
        assert defects_of(dataset) == [f"{path}: 4 channels (shape (8, 6, 4)), expected 3 (shape (H, W, 3)) or one"]

    def test_check_finds_values_that_are_not_8_bit(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2.tif"
        write_image(path, dtype=np.uint16)
        mask = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        tifffile.imwrite(mask, np.zeros((8, 6), np.float32))
        assert defects_of(dataset) == [
            f"{path}: values of type uint16, expected uint8",
            f"{mask}: values of type float32, expected uint8",
        ]

    def test_check_finds_mask_values_between(self, dataset: Path) -> None:
        path = dataset / PATIENT / f"{PATIENT}_2_mask.tif"
        write_mask(path, (0, 1, 2, 3, 4, 5, 6, 255))
        assert defects_of(dataset) == [f"{path}: values 1, 2, 3, 4, 5 and 1 more, expected 0 and 255 only"]

    def test_check_finds_patients_without_slices(self, dataset: Path) -> None:
        (dataset / THIRD).mkdir()
        assert defects_of(dataset) == [f"{dataset / THIRD}: a patient's folder without slices"]

    def test_check_finds_the_same_patient_twice_and_counts_it_once(self, dataset: Path) -> None:
        copy = write_patient(dataset / "lgg", PATIENT)
        spoil(copy, "_3.tif")
        twice, undecodable = defects_of(dataset)
        assert str(copy) in twice
        assert "twice" in twice
        assert str(dataset / PATIENT) in twice
        assert undecodable.startswith(str(copy))
        assert check(dataset).total == Counts(2, 5, 3)

    def test_check_finds_two_files_for_one_slice(self, dataset: Path) -> None:
        write_image(dataset / PATIENT / f"{PATIENT}_02.tif")
        (defect,) = defects_of(dataset)
        assert "slice 2 already exists" in defect


class TestCheckCommand:
    def test_check_command_prints_the_table_and_that_there_are_no_defects(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["check", str(dataset)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["CS", "1", "3", "2"]
        assert lines[3].split() == ["total", "2", "5", "3"]
        assert lines[4:] == ["no defects"]

    @pytest.mark.interpreter
    def test_check_command_prints_a_line_a_defect_and_fails(self, dataset: Path) -> None:
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
    def test_check_command_says_in_one_line_that_there_is_no_data(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool
    ) -> None:
        folder = tmp_path if exists else tmp_path / "missing"
        assert main(["check", str(folder)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"error: {folder}: no ")
        assert output.err.count("\n") == 1
