"""Further sequences become channels beside FLAIR, each normalised on its own, with its own neighbouring slices."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mri_seg.io.load import LoadVolumed
from mri_seg.training.slice_dataset import SliceDataset
from mri_seg.transforms.sequences import AddSequencesd
from mri_seg.transforms.volume import NeighboringSlicesd, NormalizeForeground

SHAPE = (12, 10, 4)
AFFINE = np.diag([0.9, 0.9, 5, 1])


def write(file: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), file)
    return str(file)


def loaded(tmp_path: Path, *others: str, names: tuple[str, ...] = ("t1ce",)) -> MetaTensor:
    flair = write(tmp_path / "flair.nii.gz", volume(0))
    data = {"image": [flair], "case": "P1", "sequences": list(others)}
    found = AddSequencesd("image", names)(LoadVolumed("image")(data))
    assert "sequences" not in found
    return found["image"]


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, SHAPE)


class TestAddSequences:
    def test_sequence_in_another_order_of_axes_lies_on_flair(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(volume(1).astype(np.float32), AFFINE)
        nibabel.save(image.as_reoriented([[1, -1], [0, 1], [2, -1]]), tmp_path / "t1ce.nii.gz")
        found = loaded(tmp_path, str(tmp_path / "t1ce.nii.gz"))
        np.testing.assert_array_equal(found.numpy(), np.stack([volume(0), volume(1)]))
        np.testing.assert_allclose(found.affine.numpy(), AFFINE, atol=1e-6)

    @pytest.mark.parametrize("change", [np.diag([1, 1, 1.2, 1]), np.array(np.eye(4) + np.eye(4, k=3) * 2)])
    def test_sequence_in_another_grid_is_refused(self, change: np.ndarray, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"t1ce.nii.gz: is in another grid .* than FLAIR"):
            loaded(tmp_path, write(tmp_path / "t1ce.nii.gz", volume(1), change @ AFFINE))

    def test_case_without_its_sequences_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="P1: has 0 volumes beside FLAIR, expected 2: t1ce, t2"):
            loaded(tmp_path, names=("t1ce", "t2"))

    def test_flair_alone_stays_as_it_is(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(loaded(tmp_path, names=()).numpy(), volume(0)[None])


class TestChannels:
    @pytest.mark.parametrize("region", ["head", "brain"])
    def test_each_sequence_is_normalised_on_its_own(self, region: str) -> None:
        rows, columns = np.ogrid[-1:1:96j, -1:1:96j]
        head = ((rows**2 + columns**2 < 0.8)[..., None]) * np.random.default_rng(0).integers(90, 110, (96, 96, 5))
        one = torch.from_numpy(head[None].astype(np.float32))
        normalize = NormalizeForeground(region=region)
        found = normalize(torch.cat([one, 7 * one + 3]))
        torch.testing.assert_close(found[:1], normalize(one))
        torch.testing.assert_close(found[1], found[0], atol=2e-2, rtol=0)

    def test_neighbours_of_each_sequence_come_one_after_the_other_and_flair_mirrored_at_the_end(self) -> None:
        image = torch.arange(5.0).expand(1, 8, 8, 5)
        found = NeighboringSlicesd("image", 3, mirror=True)({"image": torch.cat([image, 10 + image])})["image"]
        assert [found[channel, 0, 0, 2].item() for channel in range(7)] == [1, 2, 3, 11, 12, 13, 2]

    @pytest.mark.parametrize("cache", ["memory", "disk"])
    def test_training_slices_have_the_channels_that_inference_has(self, cache: str, tmp_path: Path) -> None:
        files = {"image": [write(tmp_path / "flair.nii", volume(0))], "sequences": [str(tmp_path / "t2.nii")]}
        write(tmp_path / "t2.nii", volume(1))
        files["label"] = [write(tmp_path / "seg.nii", volume(2) > 50)]

        def prepare(case: dict) -> dict:
            return AddSequencesd("image", ["t2"])(LoadVolumed(["image", "label"])(case))

        options = {"num_slices": 3, "mirror": True, "progress": False, "cache": cache, "cache_dir": tmp_path / "cache"}
        whole = NeighboringSlicesd("image", 3, mirror=True)(prepare(files))["image"]
        slices = SliceDataset([files], prepare, **options)
        for number in range(SHAPE[2]):
            torch.testing.assert_close(slices[number]["image"], whole[..., number].as_tensor().half())

    def test_cache_notices_that_a_further_sequence_changed(self, tmp_path: Path) -> None:
        case = {"image": [write(tmp_path / "flair.nii", volume(0))], "sequences": [str(tmp_path / "t2.nii")]}
        case["label"] = [write(tmp_path / "seg.nii", volume(2) > 50)]

        def prepare(case: dict) -> dict:
            return AddSequencesd("image", ["t2"])(LoadVolumed(["image", "label"])(case))

        found = []
        for seed in (1, 3):
            write(tmp_path / "t2.nii", volume(seed))
            slices = SliceDataset([case], prepare, progress=False, cache="disk", cache_dir=tmp_path / "cache")
            found.append(slices[0]["image"][1].clone())
        assert not torch.equal(*found)
