"""Scans of an invented head in any pose: an ellipsoid of smooth texture with round tumours."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mri_seg.follow_up.timeline import Scan

__all__ = ["date", "head_scan", "pose"]

AXIAL = np.array([[0, -3.0, 0, 100], [-3.0, 0, 0, 110], [0, 0, 6.0, -60], [0, 0, 0, 1]])
"""Rows and columns 3 mm apart, slices 6 mm; a small grid, so that tests are fast."""
SHAPE = (72, 66, 22)


def date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def pose(angles: Sequence[float] = (0, 0, 0), shift: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """From mm in the head to mm in the scanner: a rotation in degrees about three axes and a shift in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def head_scan(
    case: str = "scan",
    tumors: Sequence[tuple[Sequence[float], float]] = (((20, 10, 5), 15.0),),
    *,
    to_scanner: np.ndarray | None = None,
    person: int = 0,
    day: str | None = None,
    event: str = "",
    contrast: float = 1.0,
) -> Scan:
    """Scan an invented person.

    Args:
        case: name of the scan.
        tumors: middle, in mm of the head, and radius in mm of each tumour.
        to_scanner: how the head lies.
        person: seed of the texture.
        day: date of the scan.
        event: what happened before it.
        contrast: power of the intensities.
    """
    to_head = np.linalg.inv(np.eye(4) if to_scanner is None else to_scanner) @ AXIAL
    x, y, z = np.einsum("ij,jhwd->ihwd", to_head, np.stack([*np.indices(SHAPE), np.ones(SHAPE)]))[:3]
    inside = (x / 70) ** 2 + (y / 85) ** 2 + (z / 60) ** 2 < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(person).normal(size=(40, 40, 40)), 1.5)
    place = np.stack([x, y, z]) / 5 + 20
    values = 1 + 3 * ndimage.map_coordinates(texture, place, order=1, mode="nearest")
    mask = np.zeros(SHAPE, dtype=bool)
    for (a, b, c), radius in tumors:
        mask |= (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2
    image = np.where(mask, 2.5, values.clip(0.2)) * inside
    image = 100 * image**contrast + np.random.default_rng(1).normal(0, 2, SHAPE)
    when = None if day is None else date(day)
    return Scan(case, image.astype(np.float32), mask, AXIAL, when, event, expected_dice=0.95)
