"""Match lesions over time by their overlap in the place of the first scan."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mri_seg.follow_up.coverage import share_outside
from mri_seg.follow_up.registration import resample
from mri_seg.follow_up.repeatability import critical_difference, interval, standard_deviation
from mri_seg.follow_up.timeline import Estimate, Lesion, TimePoint
from mri_seg.measurements.lesions import bounding_box, label_lesions, mean_diameter, measure

__all__ = ["track_lesions", "values_of"]

REACH = 5.0
"""mm by which lesions of two scans may miss each other and are still the same: registration and slices are no finer."""

MEASURABLE = 10.0
"""mm that both diameters of a lesion must have to count as a new one, as in RANO 2.0 (Wen et al., JCO 41, 2023)."""


def values_of(measurements: Mapping[str, Any], repeatability: Mapping[str, Any]) -> dict[str, Estimate]:
    """What is followed of a mask, with its 95 % interval.

    Args:
        measurements: result of :py:func:`mri_seg.measurements.lesions.measure`, with known spacing.
        repeatability: result of :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.

    Returns:
        ``volume`` in mL, ``mean_diameter`` in mm, and ``product`` in mm2: the sum over lesions, as in RANO.
    """
    volume = float(measurements["volume_ml"])
    values = {
        "volume": volume,
        "mean_diameter": mean_diameter(volume),
        "product": float(sum(lesion["bidimensional_product_mm2"] for lesion in measurements["lesions"])),
    }
    return {name: interval(repeatability, name, value) for name, value in values.items()}


def track_lesions(points: Sequence[TimePoint], repeatability: Mapping[str, Any]) -> list[Lesion]:
    """Match the lesions of all scans; they are measured in the grid of their own scan.

    Lesions of two scans are the same if they overlap, or come within :py:data:`REACH`, in the place of the first scan.
    Whatever is linked over any scans is one lesion: so a lesion that splits, or two that merge, are followed as one. A
    lesion is new if an earlier scan since the baseline shows at least half of its place, and none has a lesion there.

    Args:
        points: the scans in order.
        repeatability: result of :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.

    Returns:
        lesions over time, the largest first.
    """
    labels = [label_lesions(point.scan.mask)[0] for point in points]
    counts = [int(one.max(initial=0)) for one in labels]
    starts = np.concatenate([[0], np.cumsum(counts)])
    shape, grid = _grid_of_lesions(points, labels)
    moved = [
        resample(one, point.scan.affine, point.from_first, shape, grid, order=0)[0].astype(int)
        for one, point in zip(labels, points)
    ]
    links = _links(moved, starts, voxel_sizes(grid))
    count, group = connected_components(
        coo_array((np.ones(len(links)), links.T.reshape(2, -1)), shape=(starts[-1],) * 2), directed=False
    )
    lesions = []
    for number in range(count):
        lesion = Lesion(0, [], [])
        for n, point in enumerate(points):
            own = np.flatnonzero(group[starts[n] : starts[n + 1]] == number) + 1
            lesion.parts.append(len(own))
            mask = np.isin(labels[n], own) if len(own) else None
            measured = None if mask is None else measure(mask, point.scan.affine)
            lesion.values.append(None if measured is None else values_of(measured, repeatability))
            if mask is not None and measured and lesion.new_at is None and _is_new(lesion, mask, points, n):
                lesion.new_at = n
                lesion.measurable = _is_measurable(measured, repeatability)
        lesions.append(lesion)
    lesions.sort(key=lambda lesion: -max(value["volume"].value for value in lesion.values if value))
    for number, lesion in enumerate(lesions, start=1):
        lesion.number = number
    return lesions


def _is_measurable(measured: Mapping[str, Any], repeatability: Mapping[str, Any]) -> bool:
    """Whether a lesion is large enough to count as new: by its diameters, and beyond the error of no volume at all."""
    volume = float(measured["volume_ml"])
    wide = any(
        min(part["longest_diameter_mm"], part["perpendicular_diameter_mm"]) >= MEASURABLE
        for part in measured["lesions"]
    )
    return wide and volume > critical_difference(1) * standard_deviation(repeatability, "volume", volume)


def _is_new(lesion: Lesion, mask: np.ndarray, points: Sequence[TimePoint], n: int) -> bool:
    """Whether a lesion of a time point was at no earlier one of the same epoch, of which one shows its place."""
    earlier = [m for m in range(n) if points[m].epoch == points[n].epoch]
    shown = any(share_outside(mask, points[n], points[m]) <= 0.5 for m in earlier)
    return shown and all(lesion.values[m] is None for m in earlier)


def _grid_of_lesions(points: Sequence[TimePoint], labels: Sequence[np.ndarray]) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid with the voxels of the first scan, as far as there are lesions in any scan."""
    first = points[0].scan.affine
    corners = [np.zeros((1, 3))]
    for point, one in zip(points, labels):
        if one.any():
            ends = itertools.product(*((part.start - 0.5, part.stop - 0.5) for part in bounding_box(one > 0)))
            to_first = np.linalg.inv(first) @ np.linalg.inv(point.from_first) @ point.scan.affine
            corners.append(apply_affine(to_first, np.array(list(ends))))
    places = np.concatenate(corners[1:] or corners)
    margin = np.ceil(REACH / voxel_sizes(first)) + 1
    low, high = np.floor(places.min(axis=0) - margin), np.ceil(places.max(axis=0) + margin)
    grid = first.copy()
    grid[:3, 3] = apply_affine(first, low)
    return tuple((high - low + 1).astype(int).tolist()), grid


def _links(moved: Sequence[np.ndarray], starts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Pairs ``(N, 2)`` of lesions of different scans that are the same; lesions are counted over all scans."""
    pairs = []
    near = [_grown(one, steps) for one in moved]
    for n, one in enumerate(near):
        for m in range(n):
            both = (one > 0) & (moved[m] > 0)
            pairs.append(np.stack([one[both] - 1 + starts[n], moved[m][both] - 1 + starts[m]], axis=1))
    return np.unique(np.concatenate([np.empty((0, 2), int), *pairs]), axis=0)


def _grown(labels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Labels grown by :py:data:`REACH`; every voxel gets the label nearest to it."""
    if not labels.any():
        return labels
    distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling=steps, return_indices=True)
    return np.where(distance <= REACH, labels[tuple(nearest)], 0)
