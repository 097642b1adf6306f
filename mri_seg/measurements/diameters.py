"""The two diameters of a lesion by RANO, within its outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

__all__ = ["Diameters", "diameters"]


_EQUAL = 1e-9  # relative difference below which two lengths are the same


_MOST_POINTS = 1000  # border points from which diameters are sought: all pairs of them are tried


_SHARES = tuple(n / parts for parts in (2, 4, 8, 16) for n in range(1, parts, 2))
"""Places along a segment, from one end to the other, exact in binary, so that a point on a border stays on it."""


class Diameters(NamedTuple):
    """The longest diameter of a lesion in a slice and the longest segment at a right angle to it.

    Lengths are in the unit of the spacing. End points are (row, column) in pixels, the centre of the first pixel being
    (0, 0), so that they can be drawn over the slice.
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
    """A 4-connected part of a lesion in a slice, cut out, with the place of its first pixel."""

    pixels: np.ndarray
    origin: tuple[int, int]
    slice: int

    def most(self, spacing: np.ndarray) -> float:
        """What the product cannot exceed: twice the convex hull's area, itself within the box."""
        return 2 * float(np.prod(np.array(self.pixels.shape) * spacing))


def diameters(lesion: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> Diameters:
    """Find the longest diameter of a lesion in a slice, and the longest segment at a right angle to it.

    Both lie wholly inside the lesion, so that they never cross a hole or the outside between two of its arms, and end
    on its border. The longest diameter joins two midpoints of pixel edges between inside and outside, so a row of n
    pixels is n pixels long. The perpendicular passes through such a midpoint and ends where it leaves the lesion; the
    angle is right exactly, in mm, and the two need not cross. Should it be the longer of the two, they change names.
    Pixels that touch only at a corner belong to different parts; the part with the largest product counts, and of
    equally long diameters the one with the longer perpendicular. Of ragged parts with more than a thousand border
    points only some are tried as ends. (scikit-image's ``feret_diameter_max`` lets the longest diameter cross holes and
    the outside, and gives no perpendicular.)

    Of all ends the search picks those that were rounded up to whole pixels, so that lengths are on average a little
    too long: the longest diameter by 0.4 to 0.9 pixels for discs of 2 to 30 pixels' radius and 0 to 0.4 for ellipses
    two to three times as long as wide, the perpendicular by 0 to 0.5.

    Args:
        lesion: binary mask of the slice ``(H, W)``.
        spacing: distance of rows and of columns, usually in mm.

    Returns:
        lengths in the unit of the spacing, and end points in pixels.

    Raises:
        ValueError: when the lesion is empty or not a slice, or the spacing is not two positive numbers.
    """
    lesion, steps = np.asarray(lesion) > 0, np.asarray(spacing, dtype=float)
    if lesion.ndim != 2 or not lesion.any():
        raise ValueError(
            f"the lesion must be a slice (H, W) with at least one pixel, got shape {lesion.shape} with {lesion.sum()}."
        )
    if steps.shape != (2,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing must be two positive numbers, of rows and of columns, got {spacing}.")
    return _largest_product(lesion[..., None], steps)[1]


def _in_plane(lesion: np.ndarray, spacing: np.ndarray, units: tuple[str, str]) -> dict[str, Any]:
    """Figures of a lesion ``(H, W, D)`` that are taken in its slices; slices are counted from 1."""
    length, area = units
    place, found = _largest_product(lesion, spacing)
    return {
        f"largest_axial_area_{area}": float(lesion.sum(axis=(0, 1)).max() * np.prod(spacing)),
        f"longest_diameter_{length}": found.longest,
        f"perpendicular_diameter_{length}": found.perpendicular,
        f"bidimensional_product_{area}": found.product,
        "measured_slice": place + 1,
    }


def _largest_product(lesion: np.ndarray, spacing: np.ndarray) -> tuple[int, Diameters]:
    """Slice of a lesion ``(H, W, D)`` with the largest bidimensional product, from 0, and the diameters in it."""
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
    """The 4-connected parts of every slice of a lesion ``(H, W, D)``."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1, :, 1] = structure[:, 1, 1] = True
    labels, _ = ndimage.label(lesion, structure=structure)
    return [
        _Part(labels[box][..., 0] == number, (box[0].start, box[1].start), box[2].start)
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]


def _diameters_of_part(part: _Part, spacing: np.ndarray, least: float) -> Diameters | None:
    """Diameters of a part, None where their product is not above ``least`` by more than rounding."""
    unit = float(spacing.min())  # so that the scale does not decide by rounding where segments only touch the border
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
            # Its ends may lie anywhere on the border, so the perpendicular can be the longer one by a little.
            (long, ends), (short, other) = sorted(((longest, ends), (perpendicular, other)), key=lambda d: -d[0])
            best = Diameters(long * unit, short * unit, _moved(ends, part.origin), _moved(other, part.origin))
    return best


def _border(part: np.ndarray) -> np.ndarray:
    """Pixel edges between inside and outside, each by its two ends (row, column): ``(edges, 2, 2)``."""
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
    """Length of the longest segments between points that stay inside the part, and the ends of each of them.

    Segments are tried from the longest down, by bands of lengths, until one stays inside; none above ``least`` gives
    no segment.
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
    """Which pixels, edges and corners belong to a part, edges and corners of its pixels included.

    Rows of the result alternate between lines of the grid and rows of pixels, columns likewise, so a point (row,
    column), counted in pixels from the grid's first corner, lies at (floor + ceil) of it.
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
    """Sort most of the segments out that leave the part, by a few of their points."""
    kept = np.ones(len(starts), dtype=bool)
    for share in _SHARES:
        left = np.flatnonzero(kept)
        kept[left] = _in_closed(closed, starts[left] + 0.5 + share * (ends[left] - starts[left]))
    return kept


def _stay_inside(closed: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which segments ``(N, 2)`` stay inside the part, whose border belongs to it.

    Each is cut where it crosses lines of the grid, so that a piece lies in one pixel, and its middle says in which.
    """
    starts, run = starts + 0.5, ends - starts
    cuts = [np.zeros((len(starts), 1)), np.ones((len(starts), 1))]
    for start, length in zip(starts.T, run.T):
        low, high = np.minimum(start, start + length), np.maximum(start, start + length)
        lines = np.ceil(low)[:, None] + np.arange(int((high - low).max(initial=0)) + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (lines - start[:, None]) / length[:, None]
        cuts.append(np.where((share > 0) & (share < 1), share, 1.0))
    cut = np.sort(np.concatenate(cuts, axis=1), axis=1)
    middle = (cut[:, 1:] + cut[:, :-1]) / 2
    pieces = starts[:, None] + middle[..., None] * run[:, None]
    empty = np.diff(cut, axis=1) < _EQUAL  # where a corner is met, two lines are crossed at once
    return np.asarray((_in_closed(closed, pieces) | empty).all(axis=1))


def _longest_perpendicular(
    edges: np.ndarray, points: np.ndarray, ends: np.ndarray, spacing: np.ndarray
) -> tuple[float, np.ndarray]:
    """Longest segment inside the border that is perpendicular to the one between ``ends``, and its own ends.

    A line through each border point crosses the border an even number of times: it is inside between the first and
    the second, the third and the fourth crossing and so on. Of equally long ones the nearest to the middle counts.
    """
    along = (ends[1] - ends[0]) * spacing
    along = along / np.hypot(*along)
    across = np.array([-along[1], along[0]])
    corners, lines = edges * spacing, points * spacing
    # Sums are written out: a corner shared by two edges must get the same number in both.
    place = corners[..., 0] * along[0] + corners[..., 1] * along[1]
    height = corners[..., 0] * across[0] + corners[..., 1] * across[1]
    line = np.sort(lines[:, 0] * along[0] + lines[:, 1] * along[1])
    first, stop = np.searchsorted(line, place.min(axis=1)), np.searchsorted(line, place.max(axis=1))
    met = stop - first  # lines that an edge meets; at its far end they meet the next edge
    edge = np.repeat(np.arange(len(edges)), met)
    number = np.arange(met.sum()) + np.repeat(first - np.cumsum(met) + met, met)
    share = (line[number] - place[edge, 0]) / (place[edge, 1] - place[edge, 0])
    crossing = height[edge, 0] + share * (height[edge, 1] - height[edge, 0])
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
