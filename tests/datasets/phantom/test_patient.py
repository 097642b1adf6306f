"""Synthetic patients: one head in several scans, with a tumour of given place and size."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_parts import SMALL, needs_nilearn

from mri_seg.datasets.phantom import PhantomPatient, mean_diameter, phantom_volume, volume_of_diameter

COARSE = {"slices": 30, "size": 96, "spacing": 5.0}
VOXEL = (240 / 96) ** 2 * 5 / 1000  # mL


@needs_nilearn
class TestPhantomTumour:
    @pytest.mark.parametrize("position", [(-30, -20, 30), (35, 10, 25)])
    def test_phantom_tumour_has_the_place_and_the_volume_asked_for(self, position: tuple[int, int, int]):
        patient = PhantomPatient(0, 0, tumor=True, position=position, volume=40)
        scan = patient.scan(**COARSE)
        assert scan.volume == 40
        assert scan.mask.sum() * VOXEL == pytest.approx(40, rel=0.2)
        center = scan.to_head @ scan.affine @ [*np.argwhere(scan.mask).mean(0), 1]
        # The atlas and the patient's head differ by size and deformation; a tumour spreads unevenly.
        assert np.linalg.norm(center[:3] - position) < 30
        assert np.sign(center[0]) == np.sign(position[0])

    def test_phantom_tumour_grows_as_told_and_keeps_what_it_had(self):
        patient = PhantomPatient(0, 1, tumor=True, position=(-30, -20, 30))
        # In the same pose and grid, so that voxels can be compared.
        small, large = (patient.scan(0, diameter=d, **COARSE).mask for d in (30, 45))
        assert small.any()
        assert not (small & ~large).any()
        assert large.sum() / small.sum() == pytest.approx(1.5**3, rel=0.25)

    def test_healthy_phantom_has_an_empty_mask(self):
        patient = PhantomPatient(0, 0, tumor=False)
        scan = patient.scan(**SMALL)
        assert not scan.mask.any()
        assert scan.volume == 0
        with pytest.raises(ValueError, match="no tumour to size"):
            patient.scan(volume=3)
        with pytest.raises(ValueError, match="no tumour to place or size"):
            PhantomPatient(0, 0, tumor=False, diameter=30)

    def test_phantom_refuses_sizes_and_places_that_cannot_be(self):
        with pytest.raises(ValueError, match="expected a place in the brain"):
            PhantomPatient(0, 0, position=(400, 0, 0))
        patient = PhantomPatient(0, 0)
        with pytest.raises(ValueError, match="expected one of them"):
            patient.scan(volume=3, diameter=20)
        for volume in (0, -1, 5000):
            with pytest.raises(ValueError, match="mL; expected more than 0 and at most"):
                patient.scan(volume=volume, **SMALL)

    def test_mean_diameter_is_the_cube_root_of_twice_the_volume(self):
        assert mean_diameter(volume_of_diameter(35)) == pytest.approx(35)
        assert volume_of_diameter(20) == 4


@needs_nilearn
class TestPhantomScans:
    def test_same_scan_again_and_other_scans_differ(self):
        first, again, other = (PhantomPatient(1, 2).scan(number, **SMALL) for number in (0, 0, 1))
        np.testing.assert_array_equal(first.image, again.image)
        assert (first.image != other.image).any()
        assert not np.allclose(first.to_head, other.to_head)

    def test_scan_0_is_the_phantom_volume(self):
        scan = PhantomPatient(4, 2).scan(**SMALL)
        image, mask = phantom_volume(4, 2, **SMALL)
        np.testing.assert_array_equal(scan.image, image)
        np.testing.assert_array_equal(scan.mask, mask)

    def test_scans_of_a_phantom_show_the_same_tumour_at_the_same_place_of_the_head(self):
        patient = PhantomPatient(2, 0, position=(-35, -25, 25), volume=50)
        centers, volumes = [], []
        for number in range(3):
            scan = patient.scan(number, **COARSE)
            centers.append((scan.to_head @ scan.affine @ [*np.argwhere(scan.mask).mean(0), 1])[:3])
            volumes.append(scan.mask.sum() * VOXEL)
        assert np.ptp(centers, axis=0).max() < 2.5  # mm: half a slice
        assert max(volumes) < 1.1 * min(volumes)

    def test_pose_and_spacing_of_a_phantom_scan_can_be_given(self):
        scan = PhantomPatient(0, 0).scan(angles=(0, 0, 0), shift=(0, 0, 0), spacing=2.5, slices=4, size=48)
        np.testing.assert_allclose(scan.to_head, np.eye(4))
        np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), (5, 5, 2.5))
