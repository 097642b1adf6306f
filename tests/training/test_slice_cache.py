"""Slices on disk: the same items as in memory, found again if nothing changed, and never half of a case."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, ScaleIntensityRanged

from mri_seg.io.load import LoadVolumed
from mri_seg.training import slice_cache
from mri_seg.training.slice_cache import cases_in_memory, describe_settings
from mri_seg.training.slice_dataset import SliceDataset
from mri_seg.transforms.labels import BinaryLabeld


def write_cases(folder: Path, depths: tuple[int, ...] = (3, 5, 4)) -> list[dict]:
    """NIfTI cases of random voxels, with tumour in their second slice."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    cases = []
    for n, depth in enumerate(depths):
        label = np.zeros((6, 8, depth), np.uint8)
        label[2:4, 2:5, 1] = 1
        volumes = {"image": generator.integers(0, 200, (6, 8, depth)).astype(np.int16), "label": label}
        for key, volume in volumes.items():
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 1, 5, 1.0])), folder / f"{n}_{key}.nii")
        cases.append({"case": f"P{n}", **{key: [str(folder / f"{n}_{key}.nii")] for key in volumes}})
    return cases


class Read:
    """Read a case, and count how often."""

    def __init__(self, scale: float = 100.0) -> None:
        keys = ["image", "label"]
        self.steps = Compose([LoadVolumed(keys), ScaleIntensityRanged("image", 0, scale, 0, 1)])

    def __call__(self, case: dict) -> dict:
        reads.append(case["case"])
        return self.steps(case)


reads: list[str] = []


@pytest.fixture
def cases(tmp_path: Path) -> list[dict]:
    reads.clear()
    return write_cases(tmp_path / "data")


def dataset(
    cases: list[dict], folder: Path, cache: str = "disk", scale: float = 100.0, **options: object
) -> SliceDataset:
    return SliceDataset(cases, Read(scale), cache=cache, cache_dir=folder / "cache", progress=False, **options)


def read_again(cases: list[dict], folder: Path, **options: object) -> list[str]:
    """Cases that are preprocessed when the data set is made again, beside the one by which the size is estimated."""
    reads.clear()
    dataset(cases, folder, **options)
    reads.remove(max(cases, key=lambda case: Path(case["image"][0]).stat().st_size)["case"])
    return sorted(reads)


class TestItems:
    @pytest.mark.parametrize("options", [{}, {"num_slices": 3, "neighbor_steps": (0, 1, 2)}, {"mirror": True}])
    def test_slices_on_disk_equal_those_in_memory(self, tmp_path: Path, cases: list[dict], options: dict) -> None:
        on_disk, in_memory = (dataset(cases, tmp_path, cache, **options) for cache in ("disk", "memory"))
        assert (on_disk.cache, in_memory.cache) == ("disk", "memory")
        assert len(on_disk) == len(in_memory) == 12
        assert torch.equal(on_disk.weights(0.4), in_memory.weights(0.4))
        for n in range(12):
            torch.manual_seed(n)
            first = on_disk[n]
            torch.manual_seed(n)
            second = in_memory[n]
            assert first.keys() == second.keys()
            assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first)
            assert {key: first[key].dtype for key in ("image", "label")} == {
                "image": torch.float16,
                "label": torch.uint8,
            }
        assert on_disk.describe(4) == in_memory.describe(4) == "P1, slice 2"

    def test_slices_on_disk_need_no_open_file(self, tmp_path: Path, cases: list[dict]) -> None:
        kept = dataset(cases, tmp_path)
        if Path("/proc/self/fd").is_dir():
            names = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
            assert not [name for name in names if name.endswith(".slices")]
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # some systems keep mapped files
        assert kept[0]["image"].shape == (1, 6, 8)


class TestFindingAgain:
    def test_unchanged_cases_are_not_read_again(self, tmp_path: Path, cases: list[dict]) -> None:
        dataset(cases, tmp_path)
        assert read_again(cases, tmp_path) == []
        assert read_again(cases, tmp_path, num_slices=3) == []  # neighbors are not part of what is kept

    def test_case_whose_file_changed_is_read_again(self, tmp_path: Path, cases: list[dict]) -> None:
        dataset(cases, tmp_path)
        label = Path(cases[0]["label"][0])
        os.utime(label, ns=(label.stat().st_atime_ns, label.stat().st_mtime_ns + 1_000_000))
        assert read_again(cases, tmp_path) == ["P0"]

    def test_other_preprocessing_reads_all_again(self, tmp_path: Path, cases: list[dict]) -> None:
        dataset(cases, tmp_path)
        assert read_again(cases, tmp_path, scale=50.0) == ["P0", "P1", "P2"]
        assert read_again(cases, tmp_path, mirror=True) == ["P0", "P1", "P2"]
        assert float(dataset(cases, tmp_path, scale=50.0).images[0].max()) > 2

    def test_case_with_another_entry_in_the_list_is_read_again(self, tmp_path: Path, cases: list[dict]) -> None:
        dataset(cases, tmp_path)
        cases[2]["volume"] = 0
        assert read_again(cases, tmp_path) == ["P2"]

    @pytest.mark.parametrize("harm", ["cut", "no description", "half a description"])
    def test_half_written_case_is_written_again(self, tmp_path: Path, cases: list[dict], harm: str) -> None:
        dataset(cases, tmp_path)
        file = sorted((tmp_path / "cache").glob("*.slices"))[0]
        content = file.read_bytes()
        if harm == "cut":
            file.write_bytes(content[:-1])
        elif harm == "no description":
            file.with_suffix(".json").unlink()
        else:
            file.with_suffix(".json").write_text('{"parts": {"image"')
        assert len(read_again(cases, tmp_path)) == 1
        assert file.read_bytes() == content

    def test_unfinished_files_are_removed_after_a_day(self, tmp_path: Path, cases: list[dict]) -> None:
        folder = tmp_path / "cache"
        folder.mkdir()
        for name, age in ((".part-1-1-old.slices", 2 * 24 * 3600), (".part-2-2-new.slices", 10)):
            (folder / name).write_bytes(b"half")
            then = (folder / name).stat().st_mtime - age
            os.utime(folder / name, (then, then))
        dataset(cases, tmp_path)
        assert {path.name for path in folder.glob(".part-*")} == {".part-2-2-new.slices"}


class TestFullDisk:
    def test_disk_without_room_is_refused_before_anything_is_written(
        self, tmp_path: Path, cases: list[dict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(
            OSError, match=r"only 0\.0 GB are free, and the slices that are written need about .*--cache_dir"
        ):
            dataset(cases, tmp_path)
        assert not (tmp_path / "cache").exists()

    def test_cached_cases_need_no_room(
        self, tmp_path: Path, cases: list[dict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset(cases, tmp_path)
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        assert len(dataset(cases, tmp_path)) == 12

    def test_disk_that_becomes_full_is_named_and_leaves_no_half_case(
        self, tmp_path: Path, cases: list[dict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync, calls = os.fsync, []

        def full(number: int) -> None:
            calls.append(number)
            if len(calls) >= 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(number)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="the disk became full"):
            dataset(cases, tmp_path)
        monkeypatch.undo()
        assert not list((tmp_path / "cache").glob(".part-*"))
        assert len(list((tmp_path / "cache").glob("*.json"))) == 1
        assert len(read_again(cases, tmp_path)) == 2


class TestChoice:
    @pytest.mark.parametrize(("available", "chosen"), [(10**9, "memory"), (1000, "disk"), (None, "memory")])
    def test_place_of_the_slices_follows_from_available_memory(
        self,
        tmp_path: Path,
        cases: list[dict],
        monkeypatch: pytest.MonkeyPatch,
        available: int | None,
        chosen: str,
    ) -> None:
        monkeypatch.setattr(slice_cache, "available_memory", lambda: available)
        assert dataset(cases, tmp_path, "auto").cache == chosen
        assert (tmp_path / "cache").exists() is (chosen == "disk")

    def test_place_can_be_forced(self, tmp_path: Path, cases: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slice_cache, "available_memory", lambda: 1000)
        assert dataset(cases, tmp_path, "memory").cache == "memory"
        assert reads == ["P0", "P1", "P2"]

    def test_cases_that_are_in_memory_already_stay_there(self, tmp_path: Path, cases: list[dict]) -> None:
        volumes = [Read()(case) for case in cases]
        kept = SliceDataset(volumes, dict, cache="auto", cache_dir=tmp_path / "cache", progress=False)
        assert kept.cache == "memory"
        with pytest.raises(ValueError, match="is not read from files"):
            SliceDataset(volumes, dict, cache="disk", cache_dir=tmp_path / "cache", progress=False)

    def test_unknown_place_is_refused(self, tmp_path: Path, cases: list[dict]) -> None:
        with pytest.raises(ValueError, match="--cache: 'ram', expected auto, memory, disk"):
            dataset(cases, tmp_path, "ram")

    def test_validation_volumes_that_fit_are_kept(self, cases: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
        each = sum(volume.nbytes for volume in Read()(cases[1]).values() if isinstance(volume, torch.Tensor))
        monkeypatch.setattr(slice_cache, "available_memory", lambda: 4 * 2 * each)
        assert cases_in_memory(cases, Read()) == 2
        assert cases_in_memory(cases[:2], Read()) >= 2
        assert cases_in_memory(cases, Read(), "memory") >= 3


class TestSettings:
    def test_description_of_equal_transforms_is_the_same(self) -> None:
        first, second = (
            describe_settings(Compose([LoadVolumed(["image", "label"]), BinaryLabeld("label"), lambda case: case]))
            for _ in range(2)
        )
        assert first == second
        assert " at 0x" not in first

    def test_every_setting_of_a_transform_counts(self) -> None:
        described = {
            describe_settings(Compose([ScaleIntensityRanged("image", 0, high, 0, 1, clip=clip)]))
            for high in (1, 2)
            for clip in (False, True)
        }
        assert len(described) == 4
