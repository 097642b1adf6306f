"""Synthetic tumours: where they grow, how far, and what they look like on FLAIR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

from mri_seg.datasets.phantom.anatomy import Head
from mri_seg.datasets.phantom.fields import SmoothField
from mri_seg.measurements.lesions import mean_diameter

__all__ = ["Patch", "Spots", "Tumor", "draw_position", "mean_diameter", "volume_of_diameter"]

_STEP = 3  # mm between the points where the distance from the tumour's origin is known
_REACH = 66  # mm from the origin
_INSIDE = 0.385  # of the bed: what a tumour fills to a half
_BARRIER = 0.03  # speed of growth through fluid and across the midline, relative to white matter
_CYST_VOLUME = 15.0  # mL; smaller tumours have no cyst
_NEIGHBORS = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) > (0, 0, 0)]


def volume_of_diameter(diameter: float) -> float:
    """Volume in mL whose mean tumour diameter, the cube root of twice the volume, is ``diameter`` mm."""
    return diameter**3 / 2000


@dataclass(frozen=True)
class Patch:
    """A tumour of one size, in a part of the head's grid.

    Attributes:
        corner: index of the part's first voxel in the head's grid.
        weight: ``(X, Y, Z)`` float32, 0 to 1: how far the tumour replaces the brain; the mask is where it is over 0.5.
        brightness: ``(X, Y, Z)`` float32: brightness of the tumour, relative to white matter.
    """

    corner: tuple[int, ...]
    weight: np.ndarray
    brightness: np.ndarray

    @property
    def where(self) -> tuple[slice, ...]:
        """The part of the head's grid."""
        return tuple(slice(a, a + n) for a, n in zip(self.corner, self.weight.shape))


class Tumor:
    """A tumour that can be shown at any size: it grows from one point, and what it has once filled it keeps.

    Its border moves fast in white matter, more slowly in the cortex, hardly through fluid or across the midline
    (outside the corpus callosum), and unevenly by a random field; so it is the set of points that a front from the
    origin reaches within some time. The front's arrival is a shortest path, as in models of glioma growth (Konukoglu et
    al., Image guided personalization of reaction-diffusion type tumor growth models, IEEE TMI 29 (2010)).

    Args:
        rng: random generator; shape, texture and contrast come from it.
        head: the head, whose grid is used.
        position: origin in mm of the head's atlas (left to right, posterior to anterior, inferior to superior). The
            nearest point at which a tumour may grow is taken.
        expansion: volume in mm3 that 1 mm3 of the atlas has in the patient.

    Raises:
        ValueError: when the position is over 30 mm away from the brain.
    """

    def __init__(
        self, rng: np.random.Generator, head: Head, position: Sequence[float], *, expansion: float = 1.0
    ) -> None:
        middle = np.round(np.asarray(position, dtype=float) - head.origin).astype(int)
        shape = np.array(head.bed.shape)
        self._first = np.maximum(middle - _REACH, 0)
        last = np.minimum(middle + _REACH + 1, shape)
        part = tuple(slice(a, b, _STEP) for a, b in zip(self._first, last))
        bed = head.bed[part]
        seed_point = _nearest(bed > 255 * 0.8, (middle - self._first) / _STEP)
        if seed_point is None:
            raise ValueError(
                f"position is {tuple(float(p) for p in position)}; expected a place in the brain, in mm of the atlas "
                "(left to right, posterior to anterior, inferior to superior)."
            )
        speed = _speed(rng, head, part)
        self._arrival, self._texture = _arrival(speed, bed > 255 * _INSIDE, seed_point), _texture(rng, bed.shape)
        self.position = head.origin + self._first + _STEP * np.array(seed_point)

        inside = bed > 255 * _INSIDE
        self._arrivals = np.sort(self._arrival[inside])
        self._volumes = np.arange(1, len(self._arrivals) + 1) * _STEP**3 * expansion / 1000
        # Where the front leaves the part of the brain that was computed, the tumour would be cut off.
        face = np.ones(inside.shape, dtype=bool)
        face[1:-1, 1:-1, 1:-1] = False
        cut = self._arrival[face & inside].min(initial=self._arrivals[-1])
        self.max_volume = float(self._volumes[max(np.searchsorted(self._arrivals, cut) - 1, 0)])
        """The largest volume in mL at which the tumour can be shown."""

        self._softness = rng.uniform(0.7, 1.4)  # mm over which the border fades
        self._contrast = rng.uniform(1.5, 2.05)
        self._border = rng.uniform(0.65, 0.95)  # contrast near the border
        self._grain = rng.uniform(0.06, 0.13)
        self._cyst = (rng.uniform(0.35, 0.5), rng.uniform(0.25, 0.5)) if rng.random() < 0.25 else None

    def at(self, volume: float, head: Head) -> Patch:
        """The tumour when it has a volume in mL.

        Raises:
            ValueError: when the volume is not in reach.
        """
        if not 0 < volume <= self.max_volume:
            raise ValueError(
                f"volume is {volume:g} mL; expected more than 0 and at most {self.max_volume:.0f} mL, the "
                "most that this tumour can grow to at its place."
            )
        extent = float(np.interp(volume, self._volumes, self._arrivals))
        near = np.argwhere(self._arrival < extent + 5 * self._softness)
        low, high = near.min(0), near.max(0) + 1
        # Up to one point more on each side; the values between the points are interpolated.
        low, high = np.maximum(low - 1, 0), np.minimum(high + 1, self._arrival.shape)
        fine = [np.arange(_STEP * (b - a - 1) + 1) / _STEP + a for a, b in zip(low, high)]
        arrival, texture = (_refine(values, fine) for values in (self._arrival, self._texture))
        corner = tuple(int(n) for n in self._first + _STEP * low)
        bed = head.bed[tuple(slice(a, a + n) for a, n in zip(corner, arrival.shape))].astype(np.float32) / 255

        weight = _sigmoid((extent - arrival) / self._softness) * np.clip(bed / (2 * _INSIDE), 0, 1)
        inner = _sigmoid((0.75 * extent - arrival) / (0.1 * extent + 0.5))
        contrast = 1 + (self._contrast - 1) * (self._border + (1 - self._border) * inner)
        brightness = contrast * (1 + self._grain * texture)
        if self._cyst is not None and volume > _CYST_VOLUME:
            reach, depth = self._cyst
            brightness *= 1 - depth * _sigmoid((reach * extent - arrival) / 1.2)
        return Patch(corner=corner, weight=weight, brightness=brightness.astype(np.float32))


class Spots:
    """A few small bright spots of white matter, as in healthy aging; they are not tumour.

    Args:
        rng: random generator.
        head: the head, whose grid is used.
    """

    def __init__(self, rng: np.random.Generator, head: Head) -> None:
        number = int(rng.integers(2, 7)) if rng.random() < 0.35 else 0
        self._gain = rng.uniform(0.25, 0.5)
        self._spots = [(draw_position(rng, head), rng.uniform(1.2, 2.6)) for _ in range(number)]

    def paint(self, image: np.ndarray, head: Head) -> None:
        """Add the spots to a picture of the head, ``(X, Y, Z)`` in the head's grid, in place."""
        for position, radius in self._spots:
            reach = int(np.ceil(3 * radius))
            middle = np.round(position - head.origin).astype(int)
            where = tuple(slice(m - reach, m + reach + 1) for m in middle)
            squares = (np.arange(-reach, reach + 1) / radius) ** 2
            profile = np.exp(-0.5 * (squares[:, None, None] + squares[None, :, None] + squares[None, None, :]))
            image[where] += (self._gain * profile * (head.bed[where] / 255)).astype(np.float32)


def draw_position(rng: np.random.Generator, head: Head) -> np.ndarray:
    """Draw a point of the cerebrum's white matter, in mm of the atlas."""
    step = 4
    x, y, z = (o + step * np.arange((n + step - 1) // step) for o, n in zip(head.origin, head.bed.shape))
    white = head.tissues["white"][::step, ::step, ::step] > 255 * 0.6
    # Neither in the brain stem and the cerebellum nor on the midline.
    lobes = (np.abs(x)[:, None, None] > 14) & ((z > 0) | ((z > -24) & (y[:, None] > -35)))[None]
    candidates = np.argwhere(white & lobes & (head.bed[::step, ::step, ::step] > 255 * 0.9))
    return head.origin + step * candidates[int(rng.random() * len(candidates))]


def _nearest(allowed: np.ndarray, point: np.ndarray) -> tuple[int, ...] | None:
    """Index of the allowed voxel nearest to a point, both in voxels; None when none is within 30 mm."""
    candidates = np.argwhere(allowed)
    if not len(candidates):
        return None
    distance = np.linalg.norm(candidates - point, axis=1)
    return tuple(candidates[distance.argmin()]) if distance.min() * _STEP <= 30 else None


def _speed(rng: np.random.Generator, head: Head, part: tuple[slice, ...]) -> np.ndarray:
    """Speed of growth on the coarse grid of a part of the head, relative to white matter."""
    white, gray = (head.tissues[name][part].astype(np.float32) / 255 for name in ("white", "gray"))
    speed = white + 0.5 * gray
    x = head.origin[0] + np.arange(head.bed.shape[0])[part[0]]
    midline = (np.abs(x) <= _STEP)[:, None, None] & (white < 0.6)
    speed[midline] = 0
    where = [np.linspace(0, 1, n) for n in speed.shape]
    return np.maximum(speed, _BARRIER) * np.exp(0.35 * SmoothField(rng, (12, 12, 12))(*where))


def _arrival(speed: np.ndarray, inside: np.ndarray, seed_point: tuple[int, ...]) -> np.ndarray:
    """When a front from ``seed_point`` arrives at each point: at speed 1, the way in mm through what is ``inside``."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    cost = 0.5 * _STEP / speed
    rows, columns, lengths = [], [], []
    for offset in _NEIGHBORS:
        one = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, inside.shape))
        other = tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, inside.shape))
        both = inside[one] & inside[other]
        rows.append(number[one][both])
        columns.append(number[other][both])
        lengths.append(np.linalg.norm(offset) * (cost[one] + cost[other])[both])
    edges = (np.concatenate(rows), np.concatenate(columns))
    graph = sparse.csr_array((np.concatenate(lengths), edges), shape=(inside.sum(),) * 2)
    times = dijkstra(graph, directed=False, indices=number[seed_point])
    reached = inside.copy()
    reached[inside] = np.isfinite(times)
    arrival = np.zeros(inside.shape, dtype=np.float32)
    arrival[reached] = times[np.isfinite(times)]
    # Outside the brain the value of the nearest point in it, so that the border of the brain bounds the tumour there.
    nearest = ndimage.distance_transform_edt(~reached, return_distances=False, return_indices=True)
    return ndimage.gaussian_filter(arrival[tuple(nearest)], 0.7)


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Blotches of unit variance, some of a few mm, some of about a cm."""
    scales = [ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), s) for s in (0.6, 1.6)]
    return sum(noise / noise.std() for noise in scales) / np.float32(np.sqrt(2))


def _refine(values: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """Values at the grid of these positions (in voxels, in range), linearly interpolated along each axis."""
    for axis, position in enumerate(positions):
        low = np.minimum(position.astype(int), max(values.shape[axis] - 2, 0))
        share = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * np.asarray(x, dtype=np.float32)))).astype(np.float32)
