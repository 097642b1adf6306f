"""Images with labels beside them or in folders of labels, in any of the formats that inference reads."""

from __future__ import annotations

from pathlib import Path

from mri_seg.datasets.found import Found, Unusable, case_of, institutions_of, read_table
from mri_seg.io.cases import find_cases
from mri_seg.io.passed_over import PassedOver

__all__ = ["find"]

_TABLES = ("cases.csv", "cases.tsv")
_UNUSED = "unused label"


def find(root: Path) -> Found | None:
    """Find pairs of images and labels; None if no image has a label.

    Images and labels are told apart and matched as inference does (:py:mod:`mri_seg.io.label_names`): ``x`` with
    ``x_mask``, ``x_label`` or ``x_seg``; folders ``images`` with ``masks`` or ``labels``; a folder for each case with
    ``*flair*`` and ``*seg*``. A table ``cases.csv`` with the columns ``case``, ``group`` (the patient) and
    ``institution`` says which cases belong together.

    Raises:
        ValueError: when the table lacks its column ``case``, or is not text.
    """
    passed_over = PassedOver()
    try:
        found = [case for case in find_cases(root, passed_over=passed_over) if case["source"] != "dicom"]
    except ValueError:  # no image at all
        return None
    if not any("label" in case for case in found):
        return None
    patients, institutions = _groups(root)
    cases = []
    for case in found:
        more = {key: case[key] for key in ("volume", "flags", "error") if key in case}
        if case["source"] != "volume" and len(case["image"]) > 1:
            more["slices"] = len(case["image"])
        name = case["case"]
        more |= {"patient": patients.get(name), "institution": institutions.get(name)}
        cases.append(case_of(name, case["image"], case.get("label"), **more))
    unusable = [
        Unusable(file, "this label has no image that may be FLAIR by its name") for file in passed_over.files(_UNUSED)
    ]
    return Found("pairs of images and labels", cases, unusable=unusable)


def _groups(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Patient and institution of cases, from the table in the folder."""
    file = next((file for name in _TABLES if (file := root / name).is_file()), None)
    if file is None:
        return {}, {}
    rows = read_table(file)
    if rows and "case" not in rows[0]:
        raise ValueError(f"{file}: has the columns {', '.join(rows[0])}, expected case and group or institution.")
    column = next((name for name in ("group", "patient") if rows and name in rows[0]), None)
    return {row["case"]: row[column] for row in rows if column and row[column]}, institutions_of(rows, "case")
