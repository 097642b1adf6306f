"""Tell copies of one DICOM image, which an export may hold twice, from images that share a name by mistake."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from mri_seg.dicom.headers import frame_count, functional_group, read_header, value_of
from mri_seg.dicom.pixels import read_values

__all__ = ["without_copies"]

_log = logging.getLogger(__name__)

# What says where an image lies, and the functional group that holds it in an enhanced image.
_PLACE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_TAGS = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_PLACE)


def without_copies(members: Sequence[tuple[Path, Dataset]]) -> list[tuple[Path, Dataset]]:
    """Leave out the files that are copies of another: of one SOPInstanceUID, place in space and values.

    Args:
        members: files of a series, and of each a header with SOPInstanceUID. Files without one are no copies.

    Returns:
        those that are not copies of one before them.

    Raises:
        ValueError: when two files share their SOPInstanceUID and differ in place or values.
    """
    first: dict[str, Path] = {}
    distinct, copies = [], []
    for path, header in members:
        uid = str(value_of(header, "SOPInstanceUID") or "")
        original = first.setdefault(uid, path) if uid else path
        if original is path:
            distinct.append((path, header))
            continue
        if difference := _difference(original, path):
            raise ValueError(
                f"{path}: has the SOPInstanceUID of {original}, but differs from it in {difference}. Keep the right "
                "one; or, if each is an image of its own, give each a SOPInstanceUID of its own, for instance with "
                "`dcmodify --gen-inst-uid FILE`."
            )
        copies.append((path, original))
    if copies:
        _log.info(
            "%s: a copy of %s (same SOPInstanceUID, place and values). Such copies among the %d files of the series: "
            "%d; each image counts once.",
            *copies[0],
            len(members),
            len(copies),
        )
    return distinct


def _difference(first: Path, second: Path) -> str:
    """What two images differ in; empty where nothing."""
    if filecmp.cmp(first, second, shallow=False):
        return ""
    headers = [read_header(path, _TAGS) for path in (first, second)]
    for keyword in _PLACE:
        found, other = (_place(header, keyword) for header in headers)
        if found != other:
            return keyword
    return "" if np.array_equal(read_values(first), read_values(second)) else "its values"


def _place(header: Dataset, keyword: str) -> list[list[Any]]:
    """Values of an attribute of place, a list a frame."""
    frames = range(frame_count(header))
    items = [functional_group(header, _PLACE[keyword], number) or header for number in frames]
    values = [value_of(item, keyword) for item in items]
    return [[_comparable(one) for one in (value if isinstance(value, MultiValue) else [value])] for value in values]


def _comparable(value: Any) -> Any:
    """A number, however it is written, or else text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
