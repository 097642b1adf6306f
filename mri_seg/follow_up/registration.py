"""Bring a scan to the place of an earlier one: rigid registration with ITK, and how well it went.

ITK's own registration framework (version 4) is used, since ``itk`` is a dependency anyway: Mattes mutual information,
which knows no fixed relation between the intensities of two scans, and a rigid transform. Source: Mattes et al.,
PET-CT image registration in the chest using free-form deformations, IEEE Transactions on Medical Imaging 22 (2003).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mri_seg.follow_up.itk_classes import itk_classes
from mri_seg.measurements.lesions import bounding_box
from mri_seg.utils.files import atomic_write

__all__ = ["Quality", "Registration", "head_mask", "register", "resample", "write_transform"]

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS, which ITK uses, and back

_PIXEL = (4.0, 2.0)  # mm: to this size pixels are averaged, level by level
_SAMPLED = (0.4, 0.1)  # share of the voxels of the head that the metric looks at, level by level
_BINS = 32
_STEPS = (80, 40)
_ROUNDS = (6, 1)  # an optimizer may stop far from the end: another one begins there with long steps, level by level
_STARTS = [(25, 0, 0), (-25, 0, 0), (0, 25, 0), (0, -25, 0), (0, 0, 35), (0, 0, -35)]  # degrees: nod, tilt, turn
_SETTLED = 4.0  # mm: the last round has moved no place of the head farther
_SEED = 121212
_HEAD = 0.12  # where the head begins, as a fraction of the way from the darkest to the brightest values

MIN_OVERLAP = 0.6
"""Least share of the head that both scans must show."""
MIN_SIMILARITY = 0.25
"""Least correlation ratio inside the head: below it, the scans do not show the same head in the same place."""
DOUBTFUL_SIMILARITY = 0.5
"""Correlation ratio below which a registration is flagged."""


class Quality(NamedTuple):
    """How well a scan was brought to another.

    Attributes:
        overlap: share of the smaller head, of the two, that lies in the other.
        similarity: correlation ratio of the intensities inside both heads, from 0 (none) to 1: the share of the
            variance of the later scan that the intensities of the first explain.
        angle: rotation in degrees.
        shift: displacement of the middle of the head in mm.
    """

    overlap: float
    similarity: float
    angle: float
    shift: float

    @property
    def failed(self) -> bool:
        """Whether the scans cannot be compared."""
        return self.overlap < MIN_OVERLAP or self.similarity < MIN_SIMILARITY

    @property
    def doubtful(self) -> bool:
        """Whether a person should look at the overlay."""
        return self.similarity < DOUBTFUL_SIMILARITY


class Registration(NamedTuple):
    """A rigid transform with its quality.

    Attributes:
        matrix: ``(4, 4)``, from RAS in mm of the fixed scan to RAS in mm of the moving scan.
        quality: how well it fits.
    """

    matrix: np.ndarray
    quality: Quality


def register(
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    moving: np.ndarray,
    moving_affine: np.ndarray,
    *,
    fixed_lesion: np.ndarray | None = None,
    moving_lesion: np.ndarray | None = None,
) -> Registration:
    """Register a scan rigidly to an earlier one of the same head.

    It begins with the middles of both heads on each other and the axes of the scanners parallel, as scans for the same
    purpose have them, and refines rotation and shift at two resolutions, the coarse one until it settles. If the result
    is doubtful, it begins again with the head turned, until one is not, or else takes the best. Only the head counts;
    the tumour, which changes, does not.

    Args:
        fixed: intensities of the earlier scan ``(H, W, D)``.
        fixed_affine: ``(4, 4)``, from its voxels to RAS in mm.
        moving: intensities of the later scan.
        moving_affine: ``(4, 4)``, from its voxels to RAS in mm.
        fixed_lesion: the tumour in the earlier scan.
        moving_lesion: the tumour in the later scan.

    Returns:
        the transform and its quality; it is the caller who refuses a failed one.
    """
    one, other = _Head(fixed, fixed_affine, fixed_lesion), _Head(moving, moving_affine, moving_lesion)
    levels = [(one.shrunk(pixel), other.shrunk(pixel)) for pixel in _PIXEL]
    best = _from_start(one, other, levels, (0, 0, 0))
    for angles in _STARTS:
        if not (best.quality.failed or best.quality.doubtful):
            break
        found = _from_start(one, other, levels, angles)
        best = max(best, found, key=lambda each: (not each.quality.failed, each.quality.similarity))
    return best


def _from_start(
    one: _Head, other: _Head, levels: Sequence[tuple[Any, Any]], angles: tuple[float, float, float]
) -> Registration:
    """Register two heads, beginning with one of them turned by some degrees about the axes of the scanner."""
    transform = itk_classes().transform.New()
    transform.SetCenter(one.center.tolist())
    transform.SetTranslation((other.center - one.center).tolist())
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(turned)))
    for level, (fixed, moving) in enumerate(levels):
        _refine(transform, fixed, moving, level)
    matrix = _LPS @ _matrix(transform) @ _LPS
    return Registration(matrix, _quality(one, other, matrix))


class _Head:
    """A scan as the registration sees it: intensities without outliers, the head, and its middle.

    Args:
        volume: intensities ``(H, W, D)``.
        affine: ``(4, 4)``, from voxels to RAS in mm.
        lesion: what is left out of the head.
    """

    def __init__(self, volume: np.ndarray, affine: np.ndarray, lesion: np.ndarray | None) -> None:
        volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
        self.affine = np.asarray(affine, dtype=float)
        self.head = head_mask(volume)
        inside = volume[self.head] if self.head.any() else volume
        low, high = float(volume.min()), float(np.percentile(inside, 99))  # fat and marrow are bright and vary most
        self.volume = np.clip(volume, low, max(high, low + 1e-6))
        self.lesion = np.zeros(volume.shape, dtype=bool) if lesion is None else np.asarray(lesion) > 0
        where = self.head if self.head.any() else np.ones(volume.shape, dtype=bool)
        middle = np.array(ndimage.center_of_mass(where))
        self.middle = apply_affine(self.affine, middle)
        self.center = self.middle * (-1, -1, 1)

    def shrunk(self, pixel: float) -> tuple[Any, Any]:
        """The scan and its head without the tumour as images of ITK, with pixels averaged to about a size in mm."""
        steps = voxel_sizes(self.affine)
        factors = tuple(max(1, round(pixel / step)) for step in steps)
        affine = self.affine.copy()
        affine[:3, 3] = apply_affine(self.affine, [(factor - 1) / 2 for factor in factors])
        affine[:3, :3] = self.affine[:3, :3] * factors
        near = _dilated(self.lesion, steps, 3.0)
        image = _averaged(self.volume, factors)
        mask = _averaged((self.head & ~near).astype(np.float32), factors) > 0.5
        return _itk_image(image, affine), _itk_image(mask.astype(np.uint8), affine)


def head_mask(volume: np.ndarray) -> np.ndarray:
    """The head in a volume ``(H, W, D)``: what is brighter than air, its largest part, filled slice by slice."""
    low, high = np.percentile(volume, (0.5, 99.5))
    bright = ndimage.binary_opening(volume > low + _HEAD * (high - low), iterations=1)
    labels, count = ndimage.label(bright)
    if not count:
        return np.asarray(bright)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    axis = int(np.argmin(volume.shape))
    slices = [ndimage.binary_fill_holes(one) for one in np.moveaxis(largest, axis, 0)]
    return np.moveaxis(np.stack(slices), 0, axis)


def _dilated(mask: np.ndarray, steps: np.ndarray, distance: float) -> np.ndarray:
    """A mask grown by a distance in mm."""
    grown = np.zeros(mask.shape, dtype=bool)
    if mask.any():
        margin = np.ceil(distance / steps).astype(int)
        box = tuple(
            slice(max(part.start - more, 0), part.stop + more) for part, more in zip(bounding_box(mask), margin)
        )
        grown[box] = ndimage.distance_transform_edt(~mask[box], sampling=steps) <= distance
    return grown


def _averaged(volume: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Means of blocks; what does not fill a block at the end is cut off."""
    kept = volume[tuple(slice(0, size // factor * factor) for size, factor in zip(volume.shape, factors))]
    split = [part for size, factor in zip(kept.shape, factors) for part in (size // factor, factor)]
    return np.asarray(kept.reshape(split).mean(axis=(1, 3, 5), dtype=np.float32))


def _itk_image(volume: np.ndarray, affine: np.ndarray) -> Any:
    """A volume as an image of ITK."""
    image = itk.image_from_array(np.ascontiguousarray(volume.transpose(2, 1, 0)))
    lps = _LPS @ affine
    steps = voxel_sizes(affine)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / steps)))
    return image


def _refine(transform: Any, fixed: tuple[Any, Any], moving: tuple[Any, Any], level: int) -> None:
    """Optimize a transform at one resolution, until it moves the head no more."""
    center = np.array(list(transform.GetCenter()))
    places = center + 100.0 * np.array(list(itertools.product((-1, 1), repeat=3)))  # mm: the corners around a head
    before = apply_affine(_matrix(transform), places)
    for _ in range(_ROUNDS[level]):
        _optimize(transform, fixed, moving, level)
        after = apply_affine(_matrix(transform), places)
        if np.linalg.norm(after - before, axis=1).max() < _SETTLED:
            return
        before = after


def _optimize(transform: Any, fixed: tuple[Any, Any], moving: tuple[Any, Any], level: int) -> None:
    classes = itk_classes()
    metric = classes.metric.New(NumberOfHistogramBins=_BINS)
    mask = classes.mask.New(Image=fixed[1])
    mask.Update()
    metric.SetFixedImageMask(mask)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetUseFixedImageGradientFilter(False)
    # Not ReturnBestParametersAndValue: it can return parameters of another step than the best value's, far from it.
    optimizer = classes.optimizer.New(
        LearningRate=(2.0, 0.5)[level],
        MinimumStepLength=0.02,
        NumberOfIterations=_STEPS[level],
        RelaxationFactor=0.6,
    )
    # A versor's component is half an angle in radians: a change of 1 moves the edge of a head by some 150 mm.
    scales = classes.parameters(6)
    for n, scale in enumerate([150.0**2] * 3 + [1.0] * 3):
        scales.SetElement(n, scale)
    optimizer.SetScales(scales)
    method = classes.method.New(
        FixedImage=fixed[0], MovingImage=moving[0], Metric=metric, Optimizer=optimizer, InitialTransform=transform
    )
    method.SetNumberOfLevels(1)  # before the share of samples, which it resets to all
    method.SetMetricSamplingStrategy(classes.enums.MetricSamplingStrategy_RANDOM)
    method.SetMetricSamplingPercentage(_SAMPLED[level])
    method.MetricSamplingReinitializeSeed(_SEED)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.SetInPlace(True)
    method.Update()


def _matrix(transform: Any) -> np.ndarray:
    """The matrix ``(4, 4)`` of a transform of ITK."""
    matrix = np.eye(4)
    matrix[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    matrix[:3, 3] = list(transform.GetOffset())
    return matrix


def _quality(one: _Head, other: _Head, matrix: np.ndarray) -> Quality:
    arguments = (other.affine, matrix, one.volume.shape, one.affine)
    moved, inside = resample(other.volume, *arguments)
    head = resample(other.head, *arguments, order=0)[0] > 0
    seen, both = one.head & inside, one.head & inside & head
    smaller = min(int(seen.sum()), int(head.sum()))
    overlap = float(both.sum()) / smaller if smaller else 0.0
    overlap = min(overlap, float(seen.sum()) / max(int(one.head.sum()), 1) * 2)  # half a head may lie outside
    angle = np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude())
    shift = float(np.linalg.norm(apply_affine(matrix, one.middle) - one.middle))
    return Quality(overlap, _correlation_ratio(one.volume[both], moved[both]), float(angle), shift)


def _correlation_ratio(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the variance of one image that the other explains, whatever their relation.

    Source: Roche et al., The correlation ratio as a new similarity measure for multimodal image registration, MICCAI
    1998.
    """
    if one.size < _BINS**2 or other.var() == 0:
        return 0.0
    edges = np.unique(np.quantile(one, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, one)
    count = np.bincount(bins, minlength=len(edges) + 1)
    mean = np.bincount(bins, other, minlength=len(edges) + 1) / np.maximum(count, 1)
    return float(1 - ((other - mean[bins]) ** 2).mean() / other.var())


def resample(
    volume: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    to_affine: np.ndarray,
    *,
    order: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a volume on the grid of another scan.

    Args:
        volume: ``(H, W, D)``.
        affine: ``(4, 4)``, from its voxels to RAS in mm.
        matrix: ``(4, 4)``, from RAS in mm of the grid to RAS in mm of the volume.
        shape: shape of the grid.
        to_affine: ``(4, 4)``, from the voxels of the grid to RAS in mm.
        order: 0 for the nearest voxel, 1 for linear interpolation.

    Returns:
        the sampled volume, float32, 0 outside; and where the grid lies inside the volume, bool.
    """
    to_voxel = np.linalg.inv(affine) @ matrix @ to_affine
    moved = ndimage.affine_transform(
        np.asarray(volume, dtype=np.float32), to_voxel[:3, :3], to_voxel[:3, 3], tuple(shape), order=order
    )
    inside = np.ones(shape, dtype=bool)
    axes = [
        np.arange(size, dtype=np.float32).reshape([-1 if a == n else 1 for a in range(3)])
        for n, size in enumerate(shape)
    ]
    for row, size in zip(to_voxel[:3], volume.shape):
        place = sum(weight * axis for weight, axis in zip(row, axes)) + row[3]
        inside &= (place >= -0.5) & (place <= size - 0.5)
    return moved, inside


def write_transform(path: PathLike | str, matrix: np.ndarray) -> None:
    """Write a rigid transform as a text file of ITK (``.tfm``), which 3D Slicer, ITK-SNAP and SimpleITK read.

    Like every transform of ITK it maps points (LPS, mm) of the fixed image, the first scan, to the moving one: with it,
    the later scan is resampled to the first.

    Args:
        path: the file to write.
        matrix: ``(4, 4)``, from RAS in mm of the first scan to RAS in mm of the later one.
    """
    lps = _LPS @ matrix @ _LPS
    versor = Rotation.from_matrix(lps[:3, :3]).as_quat(canonical=True)[:3]
    parameters = " ".join(repr(float(value)) for value in (*versor, *lps[:3, 3]))
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: VersorRigid3DTransform_double_3_3",
        f"Parameters: {parameters}",
        "FixedParameters: 0 0 0",  # the center of the rotation
    ]
    with atomic_write(Path(path)) as unfinished:
        unfinished.write_text("\n".join([*lines, ""]), encoding="ascii")
