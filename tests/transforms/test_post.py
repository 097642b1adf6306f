"""Lesions removed by volume and by place, holes filled slice by slice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd

from mri_seg.transforms.post import FillHolesInSlicesd, RemoveLesionsOutsideBraind, RemoveSmallLesionsd

SPACING = (0.5, 2.0, 3.0)  # voxels of 3 mm3


def mask_of(voxels: torch.Tensor, spacing: tuple[float, ...] = SPACING, **meta: object) -> MetaTensor:
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)), meta=meta)


def lesions(dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Lesions of 1, 4 (joined at corners) and 27 voxels."""
    voxels = torch.zeros(1, 12, 12, 8, dtype=dtype)
    voxels[0, 0, 0, 0] = 1
    for n in range(4):
        voxels[0, 3 + n, 3 - (n % 2), 3 + n % 2] = 1
    voxels[0, 8:11, 8:11, 4:7] = 1
    return voxels


def left(mask: torch.Tensor, smallest: float, **options: object) -> int:
    return int(RemoveSmallLesionsd("pred", smallest, **options)({"pred": mask})["pred"].sum())


class TestRemoveSmallLesions:
    @pytest.mark.parametrize(
        ("smallest", "voxels"), [(0, 32), (3, 32), (3.01, 31), (12, 31), (12.01, 27), (81, 27), (82, 0)]
    )
    def test_remove_small_lesions_goes_by_volume_in_mm3(self, smallest: float, voxels: int) -> None:
        assert left(mask_of(lesions()), smallest) == voxels

    def test_remove_small_lesions_keeps_a_lesion_of_just_the_volume_despite_rounding(self) -> None:
        assert left(mask_of(lesions(), (0.1, 0.1, 0.1)), 27 * 0.1**3) == 27

    def test_voxels_that_touch_at_a_corner_are_one_lesion(self) -> None:
        diagonal = torch.eye(5).reshape(1, 5, 5, 1)
        assert left(mask_of(diagonal), 15) == 5

    def test_remove_small_lesions_does_not_depend_on_the_order_of_axes(self) -> None:
        turn = Orientationd("pred", axcodes="SLA", labels=None)
        assert left(turn({"pred": mask_of(lesions())})["pred"], 12.01) == 27

    def test_an_empty_mask_stays_empty(self) -> None:
        assert left(mask_of(torch.zeros(1, 5, 5, 5)), 10) == 0

    def test_a_full_mask_stays_full(self) -> None:
        assert left(mask_of(torch.ones(1, 5, 5, 5)), 10) == 125

    def test_remove_small_lesions_leaves_the_input_alone(self) -> None:
        mask = mask_of(lesions())
        left(mask, 50)
        assert mask.sum() == 32


class TestSmallBesideTheLargest:
    @pytest.mark.parametrize(
        ("fraction", "voxels"), [(0, 32), (1 / 27, 32), (0.04, 31), (4 / 27, 31), (0.15, 27), (1, 27)]
    )
    def test_lesions_go_by_their_fraction_of_the_largest(self, fraction: float, voxels: int) -> None:
        assert left(mask_of(lesions()), 0, smallest_fraction=fraction) == voxels

    def test_fractions_of_lesions_that_only_miss_the_fraction_are_kept_in_the_metadata(self) -> None:
        remove = RemoveSmallLesionsd("pred", 12, 0.2)  # the lesion of 1 voxel is too small in any case
        assert json.loads(remove({"pred": mask_of(lesions())})["pred"].meta["left_out"]) == [pytest.approx(4 / 27)]

    def test_only_lesion_is_kept_however_small_it_is(self) -> None:
        mask = torch.zeros(1, 5, 5, 5)
        mask[0, 2, 2, 2] = 1
        assert left(mask_of(mask), 0, smallest_fraction=1) == 1

    @pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
    def test_what_is_no_fraction_is_refused(self, fraction: float) -> None:
        with pytest.raises(ValueError, match="smallest_fraction must be from 0 to 1"):
            RemoveSmallLesionsd("pred", 0, fraction)


class TestFewSlices:
    """Lesions of 1, 2 and 3 slices; the largest has 3."""

    @pytest.mark.parametrize(("slices", "voxels"), [(1, 32), (2, 32), (3, 28), (4, 28)])
    def test_lesions_go_by_their_slices_but_for_the_largest_and_those_at_an_end(self, slices: int, voxels: int) -> None:
        assert left(mask_of(lesions()), 0, fewest_slices=slices) == voxels

    @pytest.mark.parametrize(("number", "voxels"), [(0, 29), (1, 27), (6, 27), (7, 29)])
    def test_lesion_at_either_end_may_go_on_beyond_it(self, number: int, voxels: int) -> None:
        mask = lesions()
        mask[0, :7] = 0
        mask[0, 2, 3:5, number] = 1
        assert left(mask_of(mask), 0, fewest_slices=2) == voxels

    def test_slices_are_axial_whatever_the_order_of_the_axes(self) -> None:
        mask = lesions()
        mask[0, :7] = 0
        mask[0, 2:5, 3, 2] = 1
        turned = Orientationd("pred", axcodes="SLA", labels=None)({"pred": mask_of(mask)})["pred"]
        assert left(turned, 0, fewest_slices=2) == 27

    def test_only_slice_of_a_volume_keeps_its_lesions(self) -> None:
        mask = torch.zeros(1, 12, 12, 1)
        mask[0, 1:3, 1:3] = mask[0, 6:9, 6:9] = 1
        assert left(mask_of(mask), 0, fewest_slices=2) == 13

    def test_fractions_of_lesions_in_too_few_slices_are_kept_in_the_metadata(self) -> None:
        remove = RemoveSmallLesionsd("pred", 0, fewest_slices=3)
        assert json.loads(remove({"pred": mask_of(lesions())})["pred"].meta["left_out"]) == [pytest.approx(4 / 27)]

    def test_number_of_slices_is_refused_if_it_is_none(self) -> None:
        with pytest.raises(ValueError, match="fewest_slices must be a number of slices, 1 or more"):
            RemoveSmallLesionsd("pred", 0, fewest_slices=0)


class TestUnknownSpacing:
    def test_unknown_spacing_of_pixels_and_slices_is_stood_in_for(self) -> None:
        mask = mask_of(lesions(), (1, 1, 1), spacing_known=False)
        assert left(mask, 4 * 0.94 * 0.94 * 5) == 31
        assert left(mask, 4 * 0.94 * 0.94 * 5 + 0.01) == 27
        assert left(mask, 9, unknown_spacing=(1, 1, 2)) == 27

    def test_unknown_spacing_of_slices_is_stood_in_for(self) -> None:
        mask = mask_of(lesions(), (0.5, 2, 1), slice_spacing_known=False)
        assert left(mask, 4 * 0.5 * 2 * 5) == 31
        assert left(mask, 4 * 0.5 * 2 * 5 + 0.01) == 27

    def test_unknown_spacing_is_that_of_masks_without_metadata(self) -> None:
        assert left(lesions(), 4 * 0.94 * 0.94 * 5) == 31

    @pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, float("nan"))])
    def test_unknown_spacing_has_no_stand_in_that_is_not_a_spacing(self, spacing: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="unknown_spacing must be three positive numbers in mm, got"):
            RemoveSmallLesionsd("pred", 5, unknown_spacing=spacing)


class TestSmallest:
    @pytest.mark.parametrize("smallest", [-1, float("nan")])
    def test_smallest_volume_is_not_negative(self, smallest: float) -> None:
        with pytest.raises(ValueError, match="smallest must be a volume in mm3, 0 or more, got"):
            RemoveSmallLesionsd("pred", smallest)


def brain_of(*rows: int, slices: tuple[int, ...] = tuple(range(8))) -> MetaTensor:
    """A brain that fills these rows of these slices, in the grid of ``lesions``."""
    voxels = torch.zeros(1, 12, 12, 8, dtype=torch.uint8)
    for row in rows:
        for number in slices:
            voxels[0, row, :, number] = 1
    return mask_of(voxels)


def in_brain(mask: torch.Tensor, brain: torch.Tensor, fraction: float = 0.5) -> MetaTensor:
    return RemoveLesionsOutsideBraind("pred", fraction)({"pred": mask, "brain": brain})["pred"]


class TestRemoveLesionsOutsideBrain:
    @pytest.mark.parametrize(("fraction", "voxels"), [(0, 32), (0.1, 31), (2 / 3, 31), (0.67, 4), (1, 4)])
    def test_lesions_go_by_their_fraction_in_the_brain(self, fraction: float, voxels: int) -> None:
        assert in_brain(mask_of(lesions()), brain_of(*range(3, 10)), fraction).sum() == voxels

    def test_volumes_of_what_was_removed_are_kept_in_the_metadata(self) -> None:
        found = in_brain(mask_of(lesions()), brain_of(3, 4, 5, 6)).meta
        assert json.loads(found["outside_brain"]) == pytest.approx([81, 3])

    def test_brain_may_have_another_grid_and_other_axes(self) -> None:
        brain = brain_of(*range(3, 12))
        coarse = mask_of(brain[:, ::2, ::2].as_tensor(), (1.0, 4.0, 3.0))
        turned = Orientationd("brain", axcodes="PLS", labels=None)({"brain": coarse})["brain"]
        assert turned.shape != coarse.shape or not torch.equal(turned.affine, coarse.affine)
        assert in_brain(mask_of(lesions()), turned).sum() == 31

    @pytest.mark.parametrize("slices", [(0, 1), (6, 7), (3,)])
    def test_lesion_beyond_the_ends_of_the_brain_is_judged_by_the_nearest_slice(self, slices: tuple[int, ...]) -> None:
        assert in_brain(mask_of(lesions()), brain_of(*range(3, 12), slices=slices)).sum() == 31

    def test_no_lesion_is_removed_where_no_brain_was_found(self) -> None:
        assert in_brain(mask_of(lesions()), brain_of()).sum() == 32

    def test_an_empty_mask_stays_empty(self) -> None:
        assert in_brain(mask_of(torch.zeros(1, 12, 12, 8)), brain_of(4)).sum() == 0

    def test_brain_is_not_needed_if_all_lesions_are_kept(self) -> None:
        assert RemoveLesionsOutsideBraind("pred", 0)({"pred": mask_of(lesions())})["pred"].sum() == 32

    def test_missing_brain_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="brain"):
            RemoveLesionsOutsideBraind("pred", 0.5)({"pred": mask_of(lesions())})

    @pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
    def test_what_is_no_fraction_is_refused(self, fraction: float) -> None:
        with pytest.raises(ValueError, match="smallest_fraction must be from 0 to 1"):
            RemoveLesionsOutsideBraind("pred", fraction)


def ring(size: int = 9) -> torch.Tensor:
    """A square ring around a hole, in slices 1 and 2 of 4; the third has a ring with a gap."""
    voxels = torch.zeros(1, size, size + 1, 4, dtype=torch.uint8)
    voxels[0, 2:7, 2:7, 1:4] = 1
    voxels[0, 3:6, 3:6, 1:4] = 0
    voxels[0, 4, 2, 3] = 0
    return voxels


class TestFillHolesInSlices:
    def test_fill_holes_fills_what_is_closed_within_a_slice(self) -> None:
        filled = FillHolesInSlicesd("pred")({"pred": mask_of(ring())})["pred"]
        assert filled[0].sum(dim=(0, 1)).tolist() == [0, 25, 25, 15]

    def test_a_corner_is_no_way_out(self) -> None:
        diamond = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).reshape(1, 3, 3, 1)
        assert FillHolesInSlicesd("pred")({"pred": mask_of(diamond)})["pred"].sum() == 5

    def test_background_at_the_edge_is_no_hole(self) -> None:
        bay = torch.tensor([[1, 0, 1], [1, 1, 1]]).reshape(1, 2, 3, 1)
        assert FillHolesInSlicesd("pred")({"pred": mask_of(bay)})["pred"].sum() == 5

    @pytest.mark.parametrize("axcodes", ["RAS", "PLS", "SLA", "LIP", "ASR"])
    def test_slices_are_axial_in_any_orientation(self, axcodes: str) -> None:
        turn, fill = Orientationd("pred", axcodes=axcodes, labels=None), FillHolesInSlicesd("pred")
        turned_first = Compose([turn, fill])({"pred": mask_of(ring())})["pred"]
        filled_first = Compose([fill, turn])({"pred": mask_of(ring())})["pred"]
        assert torch.equal(turned_first.as_tensor(), filled_first.as_tensor())
        assert turned_first.sum() == 65

    def test_slices_of_masks_without_affine_follow_the_last_axis(self) -> None:
        assert FillHolesInSlicesd("pred")({"pred": ring()})["pred"].sum() == 65

    def test_fill_holes_can_be_switched_off(self) -> None:
        assert FillHolesInSlicesd("pred", enabled=False)({"pred": mask_of(ring())})["pred"].sum() == 47

    def test_an_empty_mask_stays_empty(self) -> None:
        assert FillHolesInSlicesd("pred")({"pred": mask_of(torch.zeros(1, 5, 5, 5))})["pred"].sum() == 0


@pytest.mark.parametrize(
    "transform",
    [RemoveSmallLesionsd("pred", 5), RemoveLesionsOutsideBraind("pred", 0.5), FillHolesInSlicesd("pred")],
)
class TestAll:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
    def test_post_transforms_keep_type_metadata_and_device(self, transform: object, dtype: torch.dtype) -> None:
        mask = mask_of(lesions(dtype), case="one")
        result = transform({"pred": mask, "image": 1, "brain": brain_of(*range(3, 12))})
        assert result["image"] == 1
        result = result["pred"]
        assert isinstance(result, MetaTensor)
        assert (result.dtype, result.device, result.meta["case"]) == (dtype, mask.device, "one")
        assert torch.equal(result.affine, mask.affine)
        assert set(np.unique(result.numpy())) <= {0, 1}

    def test_post_transforms_keep_what_was_applied_before(self, transform: object) -> None:
        mask = Orientationd("pred", axcodes="LPS", labels=None)({"pred": mask_of(lesions())})
        assert (
            transform({**mask, "brain": brain_of(4)})["pred"].applied_operations
            == mask["pred"].applied_operations
            != []
        )

    def test_post_transforms_need_their_keys_unless_told_otherwise(self, transform: object) -> None:
        with pytest.raises(KeyError):
            transform({})
        name = type(transform)
        options = {RemoveSmallLesionsd: {"smallest": 5}, RemoveLesionsOutsideBraind: {"smallest_fraction": 0.5}}.get(
            name, {}
        )
        assert name("pred", allow_missing_keys=True, **options)({}) == {}

    def test_post_transforms_refuse_what_is_no_volume(self, transform: object) -> None:
        with pytest.raises(ValueError, match=r"must be a volume \(1, H, W, D\), got shape \(4, 4, 4\)"):
            transform({"pred": torch.ones(4, 4, 4), "brain": brain_of(4)})
