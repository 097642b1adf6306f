"""Read the CSV file by which a user says patient, date, file and event of each scan."""

from __future__ import annotations

import csv
import datetime
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mri_seg.follow_up.dated_cases import TIMELINE_FORM, DatedCase, identify
from mri_seg.utils.files import safe_name

__all__ = ["Row", "add_events", "named_cases", "read_timeline"]


_COLUMNS = ("patient", "date", "file", "event")
_NO_EVENT = ("-", "--", "0", "n", "no", "none", "n/a", "na", "nan", "null", "false")

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row of the file.

    Attributes:
        place: the file and the line, for messages.
        patient: name of the patient.
        date: the date; None if it is not given.
        file: a file of a case, or its folder; empty for an event.
        event: what happened, such as ``surgery``.
    """

    place: str
    patient: str
    date: datetime.date | None
    file: str
    event: str


def read_timeline(path: Path) -> list[Row]:
    """Read a timeline file.

    Args:
        path: a CSV file with the column ``patient``, and ``date`` (``YYYY-MM-DD``), ``file`` and ``event``. A row has a
            file or an event with a date.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no such table.
    """
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}. {TIMELINE_FORM}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            separator = next((one for one in ",;\t" if one in head), ",")  # spreadsheets of some countries write ;
            reader = csv.DictReader(stream, delimiter=separator)
            columns = [str(name or "").strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [
                (reader.line_num, {key: str(value or "").strip() for key, value in row.items() if key})
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a CSV file in UTF-8 ({error}). {TIMELINE_FORM}") from error
    missing = [name for name in ("patient", "file") if name not in columns]
    if missing and not (missing == ["file"] and {"date", "event"} <= set(columns)):
        held = f"it has {', '.join(columns)}" if columns else "it is empty"
        raise ValueError(f"{path}: has no column {' and '.join(missing)}; {held}. {TIMELINE_FORM}")
    unknown = [name for name in columns if name and name not in _COLUMNS]
    if unknown:
        logger.warning("%s: has columns that are not used: %s. %s", path, ", ".join(unknown), TIMELINE_FORM)
    found = [_row(f"{path}, line {line}", row) for line, row in rows if any(row.values())]
    if not found:
        raise ValueError(f"{path}: has no row, expected one for each scan or event. {TIMELINE_FORM}")
    _warn_of_case({row.patient for row in found}, path)
    return found


def _warn_of_case(patients: Collection[str], path: Path) -> None:
    """Warn of patients whose names differ in capitals alone: perhaps they are one."""
    first: dict[str, str] = {}
    for name in sorted(patients):
        other = first.setdefault(name.lower(), name)
        if other != name:
            logger.warning("%s: %s and %s are different patients. Write the name in one way if not.", path, other, name)


def _row(place: str, row: Mapping[str, str]) -> Row:
    if not row["patient"]:
        raise ValueError(f"{place}: has no patient. {TIMELINE_FORM}")
    text, date = row.get("date", ""), None
    if text:
        try:
            date = datetime.datetime.strptime(re.sub(r"[T ]\d\d:.*", "", text), "%Y-%m-%d").date()
        except ValueError:
            raise ValueError(f"{place}: {text} is no date, expected YYYY-MM-DD.") from None
    event = row.get("event", "")
    if event.lower() in _NO_EVENT:
        event = ""
    found = Row(place, row["patient"], date, row.get("file", ""), event)
    if not found.file and (date is None or not found.event):
        raise ValueError(f"{place}: has no file, so it needs a date and an event.")
    return found


def named_cases(
    rows: Sequence[Row], cases: Sequence[Mapping[str, Any]], folders: Sequence[Path]
) -> list[tuple[str, DatedCase]]:
    """The patient and the dated case of each row with a file.

    Args:
        rows: rows of :py:func:`read_timeline`.
        cases: the cases that were found.
        folders: folders to which files are relative: that of the CSV file, and those that were searched. A row without
            a date takes that of the file.

    Raises:
        ValueError: when a file is no case, or is named twice.
    """
    found = []
    named: dict[str, Row] = {}
    for number, row in enumerate(rows):
        if not row.file:
            continue
        case = _case_of(row, cases, folders)
        if case["case"] in named:
            before = named[case["case"]].place.rpartition(", ")[2]
            raise ValueError(f"{row.place}: {row.file} is named in {before} too.")
        named[case["case"]] = row
        try:
            own = identify(case, folders[1:], date=row.date)[1]
        except (OSError, ValueError):  # the user says what matters
            own = DatedCase(dict(case), row.date)
        own.event, own.order = row.event, (number,)
        found.append((row.patient, own))
    return found


def add_events(rows: Sequence[Row], groups: Mapping[str, Sequence[DatedCase]]) -> None:
    """Give each event of a row without a file to the next scan of the patient, on its date or later.

    Args:
        rows: rows of :py:func:`read_timeline`.
        groups: the dated cases of each patient, which are changed.

    Raises:
        ValueError: when there is no such patient, or no such scan.
    """
    for row in sorted((row for row in rows if not row.file), key=lambda row: row.date or datetime.date.min):
        date = row.date or datetime.date.min
        names = [name for name in groups if row.patient in (name, safe_name(name))]
        if not names:
            known = ", ".join(sorted(groups)[:5]) + (", ..." if len(groups) > 5 else "")
            raise ValueError(f"{row.place}: there is no patient {row.patient}; found: {known or 'none'}.")
        later = [case for case in groups[names[0]] if case.date is not None and case.date >= date]
        if not later:
            dated = any(case.date is not None for case in groups[names[0]])
            why = "is after all its scans with a date" if dated else "has no place, as its scans have no dates"
            do = "Leave the row out, or add the scan." if dated else "Give the dates of its scans in rows with a file."
            raise ValueError(
                f"{row.place}: {row.event} of {row.patient} on {row.date} {why}, so it changes nothing. {do}"
            )
        first = min(later, key=lambda case: case.date or date)
        first.event = "; ".join(filter(None, [first.event, row.event]))


def _case_of(row: Row, cases: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> Mapping[str, Any]:
    """The case to which a file belongs, or which is the only one in a folder."""
    for place in dict.fromkeys((folder / row.file).resolve() for folder in folders):
        own = [
            case
            for case in cases
            if any(place == file or place in file.parents for file in (Path(one).resolve() for one in case["image"]))
        ]
        if len(own) == 1:
            return own[0]
        if own:
            raise ValueError(f"{row.place}: {place} holds {len(own)} cases, expected one. Name a file of one of them.")
    raise ValueError(
        f"{row.place}: {row.file} is no case that was found. Give a file of a case or its folder, relative to this CSV "
        "file or to the input folder."
    )
