"""Where in the head the tumours of the training patients lie, as a coarse map."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["PLACE_FILE", "PlaceMap", "shipped_place_map"]

PLACE_FILE = "place.json"
"""Name of the shipped map, beside this module."""

_SHAPE = (10, 14, 14)  # cells from the midline to a side, from front to back, from low to high
_BLUR = 1.0  # cells


class PlaceMap(NamedTuple):
    """How many patients have tumour in each cell of the head-aligned box. Left and right count as the same.

    Attributes:
        counts: patients with tumour in a cell ``(midline to side, front to back, low to high)``.
        patients: number of patients.
    """

    counts: np.ndarray
    patients: int

    @classmethod
    def of(cls, tumors: Iterable[np.ndarray]) -> PlaceMap:
        """The map of some patients.

        Args:
            tumors: for each patient the coordinates ``(N, 3)`` of the voxels of the tumour, from
                :py:meth:`mri_seg.quality.frame.HeadFrame.coordinates`.
        """
        counts, patients = np.zeros(_SHAPE, dtype=int), 0
        for coordinates in tumors:
            cells = np.zeros(_SHAPE, dtype=bool)
            cells[_cells(coordinates)] = True
            counts, patients = counts + cells, patients + 1
        return cls(counts, patients)

    def without(self, other: PlaceMap) -> PlaceMap:
        """The map without the patients of another, for a patient who must not vouch for himself."""
        return PlaceMap(self.counts - other.counts, self.patients - other.patients)

    def frequency(self, coordinates: np.ndarray) -> np.ndarray:
        """Fraction of the patients who have tumour about each place ``(N, 3)``; ``(N,)``."""
        smooth = ndimage.gaussian_filter(self.counts.astype(float), _BLUR, mode="nearest")
        return smooth[_cells(coordinates)] / max(self.patients, 1)

    def to_text(self) -> str:
        """The map as JSON text."""
        return json.dumps({"patients": self.patients, "shape": _SHAPE, "counts": self.counts.ravel().tolist()})

    @classmethod
    def from_text(cls, text: str) -> PlaceMap:
        """The map of :py:meth:`to_text`."""
        found = json.loads(text)
        return cls(np.array(found["counts"]).reshape(found["shape"]), found["patients"])


@cache
def shipped_place_map() -> PlaceMap:
    """The map of the patients that the shipped weights were trained on."""
    return PlaceMap.from_text(resources.files(__package__).joinpath(PLACE_FILE).read_text(encoding="utf-8"))


def _cells(coordinates: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of the cells of places ``(N, 3)``; places outside the box belong to the nearest cell."""
    across, along, up = np.asarray(coordinates, dtype=float).reshape(-1, 3).T
    return tuple(
        np.clip(np.floor(axis * size), 0, size - 1).astype(int)
        for axis, size in zip((np.abs(across), along, up), _SHAPE)
    )
