"""Who a case shows and when it was taken, by its DICOM header, its BIDS name and tables, or its file name."""

from __future__ import annotations

import csv
import datetime
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_seg.dicom.headers import read_header
from mri_seg.io.bids_names import bids_root
from mri_seg.io.image_files import stem_of
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.contrast_names import patient_of

__all__ = ["TIMELINE_FORM", "DatedCase", "identify", "natural_order"]

TIMELINE_FORM = "Give --timeline a CSV file with the columns patient, date, file and, if need be, event."
"""What to do when the files do not say enough."""

_DATE = re.compile(  # year first, with or without the time of day, or day.month.year
    r"(?<!\d)(?:(?P<year>(?:19|20)\d\d)([-_.]?)(?P<month>0[1-9]|1[0-2])\2(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:[T_]?[0-2]\d[0-5]\d[0-5]\d)?"
    r"|(?P<d>0?[1-9]|[12]\d|3[01])\.(?P<m>0?[1-9]|1[0-2])\.(?P<y>(?:19|20)\d\d))(?!\d)"
)
_VISIT = re.compile(r"(?:visit|scan|time|timepoint|tp|session|ses|followup|fu)\d+")
_BIDS = re.compile(r"(?P<subject>sub-[A-Za-z0-9+]+)(?:_(?P<session>ses-[A-Za-z0-9+]+))?_")
_DICOM_DATES = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "StudyDate")  # the first that is given counts
_PERSON = ("PatientSex", "PatientBirthDate")
_HEADER = ["PatientID", "StudyInstanceUID", *_PERSON, *_DICOM_DATES]


logger = logging.getLogger(__name__)


@dataclass
class DatedCase:
    """A case of a patient.

    Attributes:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        date: its date; None if unknown.
        event: what happened since the case before, such as ``surgery``.
        order: what orders cases without dates.
        person: sex and birth date, if a DICOM file says them.
        study: the study or session to which it belongs, if that is known.
        data_set: the BIDS data set to which it belongs.
        problem: why it cannot be ordered; empty if it can.
    """

    case: dict[str, Any]
    date: datetime.date | None = None
    event: str = ""
    order: tuple[Any, ...] = ()
    person: dict[str, str] = field(default_factory=dict)
    study: str = ""
    data_set: Path | None = None
    problem: str = ""

    @property
    def file(self) -> str:
        """Its first file, for messages."""
        return str(self.case["image"][0])


def identify(
    case: Mapping[str, Any], roots: Sequence[Path] = (), *, date: datetime.date | None = None
) -> tuple[str, DatedCase]:
    """The name of the patient of a case, and its date.

    Args:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        roots: folders that were searched; names of folders below them may name patients.
        date: the date, if a user gives it; then those of the file do not count.

    Returns:
        the name, empty if it is a DICOM file without PatientID, and the case with its date.

    Raises:
        ValueError: when the names of the file and its folders have two dates.
        OSError: when a file cannot be read.
    """
    own = dict(case)
    if own.get("source") == "dicom":
        return _of_dicom(own, date)
    found = _BIDS.match(Path(own["image"][0]).name)
    if found and own.get("source") == "volume":
        return _of_bids(own, found["subject"], found["session"] or "", date)
    return _of_name(own, roots, date)


def natural_order(text: str) -> tuple[Any, ...]:
    """Key by which ``scan 10`` comes after ``scan 9``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)


def _of_dicom(case: dict[str, Any], date: datetime.date | None) -> tuple[str, DatedCase]:
    header = read_header(Path(case["image"][0]), _HEADER)
    text = {name: str(header.get(name) or "").strip() for name in _HEADER} if header is not None else {}
    dates = {name: day for name in _DICOM_DATES if (day := _dicom_date(text.get(name, ""))) is not None}
    person = {name: text[name] for name in _PERSON if text.get(name)}
    order = (natural_order(case["case"]),)
    found = DatedCase(case, date, person=person, order=order, study=text.get("StudyInstanceUID", ""))
    found.date = date or _agreed(case, dates, "StudyDate")
    return text.get("PatientID", ""), found


def _dicom_date(text: str) -> datetime.date | None:
    """The date of a DICOM date or date and time."""
    try:
        return datetime.datetime.strptime(text[:8], "%Y%m%d").date()
    except ValueError:
        return None


def _agreed(case: dict[str, Any], dates: Mapping[str, datetime.date], trusted: str) -> datetime.date | None:
    """The first of several dates of a case; if they contradict each other, that of ``trusted``, with a flag.

    A scan may go on past midnight, so dates may differ by a day.
    """
    if not dates:
        return None
    if max(dates.values()) - min(dates.values()) <= datetime.timedelta(days=1):
        return next(iter(dates.values()))
    used = trusted if trusted in dates else next(iter(dates))
    said = ", ".join(f"{name} {date}" for name, date in dates.items())
    add_flag(
        case,
        "dates_contradict",
        f"{case['image'][0]}: its dates contradict each other ({said}). That of {used} is used; give the right date "
        "with --timeline.",
    )
    return dates[used]


def _of_bids(case: dict[str, Any], subject: str, session: str, date: datetime.date | None) -> tuple[str, DatedCase]:
    file = Path(case["image"][0])
    root = bids_root(file) or file.parent
    order = (natural_order(session), natural_order(file.name))
    found = DatedCase(case, date, order=order, study=session, data_set=root)
    if date is None:
        try:
            dates = _bids_dates(root, file, subject, session)
            found.date = _agreed(case, dates, next(iter(dates), ""))
        except ValueError as error:
            found.problem = str(error)
    return subject, found


def _bids_dates(root: Path, file: Path, subject: str, session: str) -> dict[str, datetime.date]:
    """``acq_time`` of the session and of the scan, by the name of its table; BIDS allows both."""
    folder = root / subject
    prefix = f"{subject}_{session}" if session else subject
    found: dict[str, datetime.date] = {}
    sessions = (session, session.removeprefix("ses-")) if session else ()
    for table in (folder / f"{subject}_sessions.tsv", root / "sessions.tsv"):
        for line, row in _rows(table):
            if row.get("session_id") in sessions and row.get("participant_id", subject) == subject:
                _add_date(found, table, line, row)
    for table in ((folder / session if session else folder) / f"{prefix}_scans.tsv", folder / f"{subject}_scans.tsv"):
        for line, row in _rows(table):
            if Path(row.get("filename", "")).name == file.name:
                _add_date(found, table, line, row)
    return found


def _add_date(found: dict[str, datetime.date], table: Path, line: int, row: Mapping[str, str]) -> None:
    """Add the date of a row; ``n/a`` is none, and so is a table without the column, with a warning."""
    if "acq_time" not in row:
        logger.warning(
            "%s: has no column acq_time, from which dates are taken; it has %s.", table, ", ".join(row) or "none"
        )
        return
    text = row["acq_time"]
    if text.lower() in ("", "n/a"):
        return
    try:
        found[table.name] = datetime.date.fromisoformat(text[:10])
    except ValueError:
        raise ValueError(
            f"{table}, line {line}: acq_time is {text}, expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss. Mend it, or give "
            "the date with --timeline."
        ) from None


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line and content of each row of a table; none if it does not exist."""
    if not table.is_file():
        return []
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            return [(rows.line_num, {str(k): str(v or "").strip() for k, v in row.items()}) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: cannot be read as a table in UTF-8 ({error}). Save it as UTF-8.") from error


def _of_name(case: dict[str, Any], roots: Sequence[Path], date: datetime.date | None) -> tuple[str, DatedCase]:
    """The patient and the date that the names of a file and its folders say."""
    parts = _name_parts(case, roots)
    different = [date] if date else sorted({day for day in map(_date_in, parts) if day is not None})
    if len(different) > 1:
        said = " and ".join(map(str, different[:2]))
        raise ValueError(f"{case['image'][0]}: its name has two dates, {said}, expected one. {TIMELINE_FORM}")
    order = tuple(natural_order(part) for part in parts)
    return _patient_in(parts) or case["case"], DatedCase(case, next(iter(different), None), order=order)


def _name_parts(case: Mapping[str, Any], roots: Sequence[Path]) -> list[str]:
    """Names of the folders below the searched folder, and of the file without suffixes and the number of a slice."""
    file = Path(case["image"][0]).resolve()
    root = next((root for root in roots if root in file.parents), file.parent)
    *folders, name = file.relative_to(root).parts
    stem = stem_of(Path(name))
    if case.get("source") in ("tiff", "picture") and len(case["image"]) > 1:
        stem = re.sub(r"[-_. ]*\d+$", "", stem)
    return [*folders, stem or (folders[-1] if folders else case["case"])]


def _date_in(text: str) -> datetime.date | None:
    """The date in a name; an impossible one is none."""
    found = {_as_date(match) for match in _DATE.finditer(text)} - {None}
    if len(found) > 1:
        raise ValueError(f"{text}: has two dates, expected one. {TIMELINE_FORM}")
    return next(iter(found), None)


def _as_date(match: re.Match[str]) -> datetime.date | None:
    year, month, day = match.group("year", "month", "day") if match["year"] else match.group("y", "m", "d")
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


def _patient_in(parts: Sequence[str]) -> str:
    """What is left of the names of folders and file without dates, contrasts and visits; parts that repeat count once.

    All parts count, since two people under one name would be worse than one person under two.
    """
    names: list[str] = []
    for part in parts:
        left = _DATE.sub("_", part)
        words = [_as_written(word, left) for word in _without_visit(patient_of(left))]
        name = "_".join(words)
        if name and not any(name.lower() in other.lower() for other in names):
            names = [other for other in names if other.lower() not in name.lower()] + [name]
    return "_".join(names)


def _as_written(word: str, text: str) -> str:
    """A word in lower case as a text has it."""
    found = re.search(re.escape(word), text, re.IGNORECASE)
    return found[0] if found else word


def _without_visit(words: Sequence[str]) -> Sequence[str]:
    """Words of a name without those that number a visit: ``P1_scan2`` gives ``P1``. A lone number may be a patient."""
    for count in (2, 1):
        if len(words) >= count and _VISIT.fullmatch("".join(words[-count:])):
            return words[:-count]
    return words
