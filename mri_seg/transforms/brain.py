"""A mask of the brain in FLAIR volumes of thick slices, with or without skull, by morphology alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

__all__ = ["BrainMaskd", "brain_mask"]

_HEAD = 0.12  # where the head begins, as a fraction of the way from the darkest to the brightest values
_TISSUE = 0.6  # where tissue begins, as a fraction of the way from air to the median of what lies deep
_DEEP = 12  # blocks of two pixels from the edge of the head, beyond scalp and skull
_HEMISPHERE = 4  # how many times less a region may hold of what lies deep than the one that holds most
_REACH = 4  # blocks by which the brain may be wider in a slice than in the one before


def brain_mask(volume: np.ndarray) -> np.ndarray:
    """The brain in a volume: what holds together once scalp is cut off along the dark ring of the skull.

    Works on blocks of 2 x 2 pixels: from the slice that has most deep tissue upwards and downwards, it keeps what
    overlaps the brain of the slice before.

    Args:
        volume: intensities ``(H, W, D)``, pixels of about 1 mm in plane, slices along the last axis.

    Returns:
        bool ``(H, W, D)``; of a volume without skull, nearly all of the head; empty if no brain is found.
    """
    blocks = _blocks(np.nan_to_num(volume.astype(np.float32)))
    low, high = np.percentile(blocks, (0.5, 99.5))
    head = np.stack([_filled(one > low + _HEAD * (high - low)) for one in blocks])
    depth = np.stack([ndimage.distance_transform_cdt(np.pad(one, 1), "chessboard")[1:-1, 1:-1] for one in head])
    deep = depth > _DEEP
    brain = np.zeros_like(head)
    if deep.any():
        tissue = low + _TISSUE * (np.median(blocks[deep]) - low)
        cores = [ndimage.binary_erosion(one & inside, _DISK[2]) for one, inside in zip(blocks > tissue, head)]
        first = int((np.stack(cores) & deep).sum((1, 2)).argmax())
        brain[first] = _grown(_deepest(cores[first], deep[first]), head[first])
        for numbers in (range(first + 1, len(cores)), range(first - 1, -1, -1)):
            before = brain[first]
            for n in numbers:
                within = ndimage.binary_dilation(before, _DISK[_REACH])
                core = _overlapping(cores[n] & within, before)
                if not core.any():
                    break
                before = brain[n] = _grown(core, head[n] & within)
    rows, columns, _ = volume.shape
    return brain.repeat(2, 1).repeat(2, 2)[:, :rows, :columns].transpose(1, 2, 0)


def _disk(radius: int) -> np.ndarray:
    return np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius + 0.3


_DISK = {radius: _disk(radius) for radius in (1, 2, 3, 4)}


def _blocks(volume: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, slices first."""
    rows, columns, depth = volume.shape
    volume = np.pad(volume, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
    return volume.reshape(len(volume) // 2, 2, -1, 2, depth).mean((1, 3)).transpose(2, 0, 1)


def _filled(bright: np.ndarray) -> np.ndarray:
    """The largest region of a slice, closed and filled."""
    closed = ndimage.binary_closing(np.pad(bright, 4), _DISK[2])[4:-4, 4:-4]
    labels, count = ndimage.label(ndimage.binary_opening(ndimage.binary_fill_holes(closed), _DISK[1]))
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1 if count else bright & False


def _deepest(core: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """The region of a core that holds most of what lies deep, and others with much of it, such as a hemisphere."""
    labels, count = ndimage.label(core)
    inside = np.bincount(labels[deep], minlength=count + 1)
    inside[0] = 0
    keep = (inside > 0) & (inside * _HEMISPHERE >= inside.max())
    return keep[labels]


def _overlapping(core: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Regions of a core of which at least a third lies in the brain of the slice before."""
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    inside = np.bincount(labels[before], minlength=count + 1)
    keep = inside * 3 >= sizes
    keep[0] = False
    return keep[labels]


def _grown(core: np.ndarray, within: np.ndarray) -> np.ndarray:
    """A core grown back to the brain's edge, gaps between gyri closed, filled."""
    grown = np.pad(ndimage.binary_dilation(core, _DISK[3]), 6)
    return ndimage.binary_fill_holes(ndimage.binary_closing(grown, _DISK[4]))[6:-6, 6:-6] & within


class BrainMaskd(MapTransform):
    """Add the brain of a volume as a mask of its own.

    Args:
        keys: key of the volume ``(1, H, W, D)``, brought to axial orientation before.
        name: key of the mask.
    """

    def __init__(self, keys: KeysCollection, name: str = "brain") -> None:
        super().__init__(keys)
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask ``(1, H, W, D)``, uint8, in the geometry of the volume."""
        d = dict(data)
        for key in self.key_iterator(d):
            mask = brain_mask(d[key].numpy()[0])
            d[self.name] = MetaTensor(torch.from_numpy(mask[None].astype(np.uint8)), affine=d[key].affine)
        return d
