"""Recognise what an earlier inference wrote, by what it wrote beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["CASE_ENDINGS", "earlier_outputs"]

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
"""Names of the files of a case begin with its name, that of their folder, and end in one of these."""

_TABLES = {"summary.csv": "case,status,", "measurements.csv": "case,"}  # and how they begin


def earlier_outputs(folder: Path, names: Iterable[str]) -> set[str]:
    """Names of a folder's files that an earlier inference wrote.

    Its folder of a case is one that holds ``<folder>_provenance.json`` or ``<folder>_measurements.json``, or lies
    beside ``summary.csv``, a table of cases. A user's own files in it are not among them: an output folder may be that
    of the images.

    Args:
        folder: the folder.
        names: names of its files.
    """
    names = set(names)
    case = folder.resolve().name
    if not names & {f"{case}_provenance.json", f"{case}_measurements.json"} and not _has_table(folder.resolve().parent):
        return {name for name in names if name in _TABLES and _begins(folder / name, _TABLES[name])}
    own = {f"{case}{ending}" for ending in CASE_ENDINGS} & names
    slices = {name for name in names - own if name.lower().endswith((".tif", ".tiff", ".png", ".jpg", ".jpeg"))}
    masks = {name for name in slices if name.lower().endswith(("_mask.tif", "_mask.tiff", "_mask.png"))}
    # Beside the slices themselves, a mask is what their owner put there as well as we.
    return own | (masks if masks == slices else set())


def _has_table(folder: Path) -> bool:
    return _begins(folder / "summary.csv", _TABLES["summary.csv"])


def _begins(file: Path, text: str) -> bool:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.read(len(text)) == text
    except OSError:  # no such file, or it may not be read
        return False
