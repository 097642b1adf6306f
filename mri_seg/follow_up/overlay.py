"""A picture by which a person checks that a scan lies on the first: both in colors that add up to gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from mri_seg.follow_up.timeline import Timeline, TimePoint
from mri_seg.utils.orientation import AXIAL
from mri_seg.visualize.overlays import gray_levels, save_png

__all__ = ["overlay", "to_axial", "write_overlay"]

SLICES = 5
_GAP = 2


def to_axial(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn a volume so that rows run to posterior, columns to the patient's left and slices to superior."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(AXIAL)))
    return np.asarray(apply_orientation(volume, turn))


def overlay(timeline: Timeline, point: TimePoint) -> np.ndarray:
    """Show slices of the first scan in green and of another, in the same place, in magenta: gray where they agree.

    Args:
        timeline: the patient.
        point: the other scan.

    Returns:
        picture ``(h, w, 3)``, uint8: slices at even distances, from the lowest.
    """
    affine = timeline.points[0].scan.affine
    one, other = (gray_levels(to_axial(each.image, affine)) for each in (timeline.points[0], point))
    depth = one.shape[-1]
    numbers = sorted({round((n + 1) * (depth - 1) / (SLICES + 1)) for n in range(SLICES)})
    tiles = [np.stack([other[..., n], one[..., n], other[..., n]], axis=-1) for n in numbers]
    gap = np.zeros((one.shape[0], _GAP, 3), dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def write_overlay(path: Path, timeline: Timeline, point: TimePoint) -> None:
    """Write the picture of :py:func:`overlay` as PNG."""
    save_png(path, overlay(timeline, point))
