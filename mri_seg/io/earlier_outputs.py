"""Recognize files that an earlier inference wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mri_seg.io.bids_names import own_derivatives

__all__ = ["CASE_ENDINGS", "FOLLOW_UP", "earlier_outputs"]

CASE_ENDINGS = (
    "_provenance.json",
    "_mask.nii.gz",
    "_probability.nii.gz",
    "_seg.dcm",
    "_measurements.json",
    "_sr.dcm",
    "_sheet.png",
    "_panel.png",
    ".html",
)
"""Endings of the files of a case; their names begin with the name of the case, which is also that of their folder."""

FOLLOW_UP = "follow_up"
"""Name of the folder of the patients who are followed, within that of the results."""

_TIMELINE = "_timeline.json"  # ends the name of the file that makes a folder that of a patient who is followed
_TIMELINE_ENDINGS = (
    _TIMELINE,
    "_timeline.csv",
    "_timeline.html",
    "_change.nii.gz",
    "_change_seg.dcm",
    "_change_sr.dcm",
)
_OF_LATER_SCANS = ("_to_first.tfm", "_overlay.png")

# With their first characters.
_TABLES = {"summary.csv": "case,status,", "measurements.csv": "case,", "summary.json": '{\n    "cases": ['}


def earlier_outputs(folder: Path, names: Iterable[str]) -> set[str]:
    """Find the files of a folder that an earlier inference wrote.

    A folder is that of a case if it holds ``<folder>_provenance.json`` or ``<folder>_measurements.json``, or lies
    beside ``summary.csv``, a table of cases. The user's own files in it are not returned, since the output folder may
    also be the folder of the images. BIDS derivatives lie elsewhere; the JSON files beside them say who made them.

    Args:
        folder: the folder.
        names: names of its files.

    Returns:
        those names that belong to results.
    """
    names = set(names)
    return _of_a_case(folder, names) | _of_a_patient(folder, names) | own_derivatives(folder, names)


def _of_a_patient(folder: Path, names: set[str]) -> set[str]:
    """Files of a patient who is followed, if the folder is that of one, also of a run that was stopped."""
    patient = folder.resolve().name
    if f"{patient}{_TIMELINE}" not in names and folder.resolve().parent.name != FOLLOW_UP:
        return set()
    return {f"{patient}{ending}" for ending in _TIMELINE_ENDINGS} & names | {
        name for name in names if name.endswith(_OF_LATER_SCANS)
    }


def _of_a_case(folder: Path, names: set[str]) -> set[str]:
    case = folder.resolve().name
    if not names & {f"{case}_provenance.json", f"{case}_measurements.json"} and not _has_table(folder.resolve().parent):
        return {name for name in names if name in _TABLES and _begins(folder / name, _TABLES[name])}
    own = {f"{case}{ending}" for ending in CASE_ENDINGS} & names
    slices = {name for name in names - own if name.lower().endswith((".tif", ".tiff", ".png", ".jpg", ".jpeg"))}
    masks = {name for name in slices if name.lower().endswith(("_mask.tif", "_mask.tiff", "_mask.png"))}
    # If there are other slices too, the masks may be the user's own.
    return own | (masks if masks == slices else set())


def _has_table(folder: Path) -> bool:
    return _begins(folder / "summary.csv", _TABLES["summary.csv"])


def _begins(file: Path, text: str) -> bool:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.read(len(text)) == text
    except OSError:  # the file does not exist or cannot be read
        return False
