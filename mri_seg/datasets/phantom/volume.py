"""One synthetic FLAIR volume with its tumour mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mri_seg.datasets.phantom.anatomy import Head, load_head
from mri_seg.datasets.phantom.fields import SmoothField
from mri_seg.datasets.phantom.lesion import Grid, grow_lesion, scatter_spots

__all__ = ["has_tumor", "patient_rng", "phantom_volume"]

_FIELD_OF_VIEW = 256.0  # mm, rows and columns alike
_MIDDLE = np.array([-12.0, 0.0, 2.0])  # mm; the atlas position (posterior-anterior, left-right, height) in the middle
_SAMPLES = 3  # planes averaged over the thickness of a slice
_ONE_FREE_IN = 6


def has_tumor(seed: int, index: int) -> bool:
    """Whether a patient of a seed has a tumour: five of every six have.

    The patient without tumour is among the last three of its six, so that even the smallest data set has tumours in
    training, validation and test.
    """
    block, place = divmod(index, _ONE_FREE_IN)
    free = np.random.default_rng([seed, block, 1]).integers(_ONE_FREE_IN // 2, _ONE_FREE_IN)
    return place != free


def patient_rng(seed: int, index: int) -> np.random.Generator:
    """Random generator of a patient; it does not depend on the other patients."""
    return np.random.default_rng([seed, index])


def phantom_volume(
    seed: int, index: int, *, slices: int | None = None, size: int = 256, tumor: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Make the synthetic FLAIR volume of one patient, and the mask of its tumour.

    The head is an average brain with another pose, size, deformation and shading for each patient. As in real data, the
    8-bit scale differs between patients; some use only a tenth of the range.

    Args:
        seed: seed of the data set, 0 or more.
        index: index of the patient, from 0. The same seed and index give the same volume.
        slices: number of slices; by default 20 to 30, drawn for the patient. Slices are at most 8 mm apart, so a few
            slices show only the middle of the head.
        size: rows and columns of a slice; the field of view stays 256 mm.
        tumor: whether there is a tumour; by default, five of every six patients have one.

    Returns:
        The image ``(H, W, D)`` uint8 and the mask ``(H, W, D)`` bool. Rows run anterior to posterior, columns from the
        patient's right to left, slices from inferior to superior.

    Raises:
        ValueError: when an argument is out of range.
        ImportError: when nilearn is not installed.

    Example::

        >>> image, mask = phantom_volume(seed=0, index=0, slices=4, size=32)
        >>> image.shape, image.dtype, mask.dtype
        ((32, 32, 4), dtype('uint8'), dtype('bool'))
    """
    _check_range("seed", seed, low=0)
    _check_range("index", index, low=0)
    _check_range("size", size, low=16)
    if slices is not None:
        _check_range("slices", slices, low=1)

    head = load_head()
    rng = patient_rng(seed, index)
    # Always drawn, so that only the number of slices depends on `slices`.
    usual_slices = int(rng.integers(20, 31))
    pose = _draw_pose(rng)
    grid = _lay_grid(rng, usual_slices if slices is None else slices, size)
    brightness = _draw_brightness(rng)

    image, bed = _resample(head, brightness, pose, grid)
    if rng.random() < 0.35:
        image += scatter_spots(rng, bed, grid) * rng.uniform(0.3, 0.6)
    image *= 1 + 0.03 * SmoothField(rng, (24, 24, 16))(*_relative(grid))  # no tissue is quite even
    mask = np.zeros(image.shape, dtype=bool)
    if has_tumor(seed, index) if tumor is None else tumor:
        lesion = grow_lesion(rng, bed, grid)
        image += lesion.weight * (lesion.brightness * brightness["white"] - image)
        mask = lesion.mask
    image *= np.exp(rng.uniform(0.04, 0.14) * SmoothField(rng, (4, 4, 3))(*_relative(grid)))  # bias of the coils
    return _digitize(rng, image), mask


def _check_range(name: str, value: int, *, low: int) -> None:
    if value < low:
        raise ValueError(f"{name} is {value}; expected {low} or more.")


class _Pose(NamedTuple):
    """Position of a head in the scanner, and its difference from the average head.

    Attributes:
        matrix: ``(3, 3)``, from mm in the scanner to mm in the atlas, axes posterior-anterior, left-right, height.
        shift: ``(3,)`` mm, position of the middle of the head in the scanner.
        warp: field of displacements for each axis, in units of ``warp_size`` mm.
    """

    matrix: np.ndarray
    shift: np.ndarray
    warp: list[SmoothField]
    warp_size: float


def _draw_pose(rng: np.random.Generator) -> _Pose:
    """Draw a pose. Atlas and random fields have no preferred side, so mirroring would add nothing."""
    nod, tilt, turn = np.deg2rad(rng.normal(0, (6, 3, 4)))
    matrix = _rotation(0, 2, nod) @ _rotation(1, 2, tilt) @ _rotation(0, 1, turn)
    scale = rng.normal(1.0, 0.035) * (1 + rng.normal(0, 0.025, 3))  # size and proportions of the head
    return _Pose(
        matrix=matrix / np.clip(scale, 0.85, 1.15)[:, None],
        shift=rng.normal(0, (4, 3, 0)),
        warp=[SmoothField(rng, (4, 4, 4)) for _ in range(3)],
        warp_size=rng.uniform(1.5, 3.0),
    )


def _rotation(a: int, b: int, angle: float) -> np.ndarray:
    """Rotation by an angle in radians in the plane of two axes."""
    matrix = np.eye(3)
    matrix[[a, b], [a, b]] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _lay_grid(rng: np.random.Generator, slices: int, size: int) -> Grid:
    """Positions of the voxels in mm around the atlas's origin: anterior to posterior, right to left, upwards."""
    in_plane = _FIELD_OF_VIEW * ((np.arange(size) + 0.5) / size - 0.5)
    low, high = rng.uniform(-95, -70), rng.uniform(82, 96)
    if slices > 1:
        spacing = min((high - low) / (slices - 1), 8.0)
        # Few slices: around the middle of the cerebrum.
        middle = (low + high) / 2 if spacing < 8 else 12.0
        heights = middle + spacing * (np.arange(slices) - (slices - 1) / 2)
    else:
        heights = np.array([12.0])
    return Grid(rows=_MIDDLE[0] - in_plane, columns=_MIDDLE[1] - in_plane, slices=heights)


def _relative(grid: Grid) -> list[np.ndarray]:
    """Positions of the voxels from 0 to 1 over the field of view (and 256 mm of height)."""
    return [np.clip((p - m) / _FIELD_OF_VIEW + 0.5, 0, 1) for p, m in zip(grid, _MIDDLE)]


def _draw_brightness(rng: np.random.Generator) -> dict[str, float]:
    """Brightness of each tissue on a patient's FLAIR, relative to gray matter."""
    return {
        "gray": 1.0,
        "white": rng.uniform(0.76, 0.9),
        "fluid": rng.uniform(0.12, 0.3),
        "rim": rng.choice([0.05, rng.uniform(0.25, 0.7)]),  # every other patient has bright caps on the ventricles
        "marrow": rng.uniform(0.3, 1.2),
        "muscle": rng.uniform(0.5, 0.9),
        "fat": rng.uniform(1.9, 3.2),
    }


def _resample(head: Head, brightness: dict[str, float], pose: _Pose, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Sample the posed head on the grid, averaged over each slice's thickness.

    Interpolation is linear, and brightness is linear in the tissue fractions. So the tissues are mixed first, and only
    one volume has to be sampled instead of seven.

    Returns:
        Brightness ``(H, W, D)`` float32 relative to gray matter, and the bed for lesions ``(H, W, D)`` float32.
    """
    mixed = sum(np.float32(brightness[name] / 255) * fraction for name, fraction in head.tissues.items())
    thickness = min(5.0, abs(np.diff(grid.slices[:2])[0])) if len(grid.slices) > 1 else 5.0
    offsets = thickness * ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5)
    shape = tuple(len(axis) for axis in grid)
    image, bed = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    for k, height in enumerate(grid.slices):
        slab = Grid(grid.rows, grid.columns, height + offsets)
        points = _atlas_voxels(pose, slab, head.origin)
        image[..., k] = ndimage.map_coordinates(mixed, points, order=1, prefilter=False).mean(-1)
        # The bed is smooth; the middle of the slice is enough.
        middle = points[..., _SAMPLES // 2]
        bed[..., k] = ndimage.map_coordinates(head.bed, middle, order=1, prefilter=False, output=np.float32) / 255
    return image, bed


def _atlas_voxels(pose: _Pose, grid: Grid, origin: np.ndarray) -> np.ndarray:
    """Position in the atlas of each voxel of a grid, in voxels along x, y, z: ``(3, H, W, D)`` float32."""
    centered = [(p - m - s).astype(np.float32) for p, m, s in zip(grid, _MIDDLE, pose.shift)]
    relative = _relative(grid)
    y, x, z = (
        row[0] * centered[0][:, None, None]
        + row[1] * centered[1][None, :, None]
        + row[2] * centered[2][None, None, :]
        + np.float32(middle)
        + np.float32(pose.warp_size) * warp(*relative)
        for row, middle, warp in zip(pose.matrix.astype(np.float32), _MIDDLE, pose.warp)
    )
    return np.stack([x, y, z]) - origin.astype(np.float32)[:, None, None, None]


def _digitize(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add the noise of a magnitude image (Rician), and scale it to the patient's 8-bit range, clipping bright voxels.

    Source: Gudbjartsson and Patz, The Rician distribution of noisy MRI data, Magnetic Resonance in Medicine 34 (1995).
    """
    noise = rng.uniform(0.012, 0.045)  # relative to gray matter
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(noise)
    magnitude = np.hypot(image + real, imaginary)
    gray = float(np.exp(rng.uniform(np.log(18), np.log(85))))  # gray matter's 8-bit value
    floor = rng.uniform(0, 1.5) * noise  # scanners cut off some of the background
    return np.clip((magnitude - floor) * gray, 0, 255).astype(np.uint8)
