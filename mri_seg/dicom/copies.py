"""Find copies of DICOM images in an export, and refuse different images with the same SOPInstanceUID."""

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

# Attributes of the position of an image, with their functional group in an enhanced image.
_PLACE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_TAGS = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_PLACE)


def without_copies(members: Sequence[tuple[Path, Dataset]]) -> list[tuple[Path, Dataset]]:
    """Remove files that are copies of another: with the same SOPInstanceUID, position in space and values.

    Args:
        members: files of a series, each with a header that has SOPInstanceUID; files without it do not count as copies.

    Returns:
        the files that are not copies of an earlier one.

    Raises:
        ValueError: when two files have the same SOPInstanceUID, but differ in position or values.
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
                f"{path}: has the SOPInstanceUID of {original}, but differs from it in {difference}. Keep only the "
                "right one. If they are different images, give each its own SOPInstanceUID, for example with "
                "`dcmodify --gen-inst-uid FILE`."
            )
        copies.append((path, original))
    if copies:
        _log.info(
            "%s: is a copy of %s (same SOPInstanceUID, position and values). Copies among the %d files of the series: "
            "%d. Each image counts once.",
            *copies[0],
            len(members),
            len(copies),
        )
    return distinct


def _difference(first: Path, second: Path) -> str:
    """Name the first difference between two images; empty if there is none."""
    if filecmp.cmp(first, second, shallow=False):
        return ""
    headers = [read_header(path, _TAGS) for path in (first, second)]
    for keyword in _PLACE:
        found, other = (_place(header, keyword) for header in headers)
        if found != other:
            return keyword
    return "" if np.array_equal(read_values(first), read_values(second)) else "its values"


def _place(header: Dataset, keyword: str) -> list[list[Any]]:
    """Values of an attribute of position, as one list per frame."""
    frames = range(frame_count(header))
    items = [functional_group(header, _PLACE[keyword], number) or header for number in frames]
    values = [value_of(item, keyword) for item in items]
    return [[_comparable(one) for one in (value if isinstance(value, MultiValue) else [value])] for value in values]


def _comparable(value: Any) -> Any:
    """The value as a number, so that its notation does not matter, or else as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
