"""How much of a tumour lies in the field of view of another scan."""

from __future__ import annotations

import numpy as np
from nibabel.affines import apply_affine

from mri_seg.follow_up.timeline import TimePoint

__all__ = ["CUT", "share_outside"]

CUT = 0.1
"""Share of a tumour outside a field of view from which scans are not compared for a category."""


def share_outside(mask: np.ndarray, point: TimePoint, other: TimePoint) -> float:
    """Share of the voxels of a mask that lie outside the field of view of another scan.

    Args:
        mask: ``(H, W, D)``, in the grid of a scan.
        point: that scan.
        other: the other scan.

    Returns:
        from 0 to 1; 0 for an empty mask.
    """
    voxels = np.argwhere(mask)
    if not len(voxels):
        return 0.0
    to_other = np.linalg.inv(other.scan.affine) @ other.from_first @ np.linalg.inv(point.from_first)
    places = apply_affine(to_other @ point.scan.affine, voxels)
    inside = ((places >= -0.5) & (places <= np.array(other.scan.mask.shape) - 0.5)).all(axis=1)
    return float(1 - inside.mean())
