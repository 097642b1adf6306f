"""Coordinates that are aligned with the head: from the midline, from front to back, and from low to high."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from mri_seg.transforms.midline import midline

__all__ = ["HeadFrame", "head_frame"]

_SMALLEST_BRAIN = 1000  # voxels; fewer do not tell how the head lies
_WIDTH = 98  # percentile of the distances from the midline that counts as half the brain's width
_ENDS = (0.5, 99.5)  # percentiles of the positions that count as the front and the back of the brain


class HeadFrame(NamedTuple):
    """A box around the brain, in the space of the volume's affine, so that it holds in every grid of that space.

    Attributes:
        matrix: ``(4, 4)``, from RAS coordinates to the box: the first coordinate is -1 at the right edge of the brain,
            0 in the plane between the hemispheres and 1 at the left edge; the second is 0 at the front and 1 at the
            back; the third is 0 in the lowest slice with brain and 1 in the highest.
        half_width: half the width of the brain in mm, or in pixels if the pixel size is not known.
    """

    matrix: np.ndarray
    half_width: float

    def coordinates(self, voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Coordinates in the box of the voxels ``(N, 3)`` of a volume with this affine; ``(N, 3)``."""
        return apply_affine(self.matrix @ np.asarray(affine, dtype=float), voxels)

    @property
    def midline(self) -> np.ndarray:
        """The plane between the hemispheres ``(4,)``: its product with a RAS point and 1 is a distance to the left."""
        return self.matrix[0] * self.half_width

    def to_text(self) -> str:
        """The frame as JSON text, which MONAI collates unchanged."""
        return json.dumps([self.matrix.tolist(), self.half_width])

    @classmethod
    def from_text(cls, text: str | None) -> HeadFrame | None:
        """The frame of :py:meth:`to_text`; None if there is no text."""
        if not text:
            return None
        matrix, half_width = json.loads(text)
        return cls(np.array(matrix), half_width)


def head_frame(volume: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> HeadFrame | None:
    """Find the head-aligned box around a brain.

    Args:
        volume: intensities ``(H, W, D)`` in axial orientation: rows to posterior, columns to the patient's left, slices
            to superior; pixels of the same height and width.
        brain: its brain, from :py:func:`mri_seg.transforms.brain.brain_mask`.
        affine: matrix ``(4, 4)`` from voxels to RAS coordinates.

    Returns:
        the frame; None if the brain is empty, as thin as one pixel or too small.
    """
    if np.count_nonzero(brain) < _SMALLEST_BRAIN:
        return None
    normal, offset = midline(np.nan_to_num(volume))
    rows, columns, slices = (axis.astype(float) for axis in np.nonzero(brain))
    width = float(np.percentile(np.abs(normal[0] * rows + normal[1] * columns + offset), _WIDTH))
    along = normal[1] * rows - normal[0] * columns  # normal[1] is positive: to the back
    front, back = np.percentile(along, _ENDS)
    low, high = slices.min(), slices.max()
    if not (width > 1 and back - front > 1):
        return None
    length, height = back - front, max(high - low, 1.0)
    to_box = np.array(
        [
            [normal[0] / width, normal[1] / width, 0, offset / width],
            [normal[1] / length, -normal[0] / length, 0, -front / length],
            [0, 0, 1 / height, -low / height],
            [0, 0, 0, 1],
        ]
    )
    affine = np.asarray(affine, dtype=float)
    pixel = float(np.linalg.norm(affine[:3, 1]))
    return HeadFrame(to_box @ np.linalg.inv(affine), width * pixel)
