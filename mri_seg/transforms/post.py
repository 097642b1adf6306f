"""Clean predicted masks: remove lesions that are too small or outside the brain, and fill holes in axial slices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from nibabel.affines import apply_affine
from scipy import ndimage

from mri_seg.measurements.lesions import PLAIN_SPACING, bounding_box, label_lesions, slice_axis
from mri_seg.utils.flags import flag

__all__ = ["FillHolesInSlicesd", "RemoveLesionsOutsideBraind", "RemoveSmallLesionsd"]


class RemoveSmallLesionsd(MapTransform):
    """Remove lesions (26-connected components of a binary mask) that are small, in themselves or beside the largest.

    A lesion is kept if it has a volume, and also a fraction of the volume of the largest and a number of axial slices.
    The largest lesion may have fewer slices, and so may one in the first or last slice of the volume, which may go on
    beyond it.

    The volume of a voxel comes from the affine. If the metadata say that a spacing is not known, a usual one is used
    instead: for all three axes if ``spacing_known`` is false (TIFF without pixel size, and volumes without metadata),
    only for the slices if just ``slice_spacing_known`` is false. MONAI's ``RemoveSmallObjectsd`` uses only the affine,
    and needs scikit-image.

    What was removed for its fraction or its slices, not for its volume, is kept in the metadata of the mask, under
    ``left_out``: a JSON list of fractions of the largest lesion, the largest first.

    Args:
        keys: keys of the masks.
        smallest: volume of the smallest lesion that is kept, in mm3; 0 keeps all.
        smallest_fraction: fraction of the volume of the largest lesion that the smallest one has that is kept.
        fewest_slices: number of axial slices of a lesion that is kept; 1 keeps all.
        unknown_spacing: spacing of rows, columns and slices in mm that is used if the real one is unknown.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``smallest`` is negative, ``smallest_fraction`` is not from 0 to 1, ``fewest_slices`` is under
            1, or ``unknown_spacing`` is not three positive numbers.

    Example::

        >>> import torch
        >>> mask = MetaTensor(torch.eye(4).reshape(1, 4, 4, 1), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        >>> remove = RemoveSmallLesionsd("pred", smallest=20.5)  # the four voxels touch: 20 mm3 together
        >>> remove({"pred": mask})["pred"].sum().item()
        0.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        smallest: float,
        smallest_fraction: float = 0.0,
        fewest_slices: int = 1,
        *,
        unknown_spacing: Sequence[float] = PLAIN_SPACING,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not smallest >= 0:
            raise ValueError(f"smallest must be a volume in mm3, 0 or more, got {smallest}.")
        if not 0 <= smallest_fraction <= 1:
            raise ValueError(f"smallest_fraction must be from 0 to 1, got {smallest_fraction}.")
        if not fewest_slices >= 1:
            raise ValueError(f"fewest_slices must be a number of slices, 1 or more, got {fewest_slices}.")
        if len(unknown_spacing) != 3 or not all(0 < s < math.inf for s in unknown_spacing):
            raise ValueError(f"unknown_spacing must be three positive numbers in mm, got {unknown_spacing}.")
        self.smallest = smallest
        self.smallest_fraction = smallest_fraction
        self.fewest_slices = fewest_slices
        self.unknown_spacing = tuple(float(s) for s in unknown_spacing)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Remove small lesions from each mask ``(1, H, W, D)``; type, device and metadata stay."""
        d = dict(data)
        if self.smallest > 0 or self.smallest_fraction > 0 or self.fewest_slices > 1:
            for key in self.key_iterator(d):
                # Less a billionth of a voxel, so that a lesion of exactly this volume is kept despite rounding.
                voxels = self.smallest / _voxel_volume(d[key], self.unknown_spacing) - 1e-9
                left_out: list[float] = []
                axis, shape = slice_axis(_affine(d[key])), tuple(d[key].shape[1:])
                mask = _changed(
                    d[key], partial(self._without_small, voxels=voxels, axis=axis, shape=shape, left_out=left_out)
                )
                if isinstance(mask, MetaTensor):
                    mask.meta["left_out"] = json.dumps(sorted(left_out, reverse=True))
                d[key] = mask
        return d

    def _without_small(
        self, mask: np.ndarray, first: np.ndarray, voxels: float, axis: int, shape: tuple, left_out: list[float]
    ) -> np.ndarray:
        """Keep the lesions that are large enough; ``left_out`` gets the fractions of those that have enough voxels.

        ``first`` is the voxel at which the box begins, in a volume of a shape whose slices are stacked along an axis.
        """
        labels, count = label_lesions(mask)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 0
        large = sizes >= max(voxels, 1)
        fractions = sizes / sizes.max()
        small = large & (fractions < self.smallest_fraction)
        for number, box in enumerate(ndimage.find_objects(labels) if self.fewest_slices > 1 else [], start=1):
            low, high = box[axis].start + first[axis], box[axis].stop + first[axis]
            within = low > 0 and high < shape[axis] and fractions[number] < 1
            small[number] |= large[number] and within and high - low < self.fewest_slices
        left_out += fractions[small].tolist()
        return (large & ~small)[labels]


class RemoveLesionsOutsideBraind(MapTransform):
    """Remove lesions (26-connected components of a binary mask) that lie outside the brain, such as fat of the orbit.

    The brain is a mask in a grid of its own, such as that of :py:class:`mri_seg.transforms.brain.BrainMaskd`. A slice
    in which it is empty gets that of the nearest slice in which it is not: where the mask of the brain ends too early,
    no lesion at the vertex is lost. If it is empty in every slice, all lesions are kept.

    The volumes of what was removed are kept in the metadata of the mask, under ``outside_brain``: a JSON list in mm3,
    the largest first. Voxels of unknown size count as 0.94 x 0.94 x 5 mm.

    Args:
        keys: keys of the masks.
        smallest_fraction: fraction of a lesion that must lie in the brain for it to be kept; 0 keeps all.
        brain: key of the mask of the brain ``(1, H, W, D)``, in the space of the masks, slices along the last axis.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``smallest_fraction`` is not from 0 to 1.

    Example::

        >>> import torch
        >>> mask = MetaTensor(torch.eye(4).reshape(1, 4, 4, 1), affine=torch.eye(4))
        >>> brain = torch.zeros(1, 4, 4, 1)
        >>> brain[0, 0, 0] = 1  # a fourth of the lesion
        >>> RemoveLesionsOutsideBraind("pred", 0.5)({"pred": mask, "brain": brain})["pred"].sum().item()
        0.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        smallest_fraction: float,
        *,
        brain: str = "brain",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= smallest_fraction <= 1:
            raise ValueError(f"smallest_fraction must be from 0 to 1, got {smallest_fraction}.")
        self.smallest_fraction = smallest_fraction
        self.brain = brain

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Remove lesions from each mask ``(1, H, W, D)``; type, device and metadata stay.

        Raises:
            KeyError: when there is no mask, or no mask of the brain.
        """
        d = dict(data)
        if self.smallest_fraction > 0:
            for key in self.key_iterator(d):
                brain = convert_to_numpy(d[self.brain])[0] > 0
                if not brain.any():
                    continue
                removed: list[int] = []
                to_brain = np.linalg.inv(_affine(d[self.brain])) @ _affine(d[key])
                mask = _changed(d[key], partial(self._inside, brain=brain, to_brain=to_brain, removed=removed))
                if isinstance(mask, MetaTensor):
                    voxel = _voxel_volume(mask, PLAIN_SPACING)
                    mask.meta["outside_brain"] = json.dumps([voxel * n for n in sorted(removed, reverse=True)])
                d[key] = mask
        return d

    def _inside(
        self, mask: np.ndarray, first: np.ndarray, brain: np.ndarray, to_brain: np.ndarray, removed: list[int]
    ) -> np.ndarray:
        """Keep the lesions of a box that lie in the brain; ``removed`` gets the number of voxels of each of the others.

        ``first`` is the voxel at which the box begins.
        """
        labels, count = label_lesions(mask)
        voxels = np.argwhere(labels)
        numbers = labels[labels > 0]
        sizes = np.bincount(numbers, minlength=count + 1)
        inside = np.bincount(numbers, _in_brain(brain, apply_affine(to_brain, voxels + first)), count + 1)
        outside = inside < self.smallest_fraction * sizes
        removed += sizes[outside].tolist()
        return (labels > 0) & ~outside[labels]


class FillHolesInSlicesd(MapTransform):
    """Fill the holes of binary masks in their axial slices.

    A hole is background that is enclosed within its slice, with pixels joined by edges. Slices are stacked along the
    axis that is closest to superior. MONAI's ``FillHolesd`` fills only holes that are closed in all three directions,
    which are rare if slices are thick.

    Args:
        keys: keys of the masks.
        enabled: whether to fill holes; if false, masks stay as they are.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(self, keys: KeysCollection, enabled: bool | str = True, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.enabled = flag(enabled, "fill_holes")

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Fill holes of each mask ``(1, H, W, D)``; without an affine, slices are along the last axis.

        Type and metadata stay.
        """
        d = dict(data)
        if self.enabled:
            for key in self.key_iterator(d):
                mask = d[key]
                axis = slice_axis(_affine(mask))
                d[key] = _changed(mask, partial(_filled, axis=axis))
        return d


def _changed(masks: NdarrayOrTensor, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Any:
    """Apply a function to each channel ``(H, W, D)`` as a boolean mask; type, device and metadata stay.

    The function gets only the box around the mask, and the voxel at which it begins; outside, the mask stays empty.
    """
    if masks.ndim != 4:
        raise ValueError(f"the mask must be a volume (1, H, W, D), got shape {tuple(masks.shape)}.")
    changed = convert_to_numpy(masks) > 0
    for mask in changed:
        if mask.any():
            box = bounding_box(mask)
            mask[box] = change(mask[box], np.array([side.start for side in box]))
    return convert_to_dst_type(changed, masks)[0]


def _affine(mask: NdarrayOrTensor) -> np.ndarray:
    return convert_to_numpy(mask.affine).astype(float) if isinstance(mask, MetaTensor) else np.eye(4)


def _voxel_volume(mask: NdarrayOrTensor, unknown_spacing: Sequence[float]) -> float:
    """Volume of a voxel in mm3."""
    if not isinstance(mask, MetaTensor) or not mask.meta.get("spacing_known", True):
        return math.prod(unknown_spacing)
    axes = _affine(mask)[:3, :3]
    if not mask.meta.get("slice_spacing_known", True):
        return float(np.linalg.norm(np.cross(axes[:, 0], axes[:, 1]))) * unknown_spacing[2]
    return abs(float(np.linalg.det(axes)))


def _in_brain(brain: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether points ``(N, 3)``, in voxels of a brain, lie in it, or in its nearest slice if their own is empty."""
    found = np.flatnonzero(brain.any((0, 1)))
    nearest = found[np.abs(found - np.arange(brain.shape[2])[:, None]).argmin(1)]
    rows, columns, slices = np.rint(points).astype(int).T
    height, width, depth = brain.shape
    known = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    slices = nearest[slices.clip(0, depth - 1)]
    return brain[rows.clip(0, height - 1), columns.clip(0, width - 1), slices] & known


def _filled(mask: np.ndarray, _: np.ndarray, axis: int) -> np.ndarray:
    """Fill the holes of a mask in the slices along an axis."""
    slices = np.moveaxis(mask, axis, 0)
    filled = [ndimage.binary_fill_holes(pixels) if pixels.any() else pixels for pixels in slices]
    return np.moveaxis(np.stack(filled), 0, axis)
