"""The two RANO diameters of a lesion in a slice, both inside its outline.

skimage's ``feret_diameter_max`` (of ``regionprops``) is not used: it measures the convex hull, so it may cross a hole
or the outside of the lesion, and it gives no perpendicular diameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

__all__ = ["Diameters", "diameters", "measure_in_plane"]


_EQUAL = 1e-9  # relative difference below which two lengths are the same


_MOST_POINTS = 1000  # maximum number of border points: all pairs of them are tried as ends of a diameter


_FRACTIONS = tuple(n / parts for parts in (2, 4, 8, 16) for n in range(1, parts, 2))
"""Positions along a segment as fractions of its length, exact in binary so that points on a border stay on it."""


class Diameters(NamedTuple):
    """The longest diameter of a lesion in a slice and the longest segment perpendicular to it.

    Lengths are in the unit of the spacing. End points are (row, column) in pixels, where (0, 0) is the center of the
    first pixel, so that they can be drawn over the slice.
    """

    longest: float
    perpendicular: float
    longest_ends: tuple[tuple[float, float], tuple[float, float]]
    perpendicular_ends: tuple[tuple[float, float], tuple[float, float]]

    @property
    def product(self) -> float:
        """Product of the two lengths."""
        return self.longest * self.perpendicular


class _Part(NamedTuple):
    """A 4-connected part of a lesion in a slice, cropped to its box, with the position of the box."""

    pixels: np.ndarray
    origin: tuple[int, int]
    slice: int

    def most(self, spacing: np.ndarray) -> float:
        """Upper bound of the product: twice the area of the box, since the product is at most twice the hull's area."""
        return 2 * float(np.prod(np.array(self.pixels.shape) * spacing))


def diameters(lesion: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> Diameters:
    """Find the longest diameter of a lesion in a slice and the longest segment perpendicular to it.

    Both lie entirely inside the lesion and end on its border, so they never cross a hole or the outside between two
    arms. The longest diameter joins the midpoints of two pixel edges on the border, so a row of n pixels is n pixels
    long. The perpendicular passes through such a midpoint and ends where it leaves the lesion. The angle is exactly
    right in mm, and the two segments need not cross. If the perpendicular is the longer one, the two are swapped.
    Pixels that touch only at a corner belong to different parts. The part with the largest product is reported; if
    several diameters are equally long, the one with the longer perpendicular is. If a ragged part has more than a
    thousand border points, only some of them are tried as ends.

    Lengths are a little too long on average, because the search prefers ends that were rounded up to whole pixels: the
    longest diameter by 0.4 to 0.9 pixels for discs with a radius of 2 to 30 pixels, and by 0 to 0.4 pixels for ellipses
    two to three times as long as wide; the perpendicular by 0 to 0.5 pixels.

    Args:
        lesion: binary mask of the slice ``(H, W)``.
        spacing: distance between rows and between columns, usually in mm.

    Returns:
        the two lengths in the unit of the spacing, and their end points in pixels.

    Raises:
        ValueError: when the lesion is empty or not a slice, or the spacing is not two positive numbers.
    """
    lesion, steps = np.asarray(lesion) > 0, np.asarray(spacing, dtype=float)
    if lesion.ndim != 2 or not lesion.any():
        raise ValueError(
            f"the lesion must be a slice (H, W) with at least one pixel, got shape {lesion.shape} with {lesion.sum()}."
        )
    if steps.shape != (2,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing must be two positive numbers, for rows and for columns, got {spacing}.")
    return _largest_product(lesion[..., None], steps)[1]


def measure_in_plane(
    lesion: np.ndarray, spacing: np.ndarray, units: tuple[str, str], origin: tuple[int, int]
) -> dict[str, Any]:
    """Area and diameters of a lesion ``(H, W, D)``, measured in its slices.

    Slices are counted from 1; the ends of the diameters are moved by the row and the column of ``origin``.
    """
    length, area = units
    place, found = _largest_product(lesion, spacing)
    ends = [_moved(np.array(pair), origin) for pair in (found.longest_ends, found.perpendicular_ends)]
    return {
        f"largest_axial_area_{area}": float(lesion.sum(axis=(0, 1)).max() * np.prod(spacing)),
        f"longest_diameter_{length}": found.longest,
        f"perpendicular_diameter_{length}": found.perpendicular,
        f"bidimensional_product_{area}": found.product,
        "measured_slice": place + 1,
        "longest_diameter_ends": [list(end) for end in ends[0]],
        "perpendicular_diameter_ends": [list(end) for end in ends[1]],
    }


def _largest_product(lesion: np.ndarray, spacing: np.ndarray) -> tuple[int, Diameters]:
    """Find the slice (from 0) of a lesion ``(H, W, D)`` with the largest product of diameters, and these diameters."""
    best: tuple[int, Diameters] | None = None
    least = 0.0
    for part in sorted(_parts(lesion), key=lambda part: -part.most(spacing)):
        if part.most(spacing) <= least:
            break
        found = _diameters_of_part(part, spacing, least)
        if found is not None:
            best, least = (part.slice, found), found.product
    assert best is not None  # any pixel has a product above 0
    return best


def _parts(lesion: np.ndarray) -> list[_Part]:
    """Split every slice of a lesion ``(H, W, D)`` into its 4-connected parts."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1, :, 1] = structure[:, 1, 1] = True
    labels, _ = ndimage.label(lesion, structure=structure)
    return [
        _Part(labels[box][..., 0] == number, (box[0].start, box[1].start), box[2].start)
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]


def _diameters_of_part(part: _Part, spacing: np.ndarray, least: float) -> Diameters | None:
    """Find the diameters of a part; None unless their product is above ``least`` by more than rounding errors."""
    unit = float(spacing.min())  # so that the result does not depend on rounding at the scale of the spacing
    spacing, least = spacing / unit, least / unit**2
    edges = _border(part.pixels)
    points = edges.mean(axis=1)
    points = points[:: -(-len(points) // _MOST_POINTS)]
    # No perpendicular is longer than the box's diagonal, so shorter diameters cannot reach the product.
    longest, pairs = _longest_inside(part.pixels, points, spacing, least / np.hypot(*part.pixels.shape * spacing))
    best: Diameters | None = None
    for ends in pairs:
        perpendicular, other = _longest_perpendicular(edges, points, ends, spacing)
        if longest * perpendicular > least * (1 + _EQUAL):
            least = longest * perpendicular
            # The perpendicular may end anywhere on the border, so it can be slightly longer than the diameter.
            (long, ends), (short, other) = sorted(((longest, ends), (perpendicular, other)), key=lambda d: -d[0])
            best = Diameters(long * unit, short * unit, _moved(ends, part.origin), _moved(other, part.origin))
    return best


def _border(part: np.ndarray) -> np.ndarray:
    """Find the pixel edges between inside and outside: ``(edges, 2, 2)``, the two ends (row, column) of each edge."""
    padded = np.pad(part, 1)
    between_rows = np.argwhere(padded[1:] != padded[:-1]) - (0.5, 1.0)
    between_columns = np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1.0, 0.5)
    along_row, along_column = np.array([0.0, 0.5]), np.array([0.5, 0.0])
    return np.concatenate(
        [
            np.stack([between_rows - along_row, between_rows + along_row], axis=1),
            np.stack([between_columns - along_column, between_columns + along_column], axis=1),
        ]
    )


def _longest_inside(
    part: np.ndarray, points: np.ndarray, spacing: np.ndarray, least: float
) -> tuple[float, list[np.ndarray]]:
    """Find the longest segments between points that stay inside the part: their length and the ends of each.

    Segments are tried from the longest to the shortest, in bands of lengths, until one stays inside. If none longer
    than ``least`` does, the list is empty.
    """
    first, second = np.triu_indices(len(points), 1)
    lengths = pdist(points * spacing)
    closed = _closed(part)
    upper, lower = np.inf, 0.97 * lengths.max()
    while upper > least:
        band = np.flatnonzero((lengths >= max(lower, least)) & (lengths < upper))
        band = band[_may_stay_inside(closed, points[first[band]], points[second[band]])]
        band = band[np.argsort(-lengths[band], kind="stable")]
        start, size = 0, 64
        while start < len(band):
            tried = band[start : start + size]
            inside = tried[_stay_inside(closed, points[first[tried]], points[second[tried]])]
            if inside.size:
                longest = lengths[inside[0]]
                equal = band[lengths[band] >= longest * (1 - _EQUAL)]
                ends = np.stack([points[first[equal]], points[second[equal]]], axis=1)
                return float(longest), list(ends[_stay_inside(closed, ends[:, 0], ends[:, 1])])
            start, size = start + size, min(2 * size, 1024)
        upper, lower = lower, 0.9 * lower if lower > 0.1 * min(spacing) else 0.0
    return 0.0, []


def _closed(part: np.ndarray) -> np.ndarray:
    """Mark the pixels of a part and their edges and corners.

    Rows of the result alternate between lines of the grid and rows of pixels, and so do its columns. The entry of a
    point (row, column), counted in pixels from the first corner of the grid, is therefore at floor + ceil of each.
    """
    closed = np.zeros(tuple(2 * n + 1 for n in part.shape), dtype=bool)
    for row in (0, 1, 2):
        for column in (0, 1, 2):
            rows, columns = (slice(at, at + 2 * n, 2) for at, n in zip((row, column), part.shape))
            closed[rows, columns] |= part
    return closed


def _in_closed(closed: np.ndarray, points: np.ndarray) -> np.ndarray:
    places = (np.floor(points) + np.ceil(points)).astype(int)
    return closed[places[..., 0], places[..., 1]]


def _may_stay_inside(closed: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Reject most of the segments that leave the part, by testing a few points of each."""
    kept = np.ones(len(starts), dtype=bool)
    for fraction in _FRACTIONS:
        left = np.flatnonzero(kept)
        kept[left] = _in_closed(closed, starts[left] + 0.5 + fraction * (ends[left] - starts[left]))
    return kept


def _stay_inside(closed: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Test which segments, from starts ``(N, 2)`` to ends ``(N, 2)``, stay inside the part; its border is inside.

    Each segment is cut where it crosses a line of the grid, so that each piece lies in one pixel: that of its middle.
    """
    starts, run = starts + 0.5, ends - starts
    cuts = [np.zeros((len(starts), 1)), np.ones((len(starts), 1))]
    for start, length in zip(starts.T, run.T):
        low, high = np.minimum(start, start + length), np.maximum(start, start + length)
        lines = np.ceil(low)[:, None] + np.arange(int((high - low).max(initial=0)) + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = (lines - start[:, None]) / length[:, None]
        cuts.append(np.where((fraction > 0) & (fraction < 1), fraction, 1.0))
    cut = np.sort(np.concatenate(cuts, axis=1), axis=1)
    middle = (cut[:, 1:] + cut[:, :-1]) / 2
    pieces = starts[:, None] + middle[..., None] * run[:, None]
    empty = np.diff(cut, axis=1) < _EQUAL  # at a corner, a segment crosses two lines at once
    return np.asarray((_in_closed(closed, pieces) | empty).all(axis=1))


def _longest_perpendicular(
    edges: np.ndarray, points: np.ndarray, ends: np.ndarray, spacing: np.ndarray
) -> tuple[float, np.ndarray]:
    """Find the longest segment inside the border that is perpendicular to the one between ``ends``: length and ends.

    A line through a border point crosses the border an even number of times. It is inside between the first and the
    second crossing, between the third and the fourth, and so on. If several segments are equally long, the one nearest
    to the middle of the diameter is chosen.
    """
    along = (ends[1] - ends[0]) * spacing
    along = along / np.hypot(*along)
    across = np.array([-along[1], along[0]])
    corners, lines = edges * spacing, points * spacing
    # Sums are written out, so that a corner shared by two edges gets exactly the same value in both.
    place = corners[..., 0] * along[0] + corners[..., 1] * along[1]
    height = corners[..., 0] * across[0] + corners[..., 1] * across[1]
    line = np.sort(lines[:, 0] * along[0] + lines[:, 1] * along[1])
    first, stop = np.searchsorted(line, place.min(axis=1)), np.searchsorted(line, place.max(axis=1))
    met = stop - first  # number of lines that cross an edge; a line through its far end counts for the next edge
    edge = np.repeat(np.arange(len(edges)), met)
    number = np.arange(met.sum()) + np.repeat(first - np.cumsum(met) + met, met)
    fraction = (line[number] - place[edge, 0]) / (place[edge, 1] - place[edge, 0])
    crossing = height[edge, 0] + fraction * (height[edge, 1] - height[edge, 0])
    order = np.lexsort((crossing, number))
    inside = crossing[order].reshape(-1, 2)
    line = line[number[order][::2]]
    lengths = inside[:, 1] - inside[:, 0]
    middle = float(((ends[0] + ends[1]) / 2 * spacing) @ along)
    longest = np.flatnonzero(lengths >= lengths.max() * (1 - _EQUAL))
    chosen = longest[np.argmin(np.abs(line[longest] - middle))]
    segment = line[chosen] * along + inside[chosen][:, None] * across
    return float(lengths[chosen]), segment / spacing


def _moved(pair: np.ndarray, origin: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    (a, b), (c, d) = (pair + origin).tolist()
    return (a, b), (c, d)
