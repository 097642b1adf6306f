"""DICOM series whose labels are DICOM segmentations (SEG) of the same frame of reference."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.dataset import Dataset

from mri_seg.datasets.found import Found, Unusable, case_of
from mri_seg.dicom.headers import read_header
from mri_seg.dicom.segmentation_labels import SEGMENTATIONS, referenced_series
from mri_seg.dicom.series import is_dicom
from mri_seg.io.cases import find_cases

__all__ = ["find"]

_TAGS = (
    "SOPClassUID",
    "PatientID",
    "InstitutionName",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)


class _Segmentation(NamedTuple):
    """A SEG and what it refers to."""

    path: Path
    frame_of_reference: str
    series: frozenset[str]


def find(root: Path) -> Found | None:
    """Find the FLAIR series of each study, with its SEG; None if there is no SEG.

    A SEG belongs to the series that it refers to or, if it refers to another series, to the FLAIR series of the same
    frame of reference.
    """
    segmentations = _segmentations(root)
    if not segmentations:
        return None
    by_frame: dict[str, list[_Segmentation]] = defaultdict(list)
    for segmentation in segmentations:
        by_frame[segmentation.frame_of_reference].append(segmentation)
    cases, used = [], set()
    for case in find_cases(root):
        if case["source"] != "dicom":
            continue
        header = _header(Path(case["image"][0]))
        more: dict[str, Any] = {key: case[key] for key in ("flags", "error") if key in case}
        more["patient"] = str(header.get("PatientID") or "") or None
        more["institution"] = str(header.get("InstitutionName") or "").strip() or None
        fitting = by_frame[str(header.get("FrameOfReferenceUID") or "")]
        fitting = [one for one in fitting if case.get("series_uid") in one.series] or fitting
        if len(fitting) > 1:
            names = ", ".join(str(one.path) for one in fitting)
            more["error"] = f"{case['case']}: expected one DICOM SEG, found {len(fitting)}: {names}. Keep one of them."
        used |= {one.path for one in fitting}
        label = [fitting[0].path] if len(fitting) == 1 else None
        cases.append(case_of(case["case"], case["image"], label, **more))
    unusable = [Unusable(one.path, "fits no FLAIR series") for one in segmentations if one.path not in used]
    return Found("DICOM series with DICOM SEG", cases, unusable=unusable)


def _segmentations(root: Path) -> list[_Segmentation]:
    """The SEG files of a folder and its subfolders."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        if not is_dicom(path):
            continue
        header = _header(path)
        if str(header.get("SOPClassUID") or "") in SEGMENTATIONS:
            frame_of_reference = str(header.get("FrameOfReferenceUID") or "")
            found.append(_Segmentation(path, frame_of_reference, referenced_series(path)))
    return found


def _header(path: Path) -> Dataset:
    try:
        return read_header(path, _TAGS)
    except ValueError:  # the search for series names the file
        return Dataset()
