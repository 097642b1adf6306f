"""A synthetic patient: one head, perhaps a tumour, and as many FLAIR scans of it as are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mri_seg.datasets.phantom.anatomy import BLOCK, load_head
from mri_seg.datasets.phantom.fields import SmoothField
from mri_seg.datasets.phantom.lesion import Patch, Spots, Tumor, draw_position, volume_of_diameter

__all__ = ["PhantomPatient", "PhantomScan", "has_tumor"]

_FIELD_OF_VIEW = 240.0  # mm, rows and columns alike
_MIDDLE = np.array([0.0, -12.0, 2.0])  # mm; the atlas position in the middle of the picture
_SAMPLES = 3  # planes averaged over the thickness of a slice
_COARSE = 8  # pixels between the points at which the head's deformation is computed
_ONE_FREE_IN = 6
_FEWEST_FOR_WHOLE_HEAD = 24  # slices
# What is drawn from which stream of a patient's random numbers, so that more of one thing does not change another.
_HEAD, _TUMOR, _SCAN = 11, 12, 13


def has_tumor(seed: int, index: int) -> bool:
    """Whether a patient of a seed has a tumour: five of every six have.

    The patient without tumour is among the last three of its six, so that even the smallest data set has tumours in
    training, validation and test.
    """
    block, place = divmod(index, _ONE_FREE_IN)
    free = np.random.default_rng([seed, block, 1]).integers(_ONE_FREE_IN // 2, _ONE_FREE_IN)
    return place != free


@dataclass(frozen=True)
class PhantomScan:
    """A synthetic FLAIR volume.

    Attributes:
        image: ``(H, W, D)`` uint8. Rows run anterior to posterior, columns from the patient's right to left, slices
            from inferior to superior.
        mask: ``(H, W, D)`` bool: the tumour, in the same grid.
        affine: ``(4, 4)`` from the indices of a voxel to mm in the scanner (RAS, as NIfTI has it). Each scan has a pose
            of its own: equal positions in mm are not equal places in the head.
        volume: the tumour's true volume in mL, 0 without tumour. The mask's is a little different: it is sampled.
        to_head: ``(4, 4)`` from mm in the scanner to mm in the patient's head, which all scans of a patient share: the
            true rigid registration.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    volume: float
    to_head: np.ndarray


class PhantomPatient:
    """A synthetic patient, whose scans show the same head in other poses, with other contrast, shading and noise.

    The head is an average brain with proportions and a deformation of its own. The tumour grows from one point, and a
    larger one holds the smaller one of the same patient (:py:class:`~mri_seg.datasets.phantom.lesion.Tumor`).

    Args:
        seed: seed of the data set, 0 or more.
        index: index of the patient, from 0. The same seed and index give the same patient.
        tumor: whether there is a tumour; by default, five of every six patients have one.
        position: where the tumour begins, in mm of the MNI atlas: left (negative) to right, posterior to anterior,
            inferior to superior. By default a place in the white matter of the cerebrum, drawn for the patient.
        volume: volume in mL of the tumour, by default drawn for the patient, half of them over 40 mL.
        diameter: mean diameter in mm (the cube root of twice the volume) instead of ``volume``.

    Raises:
        ValueError: when an argument is out of range.
        ImportError: when nilearn is not installed.

    Example: a tumour whose mean diameter grows from 30 to 45 mm, and a third scan at the same size::

        >>> patient = PhantomPatient(seed=0, index=0, position=(-30, -20, 30))
        >>> scans = [patient.scan(n, diameter=d, slices=8, size=64) for n, d in enumerate((30, 45, 45))]
        >>> [round(scan.volume, 1) for scan in scans]
        [13.5, 45.6, 45.6]
    """

    def __init__(
        self,
        seed: int,
        index: int,
        *,
        tumor: bool | None = None,
        position: Sequence[float] | None = None,
        volume: float | None = None,
        diameter: float | None = None,
    ) -> None:
        check_range("seed", seed, low=0)
        check_range("index", index, low=0)
        self.seed, self.index = seed, index
        self._atlas = load_head()
        rng = np.random.default_rng([seed, index, _HEAD])
        scale = rng.normal(1.0, 0.035) * (1 + rng.normal(0, 0.025, 3))  # size and proportions of the head
        self._scale = np.clip(scale, 0.88, 1.12)
        self._warp_size = rng.uniform(1.5, 3.0)  # mm
        self._warp = [SmoothField(rng, (4, 4, 4)) for _ in range(3)]
        self._spots = Spots(rng, self._atlas)

        self.tumor: Tumor | None = None
        """The tumour, or None."""
        self.volume = 0.0
        """Volume in mL of the tumour if a scan is not told another."""
        if not (has_tumor(seed, index) if tumor is None else tumor):
            if (position, volume, diameter) != (None, None, None):
                raise ValueError(f"Patient {index} of seed {seed} has no tumour to place or size; pass tumor=True.")
            return
        rng = np.random.default_rng([seed, index, _TUMOR])
        drawn = draw_position(rng, self._atlas)
        usual = float(np.clip(rng.lognormal(np.log(40), 0.55), 10, 120))
        place = [float(x) for x in (drawn if position is None else position)]
        self.tumor = Tumor(rng, self._atlas, place, expansion=self._expansion(place))
        given = _one_size(volume, diameter)
        # A drawn size gives way to the place; a size that was asked for does not.
        self.volume = min(usual, self.tumor.max_volume) if given is None else given

    def scan(
        self,
        number: int = 0,
        *,
        volume: float | None = None,
        diameter: float | None = None,
        slices: int | None = None,
        size: int = 256,
        spacing: float = 5.0,
        angles: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
    ) -> PhantomScan:
        """Scan the patient.

        Args:
            number: number of the scan, from 0. Each has a pose, an offset of its slices, a contrast, a shading and
                noise of its own; the same number gives the same scan.
            volume: volume in mL of the tumour at this scan, by default the patient's.
            diameter: mean diameter in mm instead of ``volume``.
            slices: number of slices, by default enough for the head (at 5 mm, 24 to 30). Fewer than 24 lie around the
                tumour, or around the middle of the cerebrum.
            size: rows and columns of a slice; the field of view stays 240 mm, so pixels are 0.94 mm at 256.
            spacing: distance and thickness of the slices in mm.
            angles: how the head lies, in degrees: nod, tilt to a shoulder and turn; by default drawn.
            shift: where the head lies, in mm to the right, to the front and upwards; by default drawn.

        Raises:
            ValueError: when an argument is out of range, or a size is given and there is no tumour.
        """
        check_range("number", number, low=0)
        check_range("size", size, low=16)
        if not 0.5 <= spacing <= 20:
            raise ValueError(f"spacing is {spacing}; expected 0.5 to 20 mm.")
        if slices is not None:
            check_range("slices", slices, low=1)
        given = _one_size(volume, diameter)
        if given is not None and self.tumor is None:
            raise ValueError(f"Patient {self.index} of seed {self.seed} has no tumour to size; pass tumor=True.")

        # The order of the draws is fixed, and none depends on an argument.
        rng = np.random.default_rng([self.seed, self.index, _SCAN, number])
        pose = _draw_pose(rng, angles, shift)
        usual_slices, top, offset = int(rng.integers(24, 31)), rng.uniform(76, 84), rng.uniform(-0.5, 0.5)
        if slices is None:
            slices = max(1, round(usual_slices * 5 / spacing))
        if slices * spacing < _FEWEST_FOR_WHOLE_HEAD * 5:
            middle = self._show(pose)
            heights = middle + spacing * (np.arange(slices) - (slices - 1) / 2 + (offset if slices > 1 else 0))
        else:
            heights = top + spacing * (offset - np.arange(slices)[::-1])
        in_plane = _FIELD_OF_VIEW * ((np.arange(size) + 0.5) / size - 0.5)
        grid = _Grid(_MIDDLE[1] - in_plane, _MIDDLE[0] - in_plane, heights)

        brightness = _draw_brightness(rng)
        size_now = self.volume if given is None else given
        patch = None if self.tumor is None else self.tumor.at(size_now, self._atlas)
        image, mask = self._sample(brightness, patch, pose, grid, spacing)
        image *= 1 + 0.03 * SmoothField(rng, (24, 24, 16))(*grid.relative())  # no tissue is quite even
        image *= np.exp(rng.uniform(0.04, 0.14) * SmoothField(rng, (4, 4, 3))(*grid.relative()))  # bias of the coils
        return PhantomScan(_digitize(rng, image), mask, grid.affine(spacing), size_now, pose.to_head())

    def _to_atlas(self, head: np.ndarray) -> np.ndarray:
        """Positions ``(3, N)`` in the patient's head, in mm, to mm in the atlas."""
        centered = head - _MIDDLE[:, None]
        relative = np.clip(centered / 256 + 0.5, 0, 1)
        warp = self._warp_size * np.stack([field.at(relative) for field in self._warp])
        return centered / self._scale[:, None] + _MIDDLE[:, None] + warp

    def _expansion(self, place: Sequence[float] | np.ndarray) -> float:
        """Volume in the patient of 1 mm3 of the atlas, around a place in mm of the atlas."""
        step = 15.0 * np.eye(3)
        around = (_MIDDLE + (np.asarray(place, dtype=float) - _MIDDLE) * self._scale)[:, None]
        gradient = (self._to_atlas(around + step) - self._to_atlas(around - step)) / 30
        return float(1 / np.linalg.det(gradient))

    def _show(self, pose: _Pose) -> float:
        """Height in the scanner of the tumour's origin, or of the middle of the cerebrum."""
        place = np.array([0.0, -20.0, 20.0]) if self.tumor is None else self.tumor.position
        in_head = _MIDDLE + (place - _MIDDLE) * self._scale  # without the deformation, which is of few mm
        return float((pose.rotation.T @ (in_head - _MIDDLE) + _MIDDLE + pose.shift)[2])

    def _sample(
        self, brightness: dict[str, float], patch: Patch | None, pose: _Pose, grid: _Grid, thickness: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sample the posed head on a grid, averaged over each slice's thickness.

        Interpolation is linear, and brightness is linear in the tissue fractions. So the tissues are mixed first, and
        only one volume has to be sampled instead of seven.

        Returns:
            Brightness ``(H, W, D)`` float32 relative to gray matter, and the mask ``(H, W, D)`` bool.
        """
        atlas = self._atlas
        offsets = thickness * ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5)
        planes = [self._atlas_voxels(pose, grid, height + offsets) for height in grid.slices]
        mixed = atlas.mix(brightness)
        self._spots.paint(mixed, atlas)
        if patch is not None:
            there = mixed[patch.where]
            there += patch.weight * (patch.brightness * np.float32(brightness["white"]) - there)
        image = np.zeros([len(axis) for axis in grid], dtype=np.float32)
        mask = np.zeros(image.shape, dtype=bool)
        for k, coarse in enumerate(planes):
            rows, columns = _head_rectangle(coarse, atlas.occupied, image.shape[:2])
            if rows.start == rows.stop:
                continue
            points = _interpolate(coarse, rows, columns)
            values = ndimage.map_coordinates(mixed, points.reshape(3, -1), order=1, prefilter=False)
            image[rows, columns, k] = values.reshape(points.shape[1:]).mean(-1)
            if patch is not None:
                mask[rows, columns, k] = _sample_patch(patch, points).mean(-1) > 0.5
        return image, mask

    def _atlas_voxels(self, pose: _Pose, grid: _Grid, heights: np.ndarray) -> np.ndarray:
        """Position in the atlas, in voxels, of every ``_COARSE``-th pixel of planes: ``(3, h, w, len(heights))``."""
        rows, columns = (axis[0] + (axis[1] - axis[0]) * _coarse_pixels(len(axis)) for axis in grid[:2])
        y, x, z = np.meshgrid(rows, columns, heights, indexing="ij")
        scanner = np.stack([x, y, z]).reshape(3, -1) - pose.shift[:, None]
        head = pose.rotation @ (scanner - _MIDDLE[:, None]) + _MIDDLE[:, None]
        voxels = self._to_atlas(head) - self._atlas.origin[:, None]
        return voxels.reshape(3, *x.shape).astype(np.float32)


def check_range(name: str, value: int, *, low: int) -> None:
    """Raise an error that names an argument if it is too low."""
    if value < low:
        raise ValueError(f"{name} is {value}; expected {low} or more.")


def _one_size(volume: float | None, diameter: float | None) -> float | None:
    """Volume in mL, from whichever of the two is given."""
    if volume is not None and diameter is not None:
        raise ValueError(f"volume is {volume} and diameter {diameter}; expected one of them.")
    return volume if diameter is None else volume_of_diameter(diameter)


class _Grid(NamedTuple):
    """Positions of the voxels of a picture, in mm: of its rows, columns and slices."""

    rows: np.ndarray
    columns: np.ndarray
    slices: np.ndarray

    def relative(self) -> list[np.ndarray]:
        """Positions from 0 to 1 over 256 mm."""
        return [np.clip((p - m) / 256 + 0.5, 0, 1) for p, m in zip(self, _MIDDLE[[1, 0, 2]])]

    def affine(self, spacing: float) -> np.ndarray:
        """From (row, column, slice) to mm, RAS."""
        pixel = self.rows[1] - self.rows[0]
        affine = np.diag([0, 0, spacing, 1.0])
        affine[0, 1] = affine[1, 0] = pixel
        affine[:3, 3] = self.columns[0], self.rows[0], self.slices[0]
        return affine


class _Pose(NamedTuple):
    """How a head lies in the scanner: a rotation from scanner to head, and the position of the head's middle in mm."""

    rotation: np.ndarray
    shift: np.ndarray

    def to_head(self) -> np.ndarray:
        """``(4, 4)`` from mm in the scanner to mm in the head."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = _MIDDLE - self.rotation @ (_MIDDLE + self.shift)
        return matrix


def _draw_pose(rng: np.random.Generator, angles: Sequence[float] | None, shift: Sequence[float] | None) -> _Pose:
    """Draw a pose, of which parts may be given. Atlas and random fields have no preferred side."""
    drawn = rng.normal(0, (6, 3, 4)), rng.normal(0, (3, 4, 2))
    nod, tilt, turn = np.deg2rad(drawn[0] if angles is None else np.asarray(angles, dtype=float))
    rotation = _rotation(1, 2, nod) @ _rotation(0, 2, tilt) @ _rotation(0, 1, turn)
    return _Pose(rotation, drawn[1] if shift is None else np.asarray(shift, dtype=float))


def _rotation(a: int, b: int, angle: float) -> np.ndarray:
    """Rotation by an angle in radians in the plane of two axes."""
    matrix = np.eye(3)
    matrix[[a, b], [a, b]] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _draw_brightness(rng: np.random.Generator) -> dict[str, float]:
    """Brightness of each tissue on a FLAIR, relative to gray matter."""
    return {
        "gray": 1.0,
        "white": rng.uniform(0.78, 0.9),
        "fluid": rng.uniform(0.12, 0.3),
        "rim": rng.choice([0.03, rng.uniform(0.1, 0.35)]),  # every other scan has bright caps on the ventricles
        "marrow": rng.uniform(0.3, 1.2),
        "muscle": rng.uniform(0.5, 0.9),
        "fat": rng.uniform(1.6, 2.8),
    }


def _coarse_pixels(pixels: int) -> np.ndarray:
    """Positions in pixels of the coarse points: they begin at pixel 0 and pass the last one."""
    return np.arange(-(-(pixels - 1) // _COARSE) + 1) * float(_COARSE)


def _head_rectangle(coarse: np.ndarray, occupied: np.ndarray, picture: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the picture outside which a plane shows no head."""
    blocks = np.floor(coarse / BLOCK).astype(int)
    limits = np.array(occupied.shape)[:, None, None, None]
    # Points beyond the atlas are at its border, where there may be a neck.
    near = occupied[tuple(np.clip(blocks, 0, limits - 1))] & ((blocks >= -1) & (blocks <= limits)).all(0)
    rectangle = []
    for axis, pixels in enumerate(picture):
        where = np.flatnonzero(near.any(axis=(1 - axis, 2))) * _COARSE
        first, last = (max(where[0] - _COARSE, 0), where[-1] + _COARSE + 1) if len(where) else (0, 0)
        rectangle.append(slice(first, min(last, pixels)))
    return rectangle[0], rectangle[1]


def _interpolate(coarse: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Positions ``(3, H, W, S)`` of the pixels of a rectangle, interpolated between the coarse points."""
    for axis, part in ((1, rows), (2, columns)):
        pixels = np.arange(part.start, part.stop)
        low = np.minimum(pixels // _COARSE, max(coarse.shape[axis] - 2, 0))
        share = ((pixels - low * _COARSE) / _COARSE).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(4)])
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        coarse = np.take(coarse, low, axis) * (1 - share) + np.take(coarse, high, axis) * share
    return coarse


def _sample_patch(patch: Patch, points: np.ndarray) -> np.ndarray:
    """A tumour's weight at atlas voxels ``(3, H, W, S)``; only those in the patch cost time."""
    weight = np.zeros(points.shape[1:], dtype=np.float32)
    inside = np.ones(points.shape[1:], dtype=bool)
    for position, first, length in zip(points, patch.corner, patch.weight.shape):
        inside &= (position >= first) & (position <= first + length - 1)
    if inside.any():
        there = points[:, inside] - np.array(patch.corner, dtype=np.float32)[:, None]
        weight[inside] = ndimage.map_coordinates(patch.weight, there, order=1, prefilter=False)
    return weight


def _digitize(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add the noise of a magnitude image (Rician), and scale it to the patient's 8-bit range, clipping bright voxels.

    Source: Gudbjartsson and Patz, The Rician distribution of noisy MRI data, Magnetic Resonance in Medicine 34 (1995).
    """
    noise = rng.uniform(0.012, 0.045)  # relative to gray matter
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(noise)
    magnitude = np.hypot(image + real, imaginary)
    gray = float(np.exp(rng.uniform(np.log(22), np.log(85))))  # gray matter's 8-bit value
    floor = rng.uniform(0, 1.5) * noise  # scanners cut off some of the background
    return np.clip((magnitude - floor) * gray, 0, 255).astype(np.uint8)
