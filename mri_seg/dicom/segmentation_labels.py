"""Read a DICOM Segmentation of any program as a label volume, in the grid of a series if it lies on it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.errors import InvalidDicomError

from mri_seg.dicom.headers import read_header, sequence_of
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.dicom.references import import_highdicom
from mri_seg.dicom.series import is_dicom

__all__ = ["SEGMENTATIONS", "SegmentationLabel", "is_segmentation", "read_segmentation_label", "referenced_series"]

SEGMENTATIONS = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
}
"""SOP classes of segmentations made of pixels."""

_ON_GRID = 0.01  # voxels
_PRESENT = 0.5  # of a fractional segment
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class SegmentationLabel(NamedTuple):
    """A label.

    Attributes:
        values: number of the segment of each voxel, 0 for none, ``(H, W, D)``; where segments overlap, the highest.
        affine: from indices to RAS in mm, ``(4, 4)``.
        overlapping: number of voxels that belong to several segments.
    """

    values: np.ndarray
    affine: np.ndarray
    overlapping: int


def is_segmentation(path: PathLike | str) -> bool:
    """Whether a file is a DICOM segmentation made of pixels."""
    if not Path(path).is_file() or not is_dicom(path):
        return False
    try:
        return str(read_header(Path(path), ["SOPClassUID"]).get("SOPClassUID") or "") in SEGMENTATIONS
    except ValueError:
        return False


def referenced_series(path: PathLike | str) -> frozenset[str]:
    """SeriesInstanceUIDs of the series to which a DICOM segmentation refers."""
    header = read_header(Path(path), ["ReferencedSeriesSequence"])
    items = sequence_of(header, "ReferencedSeriesSequence")
    return frozenset(str(item.get("SeriesInstanceUID") or "") for item in items) - {""}


@quiet_pydicom()
def read_segmentation_label(
    path: PathLike | str, *, affine: np.ndarray | None = None, shape: tuple[int, ...] = ()
) -> SegmentationLabel:
    """Read a segmentation by the positions of its frames; slices without a frame are empty.

    Args:
        path: the SEG file.
        affine: from indices of the series to RAS in mm, ``(4, 4)``.
        shape: rows, columns and slices of the series.

    Returns:
        the label in the grid of the series if its voxels are voxels of the series, otherwise in its own grid.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when the file is not a SEG, or its frames do not lie in one regular grid.
    """
    highdicom = import_highdicom()
    try:
        segmentation = highdicom.seg.segread(path)
        volume = segmentation.get_volume(combine_segments=False)
        numbers = np.array([int(number) for number in segmentation.segment_numbers])
    except FileNotFoundError:
        raise
    except (
        AttributeError,
        InvalidDicomError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path}: cannot be read as a DICOM segmentation ({error}). Save the segmentation again, with frames in "
            "the grid of its series."
        ) from error
    present = volume.array >= _PRESENT  # (slices, rows, columns, segments)
    values = (present * numbers).max(axis=-1)
    overlapping = int((present.sum(axis=-1) > 1).sum())
    own_affine = _LPS_TO_RAS @ np.asarray(volume.affine, dtype=np.float64)
    if affine is not None:
        placed = _placed(values, np.linalg.inv(affine) @ own_affine, shape)
        if placed is not None:
            return SegmentationLabel(placed, affine, overlapping)
    rows_first = own_affine[:, [1, 2, 0, 3]]
    return SegmentationLabel(_smallest(values.transpose(1, 2, 0)), rows_first, overlapping)


def _placed(values: np.ndarray, to_series: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Put the labeled voxels into the grid of the series; None if they lie beside its voxels or outside it."""
    labeled = np.argwhere(values)
    indices = labeled @ to_series[:3, :3].T + to_series[:3, 3]
    axes = np.abs(to_series[:3, :3])
    is_lattice = (
        np.allclose(axes, axes.round(), atol=_ON_GRID / max(values.shape)) and (axes.round().sum(axis=0) == 1).all()
    )
    rounded = indices.round().astype(int)
    inside = (rounded >= 0).all() and (rounded < np.array(shape)).all()
    if not is_lattice or not inside or (len(indices) and np.abs(indices - rounded).max() > _ON_GRID):
        return None
    placed = np.zeros(shape, values.dtype)
    placed[tuple(rounded.T)] = values[tuple(labeled.T)]
    return _smallest(placed)


def _smallest(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.int32)  # torch has no larger unsigned types
