"""What a search finds in a data set: cases with labels, in one form for all kinds of data sets."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mri_seg.datasets.lgg.index import group

__all__ = ["Found", "Unusable", "case_of", "institutions_of", "no_label", "read_table"]

# Names that hold patient and time: TCGA, BIDS, and BraTS since 2023 (BraTS-GLI-00005-100).
_PATIENT = re.compile(r"TCGA[_-][A-Z0-9]{2}[_-][A-Z0-9]{4}|sub-[A-Za-z0-9]+|BraTS-[A-Za-z]+-\d{5}(?=-\d{3})")
_SEQUENCE = re.compile(r"[ _.-]*(?:t2[ _-]?)?flair$|[ _.-]t2f$", re.IGNORECASE)  # at the end of a name
_INSTITUTION_COLUMNS = ("institution", "site", "center", "centre", "hospital")


class Unusable(NamedTuple):
    """A file that would silently not be used, and why."""

    path: Path
    problem: str


class Found(NamedTuple):
    """A data set.

    Attributes:
        form: its form in words, for the log.
        cases: all cases, each a dictionary: ``image`` and ``label``, lists of files; ``case``, its unique name;
            ``patient``, the same for all cases of a patient; ``group``, with which its figures are shown;
            ``institution``, if known; ``slices``, the number of files if each is a slice; ``volume`` and ``flags`` as
            in :py:func:`mri_seg.io.cases.find_cases`; ``error``, why it cannot be used.
        sections: names of the cases of each section, if the data set itself has sections.
        folds: fold of each case, by its name, if the data set has folds.
        unusable: files that no case uses though they look as if one should.
    """

    form: str
    cases: list[dict[str, Any]]
    sections: Mapping[str, Sequence[str]] = {}
    folds: Mapping[str, int] = {}
    unusable: Sequence[Unusable] = ()


def case_of(
    name: str,
    image: Sequence[Path | str],
    label: Sequence[Path | str] | None,
    *,
    patient: str | None = None,
    institution: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Make a case.

    Args:
        name: its name.
        image: files of the image.
        label: files of the label; None if there is none, which is an error of the case.
        patient: its patient; by default found in the name, or else the name without FLAIR.
        institution: where it was imaged; by default that of a TCGA identifier.
        more: further keys.
    """
    found = _PATIENT.match(name)
    place = institution or group(name)
    case: dict[str, Any] = {"image": [str(file) for file in image]}
    if label is not None:
        case["label"] = [str(file) for file in label]
    else:
        more.setdefault("error", no_label(case["image"][0]))
    return {
        **case,
        "case": name,
        "patient": patient or (found[0] if found else _SEQUENCE.sub("", name) or name),
        "group": place,
        "institution": place,
        **more,
    }


def no_label(image: Path | str) -> str:
    """The error of an image without a label."""
    return f"{image}: has no label. Put its label there, or leave the image out."


def read_table(file: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV or TSV file with a header; the names of columns become lower case.

    Raises:
        ValueError: when it is not text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not text in UTF-8 ({error}). Save the table again.") from error
    rows = csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
    return [{str(key).strip().lower(): str(value or "").strip() for key, value in row.items()} for row in rows]


def institutions_of(rows: Sequence[Mapping[str, str]], key: str) -> dict[str, str]:
    """Institution by the values of a column, from the first column that has one of its usual names."""
    column = next((name for name in _INSTITUTION_COLUMNS if rows and name in rows[0]), None)
    return {row[key]: row[column] for row in rows if column and row.get(key) and row[column] not in ("", "n/a")}
