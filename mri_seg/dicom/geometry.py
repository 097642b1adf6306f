"""Order the frames of a DICOM series in space."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from mri_seg.dicom.copies import without_copies
from mri_seg.dicom.headers import (
    FileCache,
    frame_count,
    functional_group,
    number_of,
    read_header,
    sequence_of,
    value_of,
)
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.utils.size_limit import SizeLimit

__all__ = ["GEOMETRY_TAGS", "Frame", "FrameGrid", "arrange_frames", "order_frames"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME_POSITION = 0.01  # mm
# Two distances count as equal within 0.1 mm or 1 %: files round positions to that, and it is a small part of a voxel.
_DISTANCE_TOLERANCE = 0.1  # mm
_RELATIVE_TOLERANCE = 0.01
_COSINE_TOLERANCE = 1e-3  # directions rounded to three digits; a quarter of a millimetre over a head
_SPACING_TOLERANCE = 1e-3  # relative; a quarter of a pixel over 256
_SHEAR_TOLERANCE = 0.01  # mm sideways for each mm along the normal, 0.6 degrees

# Attributes in which frames at the same position may differ, in the order in which they are compared, with their
# functional group in an enhanced image.
_DIMENSIONS = {
    "EchoTime": None,
    "EffectiveEchoTime": "MREchoSequence",
    "EchoNumbers": None,
    "InversionTime": None,
    "InversionTimes": "MRModifierSequence",
    "TemporalPositionIdentifier": None,
    "TemporalPositionIndex": "FrameContentSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "ImageType": None,
    "FrameType": "MRImageFrameTypeSequence",
    "TriggerTime": None,
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "StackID": "FrameContentSequence",
    "AcquisitionNumber": None,
    "FrameAcquisitionNumber": "FrameContentSequence",
    "ContrastBolusAgent": None,
}
# Siemens mosaics: creator and tags of the attribute with the number of slices, and of the CSA header, which has it too.
_SIEMENS_NUMBER = ("SIEMENS MR HEADER", 0x00190010, 0x0019100A)
_SIEMENS_CSA = ("SIEMENS CSA HEADER", 0x00290010, 0x00291010)
_CSA_NUMBER = b"NumberOfImagesInMosaic\0"
GEOMETRY_TAGS: tuple[str | int, ...] = (
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *_DIMENSIONS,
    *_SIEMENS_NUMBER[1:],
)
"""Attributes that :func:`arrange_frames` needs."""

_KEPT_GRIDS = 8  # series; a few hundred frames each


@dataclass(frozen=True)
class Frame:
    """One frame of a file.

    Attributes:
        path: the file.
        number: index of the frame in the file, from 0.
        position: center of the first pixel in LPS coordinates in mm, ``(3,)``.
    """

    path: Path
    number: int
    position: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class FrameGrid:
    """Frames that form a volume.

    Attributes:
        frames: the frames, ordered along the normal of the slices (direction along a row x direction along a column).
        affine: matrix ``(4, 4)`` from indices (row, column, slice) to RAS coordinates in mm.
        shape: rows, columns and slices.
        spacing_known: whether the files give the pixel spacing; otherwise, pixels count as 1 mm wide and high.
        slice_spacing_known: whether the distance between slices is known, from positions or, for a single slice, from
            its header; otherwise, it counts as 1 mm.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray
    shape: tuple[int, int, int]
    spacing_known: bool
    slice_spacing_known: bool


@dataclass(frozen=True)
class _Plane:
    """The geometry of one frame, from its header."""

    frame: Frame
    series_uid: str
    orientation: np.ndarray  # directions along a row and along a column, LPS, (2, 3)
    shape: tuple[int, int]
    spacing: tuple[float, float] | None
    slice_spacing: float | None
    header: Dataset

    def __str__(self) -> str:
        several = frame_count(self.header) > 1
        return f"{self.frame.path}" + (f" (frame {self.frame.number + 1})" if several else "")


@quiet_pydicom()
def order_frames(files: Iterable[PathLike | str], limit: SizeLimit | None = None) -> FrameGrid:
    """Order the frames of a series by their positions in space.

    File names and instance numbers are ignored. Copies of an image count once. The last few grids are cached, so
    unchanged files are not read again.

    Args:
        files: the files of one series, single-frame or multi-frame, in any order.
        limit: adds up the voxels that the headers declare, and refuses too many.

    Returns:
        the frames in order, and the grid that they form.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when a file is not DICOM, does not give the position of its frames, or is a mosaic of slices; when
            the frames differ in series, orientation, size or pixel spacing; when a slice is missing or is there twice;
            when files with one SOPInstanceUID differ; or when slices are not equally spaced, or not stacked along their
            normal.
    """
    paths = [Path(file) for file in files]

    def arrange() -> FrameGrid:
        return arrange_frames({path: read_header(path, GEOMETRY_TAGS) for path in paths}, limit)

    return arrange() if limit is not None else _grids.get(paths, arrange)


_grids: FileCache[FrameGrid] = FileCache(_KEPT_GRIDS)


@quiet_pydicom()
def arrange_frames(headers: Mapping[Path, Dataset], limit: SizeLimit | None = None) -> FrameGrid:
    """Order the frames of files whose headers have been read; the grid is cached for :func:`order_frames`.

    Args:
        headers: the attributes :data:`GEOMETRY_TAGS` of each file.
        limit: adds up the voxels that the headers declare, and refuses too many.

    Returns:
        the frames in order, and the grid that they form.

    Raises:
        ValueError: as in :func:`order_frames`.
    """
    if not headers:
        raise ValueError("There is no DICOM file to read: the list of files is empty.")
    _refuse_mosaics(headers)
    members = without_copies([*headers.items()])
    planes = [plane for path, header in members for plane in _planes(path, header, limit)]
    for plane in planes[1:]:
        _check_same(plane, planes[0])
    row, column = planes[0].orientation
    normal = np.cross(row, column)
    planes.sort(key=lambda plane: normal @ plane.frame.position)
    step, slice_spacing_known = _step(planes, normal)
    row_spacing, column_spacing = planes[0].spacing or (1.0, 1.0)
    affine = np.eye(4)
    first = np.array(planes[0].frame.position)
    affine[:3] = _LPS_TO_RAS @ np.column_stack([column * row_spacing, row * column_spacing, step, first])
    affine.flags.writeable = False  # the cached grid is shared
    grid = FrameGrid(
        frames=tuple(plane.frame for plane in planes),
        affine=affine,
        shape=(*planes[0].shape, len(planes)),
        spacing_known=planes[0].spacing is not None,
        slice_spacing_known=slice_spacing_known,
    )
    _grids.put(headers, grid)
    return grid


def _refuse_mosaics(headers: Mapping[Path, Dataset]) -> None:
    """Refuse Siemens mosaics: images with many slices side by side, whose position is not that of any slice."""
    for path, header in headers.items():
        count = _private(header, *_SIEMENS_NUMBER)
        count = count if isinstance(count, int) else None
        if count is None and path == next(iter(headers)) and frame_count(header) == 1:
            csa = read_header(path, _SIEMENS_CSA[1:])  # only of the first file: it is long, and the others are alike
            count = _csa_count(_private(csa, *_SIEMENS_CSA))
        types = value_of(header, "ImageType") or ()
        if (count or 0) > 1 or "MOSAIC" in str(types).upper():
            raise ValueError(
                f"{path}: is a Siemens mosaic, {f'{count:g}' if count else 'many'} slices side by side in one image, "
                "expected one slice. Convert the series to NIfTI with dcm2niix and give that, or export it from the "
                "scanner without mosaics."
            )


def _private(header: Dataset, creator: str, creator_tag: int, tag: int) -> Any:
    """Value of a private attribute; None if it is missing or has another creator."""
    if creator_tag not in header or tag not in header or str(header[creator_tag].value).strip() != creator:
        return None
    return header[tag].value


def _csa_count(csa: Any) -> int | None:
    """Number of slices of a mosaic, from Siemens's CSA2 header; see nibabel.nicom.csareader for its layout."""
    place = csa.find(_CSA_NUMBER) if isinstance(csa, bytes) and csa.startswith(b"SV10") else -1
    if place < 0 or len(csa) < place + 100:
        return None
    items, _, _, length = struct.unpack_from("<4i", csa, place + 76)
    text = csa[place + 100 : place + 100 + length].partition(b"\0")[0].strip() if items > 0 and length > 0 else b""
    return int(text) if text.isdigit() else None


def _planes(path: Path, header: Dataset, limit: SizeLimit | None) -> list[_Plane]:
    count = frame_count(header)
    if limit is not None:
        limit.add(path, (count, _size(path, header, "Rows"), _size(path, header, "Columns")))
    if count > max(1, len(sequence_of(header, "PerFrameFunctionalGroupsSequence"))):
        raise ValueError(
            f"{path}: has {count} frames, but no PlanePositionSequence that says where they lie. "
            "Export the series as enhanced MR or as single images."
        )
    return [_plane(path, header, number, count) for number in range(count)]


def _plane(path: Path, header: Dataset, number: int, count: int) -> _Plane:
    measures = functional_group(header, "PixelMeasuresSequence", number) or header
    position_item = functional_group(header, "PlanePositionSequence", number)
    if position_item is None and count > 1:
        raise ValueError(
            f"{path}: has {count} frames, but no PlanePositionSequence that says where they lie. "
            "Export the series as enhanced MR or as single images."
        )
    position = _numbers(path, position_item or header, "ImagePositionPatient", 3)
    orientation = functional_group(header, "PlaneOrientationSequence", number) or header
    return _Plane(
        frame=Frame(path, number, (position[0], position[1], position[2])),
        series_uid=str(value_of(header, "SeriesInstanceUID") or ""),
        orientation=_directions(path, _numbers(path, orientation, "ImageOrientationPatient", 6)),
        shape=(_size(path, header, "Rows"), _size(path, header, "Columns")),
        spacing=_spacing(path, measures),
        slice_spacing=number_of(measures, "SpacingBetweenSlices") or number_of(measures, "SliceThickness"),
        header=header,
    )


def _numbers(path: Path, data: Dataset, keyword: str, count: int) -> list[float]:
    value = value_of(data, keyword)
    try:
        numbers = [float(one) for one in value or []]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(
            f"{path}: {keyword} is {'missing' if value is None else value}, expected {count} numbers. "
            "Without it, the position of the slice is unknown. Export the series again with its geometry, or convert "
            "it to NIfTI."
        )
    return numbers


def _directions(path: Path, cosines: list[float]) -> np.ndarray:
    directions = np.array(cosines).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if np.abs(lengths - 1).max() > 0.01 or abs(directions[0] @ directions[1]) > 0.01:
        raise ValueError(
            f"{path}: ImageOrientationPatient is {cosines}, expected two perpendicular directions of length 1. "
            "Export the series again."
        )
    return directions / lengths


def _size(path: Path, header: Dataset, keyword: str) -> int:
    size = number_of(header, keyword)
    if not size:
        raise ValueError(f"{path}: {keyword} is missing. The file holds no image: leave it out.")
    return int(size)


def _spacing(path: Path, measures: Dataset) -> tuple[float, float] | None:
    if not value_of(measures, "PixelSpacing"):
        return None
    rows, columns = _numbers(path, measures, "PixelSpacing", 2)
    if rows <= 0 or columns <= 0:
        raise ValueError(f"{path}: PixelSpacing is {rows}, {columns}, expected mm above 0. Export the series again.")
    return rows, columns


def _check_same(plane: _Plane, first: _Plane) -> None:
    """Refuse a frame that cannot belong to the same volume as the first."""
    spacings = plane.spacing or (0.0, 0.0), first.spacing or (0.0, 0.0)
    for what, found, expected, same in (
        ("SeriesInstanceUID", plane.series_uid, first.series_uid, plane.series_uid == first.series_uid),
        ("size (rows, columns)", plane.shape, first.shape, plane.shape == first.shape),
        ("PixelSpacing", plane.spacing, first.spacing, np.allclose(*spacings, rtol=_SPACING_TOLERANCE, atol=0)),
        (
            "ImageOrientationPatient",
            plane.orientation.round(4).ravel().tolist(),
            first.orientation.round(4).ravel().tolist(),
            np.allclose(plane.orientation, first.orientation, rtol=0, atol=_COSINE_TOLERANCE),
        ),
    ):
        if not same:
            raise ValueError(
                f"{plane}: {what} is {found}, but {expected} in {first}. "
                "All slices of a volume must have the same. Put the slices of each stack in a folder of their own."
            )


def _step(planes: Sequence[_Plane], normal: np.ndarray) -> tuple[np.ndarray, bool]:
    """Vector from one slice to the next in LPS mm, and whether it is known."""
    if len(planes) == 1:
        spacing = planes[0].slice_spacing
        return normal * (spacing or 1.0), bool(spacing)
    positions = np.array([plane.frame.position for plane in planes])
    distances = np.diff(positions @ normal)
    _check_no_position_twice(planes, distances)
    _check_equal(planes, distances)
    extent = positions[-1] - positions[0]
    sideways = np.linalg.norm(extent - (extent @ normal) * normal)
    if sideways > max(_DISTANCE_TOLERANCE, _SHEAR_TOLERANCE * (extent @ normal)):
        raise ValueError(
            f"{planes[-1]}: is shifted sideways by {sideways:.2f} mm against {planes[0]}, over {extent @ normal:.2f} "
            "mm along the normal of the slices. Expected slices stacked along their normal. Resample the series, or "
            "convert it to NIfTI."
        )
    return extent / (len(planes) - 1), True


def _check_no_position_twice(planes: Sequence[_Plane], distances: np.ndarray) -> None:
    twice = np.flatnonzero(distances < _SAME_POSITION)
    if not len(twice):
        return
    first, second = planes[twice[0]], planes[twice[0] + 1]
    raise ValueError(
        f"{second}: lies at the same position as {first}, {_text(second.frame.position)} mm; "
        f"{len({*twice, *(twice + 1)})} of {len(planes)} frames share their position with another. "
        + _why_twice(first, second)
    )


def _why_twice(first: _Plane, second: _Plane) -> str:
    one_file = first.frame.path == second.frame.path
    for keyword, group in _DIMENSIONS.items():
        values = [_dimension(plane, keyword, group) for plane in (first, second)]
        if values[0] != values[1]:
            return f"They differ in {keyword} ({values[0]} and {values[1]}): " + (
                "the file holds several volumes. Export each as its own series, or choose another series."
                if one_file
                else f"the series holds several volumes. Put the files of one {keyword} in a folder of their own, or "
                "choose another series."
            )
    return f"The {'file' if one_file else 'series'} may hold several volumes (echoes, time points, contrasts): " + (
        "export each as its own series, or choose another series."
        if one_file
        else "put the files of one in a folder of their own, or choose another series."
    )


def _dimension(plane: _Plane, keyword: str, group: str | None) -> Any:
    """Value of an attribute in which frames may differ."""
    data = plane.header if group is None else functional_group(plane.header, group, plane.frame.number)
    return None if data is None else value_of(data, keyword)


def _check_equal(planes: Sequence[_Plane], distances: np.ndarray) -> None:
    """Refuse slices that are not equally spaced."""
    usual = np.sort(distances)[(len(distances) - 1) // 2]  # the lower median: missing slices only widen distances
    tolerance = max(_DISTANCE_TOLERANCE, _RELATIVE_TOLERANCE * usual)
    for k in np.flatnonzero(np.abs(distances - usual) > tolerance).tolist():
        before, after, steps = planes[k], planes[k + 1], round(distances[k] / usual)
        apart = (
            f"{after}: lies {distances[k]:.2f} mm from the adjacent slice {before}, but the usual distance is "
            f"{usual:.2f} mm. "
        )
        if steps > 1 and abs(distances[k] - steps * usual) <= steps * tolerance:
            raise ValueError(
                f"{apart}Slices missing in between: {steps - 1}, between the positions {_text(before.frame.position)} "
                f"and {_text(after.frame.position)} mm. Copy the complete series from its source."
            )
        raise ValueError(
            f"{apart}Expected equally spaced slices. Copy the complete series from its source, put stacks with "
            "different spacing in folders of their own, or resample the series to equal distances."
        )


def _text(position: Sequence[Any]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in position) + ")"
