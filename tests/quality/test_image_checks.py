"""Which flags a volume gets before it is segmented."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from phantom_parts import needs_nilearn

from mri_seg.quality.frame import HeadFrame
from mri_seg.quality.image_checks import ImageChecksd, image_measures
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.case_flags import case_flags

pytestmark = needs_nilearn

CONTRASTS = {
    "T1": {"gray": 0.75, "white": 1.0, "fluid": 0.35, "rim": 0.0, "marrow": 1.2, "muscle": 0.7, "fat": 2.0},
    "T2": {"gray": 1.0, "white": 0.75, "fluid": 2.2, "rim": 0.0, "marrow": 0.7, "muscle": 0.4, "fat": 1.4},
}


@cache
def phantom(contrast: str = "") -> MetaTensor:
    """A head without tumour in 26 slices of 5 mm, as FLAIR or in another contrast."""
    from mri_seg.datasets.phantom import patient

    with pytest.MonkeyPatch.context() as patched:
        if contrast:
            patched.setattr(patient, "_draw_brightness", lambda rng: CONTRASTS[contrast])
        scan = patient.PhantomPatient(seed=5, index=0, tumor=False).scan(slices=26)
    image = torch.from_numpy(scan.image[None].astype(np.float32))
    return MetaTensor(image, affine=AS_SHOWN)


# Rows to posterior, columns to the patient's left, slices upwards.
AS_SHOWN = torch.tensor(np.array([[0, -0.94, 0, 120], [-0.94, 0, 0, 120], [0, 0, 5, -60], [0, 0, 0, 1]]))


def flags(volume: MetaTensor, values: np.ndarray | None = None, **meta: object) -> dict[str, str]:
    """Messages of the flags that a volume gets, by name; with other values if they are given."""
    image = volume.clone() if values is None else MetaTensor(torch.from_numpy(values[None]), affine=volume.affine)
    image.meta.update(meta)
    done = ImageChecksd("image")({"image": image})["image"]
    return {flag["name"]: flag["message"] for flag in case_flags(done.meta)}


def with_steps(rows: float, slices: float) -> MetaTensor:
    affine = AS_SHOWN.clone()
    affine[:, :2] *= rows / 0.94
    affine[:, 2] *= slices / 5
    return MetaTensor(phantom().as_tensor().clone(), affine=affine)


class TestOrdinaryImage:
    def test_flair_of_a_whole_head_gets_no_flag(self) -> None:
        assert flags(phantom()) == {}

    def test_scale_of_the_intensities_does_not_matter(self) -> None:
        assert flags(phantom(), phantom().numpy()[0] * np.float32(0.003) + 7) == {}

    def test_spacing_that_is_not_known_is_not_judged(self) -> None:
        assert flags(with_steps(0.1, 0.2), spacing_known=False) == {}

    def test_image_is_left_as_it_is_and_gets_the_frame_of_the_head(self) -> None:
        done = ImageChecksd("image")({"image": phantom().clone()})["image"]
        assert torch.equal(done.as_tensor(), phantom().as_tensor())
        frame = HeadFrame.from_text(done.meta["head_frame"])
        assert frame is not None
        assert 55 < frame.half_width < 85  # mm


class TestContrast:
    @pytest.mark.parametrize("contrast", CONTRASTS)
    def test_image_of_another_contrast_is_not_flair(self, contrast: str) -> None:
        assert "not_flair" in flags(phantom(contrast))

    def test_image_without_a_brain_is_not_flair(self) -> None:
        noise = np.random.default_rng(0).random((20, 20, 6), dtype=np.float32)
        assert "no brain" in flags(phantom(), noise)["not_flair"]


class TestSkull:
    def test_brain_without_skull_is_stripped(self) -> None:
        values = phantom().numpy()[0]
        assert "skull_stripped" in flags(phantom(), np.where(brain_mask(values), values, 0))

    def test_outside_that_is_nan_is_stripped_too(self) -> None:
        values = phantom().numpy()[0]
        assert "skull_stripped" in flags(phantom(), np.where(brain_mask(values), values, np.float32(np.nan)))


class TestExtent:
    def test_head_without_its_upper_third_is_cut(self) -> None:
        assert "highest slice" in flags(phantom(), phantom().numpy()[0][..., :16])["head_cut"]

    def test_head_that_leaves_the_picture_is_cut(self) -> None:
        values = phantom().numpy()[0]
        rows = np.flatnonzero(brain_mask(values).any((1, 2)))
        assert "edge of its slices" in flags(phantom(), values[: rows[-1] - 40].copy())["head_cut"]

    def test_single_slice_is_not_called_cut(self) -> None:
        assert "head_cut" not in flags(phantom(), phantom().numpy()[0][..., 15:16].copy())


class TestSpacing:
    def test_slices_of_one_mm_are_thin(self) -> None:
        assert "1 mm apart" in flags(with_steps(0.94, 1.0))["thin_slices"]

    def test_many_slices_of_unknown_distance_are_thin(self) -> None:
        many = phantom().numpy()[0].repeat(6, axis=-1)
        assert "slices with brain" in flags(phantom(), many, slice_spacing_known=False)["thin_slices"]

    @pytest.mark.parametrize("pixel", [0.2, 2.0])
    def test_pixels_far_from_those_of_training_are_resampled_far(self, pixel: float) -> None:
        assert f"{pixel:g} x {pixel:g} mm" in flags(with_steps(pixel, 5))["resampled_far"]

    def test_small_pixels_of_unknown_size_are_seen_by_the_size_of_the_brain(self) -> None:
        double = phantom().numpy()[0].repeat(2, 0).repeat(2, 1)
        assert "pixels long" in flags(phantom(), double, spacing_known=False)["resampled_far"]

    def test_spacing_is_that_of_the_volume_as_read(self) -> None:
        read = with_steps(2.0, 5.0)
        done = ImageChecksd("image")({"image": phantom().clone(), "flair": read})["image"]
        assert [flag["name"] for flag in case_flags(done.meta)] == ["resampled_far"]


class TestNoise:
    def test_noise_of_a_tenth_of_the_brain_is_noisy(self) -> None:
        values = phantom().numpy()[0]
        strength = 0.1 * np.median(values[brain_mask(values)])
        noisy = values + np.random.default_rng(0).normal(0, strength, values.shape).astype(np.float32)
        assert "its noise" in flags(phantom(), noisy)["noisy_or_moved"]

    def test_head_that_jumps_from_slice_to_slice_has_moved(self) -> None:
        values = phantom().numpy()[0].copy()
        values[..., ::2] = np.roll(values[..., ::2], 5, axis=1)
        assert "jumps" in flags(phantom(), values)["noisy_or_moved"]


class TestMeasures:
    def test_empty_brain_has_no_measures(self) -> None:
        assert image_measures(np.zeros((32, 32, 3)), np.zeros((32, 32, 3), dtype=bool)) is None
