"""Synthetic volumes: what they look like."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_parts import SMALL, needs_nilearn
from scipy import ndimage

from mri_seg.datasets.phantom import phantom_volume
from mri_seg.datasets.phantom.volume import has_tumor


@needs_nilearn
class TestVolume:
    def test_phantom_volume_has_shape_and_dtype(self):
        image, mask = phantom_volume(0, 0, slices=4, size=48)
        assert image.shape == mask.shape == (48, 48, 4)
        assert image.dtype == np.uint8
        assert mask.dtype == bool

    def test_phantom_volume_has_24_to_30_slices_by_default(self):
        depths = {phantom_volume(0, index, size=16)[0].shape[-1] for index in range(6)}
        assert depths <= set(range(24, 31))
        assert len(depths) > 1

    @pytest.mark.parametrize("slices", [1, 2])
    def test_phantom_of_few_slices_still_shows_the_tumour(self, slices: int):
        for index in range(3):
            assert phantom_volume(3, index, slices=slices, size=64)[1].any()

    def test_same_seed_and_index_same_volume(self):
        for first, second in zip(phantom_volume(1, 2, **SMALL), phantom_volume(1, 2, **SMALL)):
            np.testing.assert_array_equal(first, second)

    def test_other_seed_or_index_other_volume(self):
        image = phantom_volume(1, 2, **SMALL)[0]
        assert (image != phantom_volume(2, 2, **SMALL)[0]).any()
        assert (image != phantom_volume(1, 3, **SMALL)[0]).any()

    def test_phantom_volume_rejects_what_is_out_of_range(self):
        with pytest.raises(ValueError, match="seed is -1; expected 0 or more"):
            phantom_volume(-1, 0)
        with pytest.raises(ValueError, match="slices is 0; expected 1 or more"):
            phantom_volume(0, 0, slices=0)
        with pytest.raises(ValueError, match="size is 8; expected 16 or more"):
            phantom_volume(0, 0, size=8)


@needs_nilearn
class TestPicture:
    def test_background_is_near_zero_and_the_head_is_not(self):
        for index in range(4):
            image = phantom_volume(0, index, slices=5, size=64)[0]
            assert image[:4, :4].mean() < 6
            assert np.median(image[24:40, 24:40]) > 10

    def test_scale_differs_between_patients(self):
        brightest = [np.percentile(phantom_volume(0, index, **SMALL)[0], 99) for index in range(12)]
        assert max(brightest) > 2.5 * min(brightest)

    def test_nose_is_above_and_brain_fills_the_lower_half(self):
        # The lowest slices: the face tapers towards the first rows.
        image = np.mean([phantom_volume(0, index, size=64)[0][..., 1] for index in range(4)], axis=0)
        rows, columns = np.nonzero(image > image.max() / 10)
        middle = (rows.min() + rows.max()) / 2
        widths = [np.ptp(columns[rows < middle - 18]), np.ptp(columns[rows > middle + 18])]
        assert widths[0] < widths[1]

    def test_tumour_outshines_its_surroundings_on_average(self):
        ratios = []
        for index in range(5):
            image, mask = phantom_volume(11, index, slices=10, size=96, tumor=True)
            near = ndimage.binary_dilation(mask, np.ones((3, 3, 1)), iterations=4) & ~mask
            ratios.append(image[mask].mean() / image[near].mean())
        assert np.mean(ratios) > 1.2

    def test_tumour_is_a_plausible_part_of_the_head(self):
        for index in range(5):
            mask = phantom_volume(11, index, size=64, tumor=True)[1]
            largest = mask.sum((0, 1)).max() * (240 / 64) ** 2 / 100  # cm2
            assert 1 < largest < 100
            assert mask.any((0, 1)).mean() < 0.8

    def test_tumour_can_be_left_out(self):
        assert not phantom_volume(11, 0, tumor=False, **SMALL)[1].any()


class TestHasTumour:
    @pytest.mark.parametrize("seed", range(5))
    def test_one_phantom_of_each_six_has_no_tumour(self, seed: int):
        tumours = np.array([has_tumor(seed, index) for index in range(24)]).reshape(4, 6)
        assert (tumours.sum(1) == 5).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_first_three_phantoms_have_a_tumour(self, seed: int):
        assert all(has_tumor(seed, index) for index in range(3))

    @needs_nilearn
    def test_mask_agrees_with_has_tumor(self):
        for index in range(6):
            assert phantom_volume(4, index, slices=6, size=48)[1].any() == has_tumor(4, index)
