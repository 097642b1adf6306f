import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from mri_seg.transforms.brain import BrainMaskd, brain_mask

SHAPE = (200, 180, 12)


def head(*, scalp: float = 250.0, tissue: float = 100.0, air: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A head with a brain, a dark skull around it and a scalp around that; and where the brain is."""
    rows, columns, slices = (np.linspace(-1, 1, n)[index] for n, index in zip(SHAPE, np.ix_(*map(range, SHAPE))))
    width = np.sqrt(1 - 0.6 * slices**2)  # narrower towards both ends
    distance = np.hypot(rows / 0.85, columns / 0.8) / width
    brain, skull, outside = distance < 0.78, (distance >= 0.78) & (distance < 0.9), distance >= 1.0
    volume = np.full(SHAPE, scalp)
    volume[np.broadcast_to(skull, SHAPE)] = air + 5
    volume[brain] = tissue
    volume[outside] = air
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    return volume + noise, np.broadcast_to(brain, SHAPE)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


class TestBrainMask:
    @pytest.mark.parametrize("scalp", [20.0, 100.0, 250.0, 600.0])
    def test_brain_is_found_whatever_the_brightness_of_the_scalp(self, scalp: float) -> None:
        volume, brain = head(scalp=scalp)
        assert dice(brain_mask(volume), brain) > 0.95

    def test_brain_of_a_skull_stripped_volume_is_nearly_all_of_it(self) -> None:
        volume, brain = head()
        assert dice(brain_mask(np.where(brain, volume, 0)), brain) > 0.95

    def test_hemispheres_that_a_dark_falx_parts_are_both_found(self) -> None:
        volume, brain = head()
        volume[:, 86:94] = np.minimum(volume[:, 86:94], 5)
        assert dice(brain_mask(volume), brain) > 0.9

    @pytest.mark.parametrize(("factor", "offset"), [(0.01, 0.0), (40.0, -300.0)])
    def test_mask_does_not_depend_on_scale_and_offset(self, factor: float, offset: float) -> None:
        volume, _ = head()
        assert dice(brain_mask(factor * volume + offset), brain_mask(volume)) > 0.999

    def test_one_voxel_without_a_number_changes_nothing(self) -> None:
        volume, _ = head()
        mask = brain_mask(volume)
        volume[0, 0, 0] = np.nan
        assert (brain_mask(volume) == mask).all()

    def test_odd_sizes_keep_their_shape(self) -> None:
        volume, _ = head()
        assert brain_mask(volume[:-1, :-1, :1]).shape == (199, 179, 1)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 64, 2), (64, 64, 4)])
    def test_volume_of_one_value_has_no_brain(self, shape: tuple[int, int, int]) -> None:
        assert not brain_mask(np.full(shape, 7.0)).any()


class TestBrainMaskd:
    def test_mask_has_the_geometry_of_its_volume(self) -> None:
        volume, brain = head()
        affine = np.diag([0.9, 0.9, 5.0, 1.0])
        data = {"image": MetaTensor(torch.from_numpy(volume[None]), affine=affine), "name": "x"}
        found = BrainMaskd("image")(data)
        assert found["name"] == "x"
        assert found["brain"].shape == (1, *SHAPE)
        assert found["brain"].dtype == torch.uint8
        assert np.allclose(found["brain"].affine, affine)
        assert dice(found["brain"].numpy()[0] > 0, brain) > 0.95
