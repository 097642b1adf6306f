"""Synthetic tumours: position, shape and appearance on FLAIR."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mri_seg.datasets.phantom.fields import SmoothField

__all__ = ["Grid", "Lesion", "grow_lesion", "scatter_spots"]


class Grid(NamedTuple):
    """Positions of the voxels of a picture, in mm: of its rows, columns and slices."""

    rows: np.ndarray
    columns: np.ndarray
    slices: np.ndarray

    def distance(self, center: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Distance from a center in units of the radii along the axes: ``(H, W, D)`` float32."""
        squares = [((p - c) / r).astype(np.float32) ** 2 for p, c, r in zip(self, center, radii)]
        return np.sqrt(squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :])


class Lesion(NamedTuple):
    """A tumour.

    Attributes:
        weight: ``(H, W, D)`` float32, 0 to 1: how far the lesion's brightness replaces the brain's.
        mask: ``(H, W, D)`` bool: what a reader would outline.
        brightness: ``(H, W, D)`` float32: brightness within, relative to white matter.
    """

    weight: np.ndarray
    mask: np.ndarray
    brightness: np.ndarray


def grow_lesion(rng: np.random.Generator, bed: np.ndarray, grid: Grid) -> Lesion:
    """Make an irregular tumour with one to three lobes in the cerebrum; some have a faint rim of edema.

    Sizes follow the masks of TCGA-LGG with pixels of 1 mm: the largest area in a slice is 6 to 80 cm2, and in half of
    the volumes more than 27 cm2. The mask includes the edema.

    Args:
        rng: random generator.
        bed: ``(H, W, D)``, 0 to 1: where a tumour may grow.
        grid: positions of the voxels.
    """
    radius = float(np.clip(rng.lognormal(np.log(29), 0.3), 14, 38))  # mm
    center = _choose_center(rng, bed, grid, radius)
    depth = _lobes(rng, grid, center, radius)
    # Relative positions of the lesion's surroundings, so that its border has the same detail whatever its size.
    where = [np.clip((p - c) / (6 * radius) + 0.5, 0, 1) for p, c in zip(grid, center)]
    depth += radius * rng.uniform(0.1, 0.22) * SmoothField(rng, (18, 18, 12))(*where)

    outer_depth = depth
    if rng.random() < 0.4:
        width = rng.uniform(3, 9) * (1 + 0.8 * SmoothField(rng, (10, 10, 8))(*where))  # mm
        outer_depth = depth + np.maximum(width, 0)
    softness = rng.uniform(1.0, 2.5)  # mm over which the border fades
    core, edge = _sigmoid(depth / softness), _sigmoid(outer_depth / softness)

    contrast = rng.uniform(1.35, 2.2)
    skirt_contrast = 1 + (contrast - 1) * rng.uniform(0.4, 0.65)
    brightness = skirt_contrast + (contrast - skirt_contrast) * core
    brightness *= 1 + rng.uniform(0.03, 0.1) * SmoothField(rng, (20, 20, 14))(*where)
    if rng.random() < 0.25:  # a cyst or necrosis, dark on FLAIR yet part of the tumour
        cyst = _sigmoid((depth - radius * rng.uniform(0.4, 0.6)) / 1.5)
        brightness *= 1 - cyst * rng.uniform(0.4, 0.8)

    weight = edge * np.clip(bed * 1.3, 0, 1)
    return Lesion(weight=weight, mask=(edge > 0.5) & (bed > 0.5), brightness=brightness)


def scatter_spots(rng: np.random.Generator, bed: np.ndarray, grid: Grid) -> np.ndarray:
    """Weight ``(H, W, D)`` of a few small bright spots of white matter, as in healthy aging; they are not tumour."""
    weight = np.zeros_like(bed)
    for _ in range(rng.integers(2, 7)):
        radius = rng.uniform(1.5, 4)
        center = _choose_center(rng, bed, grid, margin=8)
        depth = radius * (1 - grid.distance(center, np.array([radius, radius, max(radius, 4)])))
        weight = np.maximum(weight, _sigmoid(depth / 0.8))
    return weight * bed


def _lobes(rng: np.random.Generator, grid: Grid, center: np.ndarray, radius: float) -> np.ndarray:
    """Approximate depth in mm inside a union of one to three ellipsoids around the center, negative outside."""
    depth = np.full([len(axis) for axis in grid], -np.inf, dtype=np.float32)
    for lobe in range(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2])):
        size = radius * (1.0 if lobe == 0 else rng.uniform(0.45, 0.75))
        direction = rng.standard_normal(3)
        shift = 0 if lobe == 0 else radius * rng.uniform(0.6, 1.0) * direction / np.linalg.norm(direction)
        radii = size * rng.uniform(0.75, 1.25, 3)
        depth = np.maximum(depth, size * (1 - grid.distance(center + shift, radii)))
    return depth


def _choose_center(rng: np.random.Generator, bed: np.ndarray, grid: Grid, margin: float) -> np.ndarray:
    """Choose the position in mm of a voxel well inside the bed, in the cerebrum if the volume shows it.

    It is the position of a voxel and not a point between slices, so that at least one slice shows the full width.
    """
    spread = min(margin, 12) / 2 / abs(grid.rows[1] - grid.rows[0])
    inside = ndimage.gaussian_filter(bed, (spread, spread, 0))
    cerebrum = (grid.slices > 5) | ((grid.slices > -25) & (grid.rows[:, None, None] > -45))
    for wanted in (cerebrum & (inside > 0.85), cerebrum & (inside > 0.6), inside >= inside.max()):
        candidates = np.flatnonzero(wanted)
        if len(candidates):
            break
    # By relative rank, so that the position is about the same at any image size.
    index = np.unravel_index(candidates[int(rng.random() * len(candidates))], bed.shape)
    return np.array([axis[i] for axis, i in zip(grid, index)])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * np.asarray(x, dtype=np.float32)))).astype(np.float32)
