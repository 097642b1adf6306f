"""Group cases by patient, and order them by time."""

from __future__ import annotations

import csv
import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.dicom.headers import read_header
from mri_seg.io.bids_names import bids_root
from mri_seg.io.image_files import stem_of
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.contrast_names import patient_of
from mri_seg.utils.files import safe_name

__all__ = ["DatedCase", "Patient", "group_cases", "read_timeline"]

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
_VISIT = re.compile(r"(?:visit|scan|time|timepoint|tp|session|ses|followup|fu|exam|study)\d+")
_BIDS = re.compile(r"(?P<subject>sub-[A-Za-z0-9+]+)(?:_(?P<session>ses-[A-Za-z0-9+]+))?_")
_HEADER = ["PatientID", "PatientSex", "PatientBirthDate", "StudyDate", "AcquisitionDate", "SeriesDate"]
_COLUMNS = ("patient", "date", "file", "event")
_FORM = "Give --timeline a CSV file with the columns patient, date, file and, if need be, event."


@dataclass
class DatedCase:
    """A case of a patient.

    Attributes:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        date: its date; None if unknown.
        event: what happened since the case before, such as ``surgery``.
        order: what orders cases without dates.
        person: sex and birth date, if a DICOM file says them.
    """

    case: dict[str, Any]
    date: datetime.date | None = None
    event: str = ""
    order: tuple[Any, ...] = ()
    person: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Its first file, for messages."""
        return str(self.case["image"][0])


@dataclass
class Patient:
    """The cases of a patient, from the earliest to the latest.

    Attributes:
        name: name of the patient, valid for files.
        cases: the cases.
        error: why they cannot be followed; empty if they can.
    """

    name: str
    cases: list[DatedCase]
    error: str = ""


def group_cases(
    cases: Iterable[Mapping[str, Any]],
    roots: Sequence[PathLike | str] = (),
    *,
    timeline: PathLike | str | None = None,
) -> list[Patient]:
    """Group cases by patient, and order them by time.

    - With ``timeline``, a CSV file says patient, date and event of each file; cases that it does not name are left out.
    - DICOM: PatientID; the date of acquisition, or else of the study.
    - BIDS: subject and session; dates from ``acq_time`` of ``sessions.tsv`` or ``scans.tsv``.
    - Other files: the date in the names of the file and of its folders. The patient is what is left of these names
      without words for contrasts and visits (``scan2``).

    Without dates, cases are in the order of their names. Dates that were all shifted by the same days, as
    de-identification does, change nothing: only differences count.

    Args:
        cases: cases of :py:func:`mri_seg.io.cases.find_cases`.
        roots: folders that were searched; names of folders below them may name patients.
        timeline: the CSV file.

    Returns:
        the patients by name. A patient whose cases contradict each other has an error that names the files.

    Raises:
        FileNotFoundError: when ``timeline`` does not exist.
        ValueError: when ``timeline`` is not such a file, or names a file that is no case.
    """
    found = [dict(case) for case in cases]
    folders = [Path(root).resolve() for root in roots]
    groups: dict[str, list[DatedCase]] = defaultdict(list)
    if timeline is not None:
        for name, dated in read_timeline(timeline, found, folders):
            groups[name].append(dated)
    else:
        for case in found:
            name, dated = _identified(case, folders)
            groups[name].append(dated)
    return [_patient(name, groups[name]) for name in sorted(groups, key=_natural)]


def _identified(case: dict[str, Any], roots: Sequence[Path]) -> tuple[str, DatedCase]:
    """Name of the patient of a case, and its date."""
    try:
        if case.get("source") == "dicom":
            return _of_dicom(case)
        found = _BIDS.match(Path(case["image"][0]).name)
        if found and case.get("source") == "volume":
            return _of_bids(case, found["subject"], found["session"])
        return _of_name(case, roots)
    except (OSError, ValueError) as error:
        return case["case"], DatedCase({**case, "error": case.get("error") or str(error)})


def _of_dicom(case: dict[str, Any]) -> tuple[str, DatedCase]:
    header = read_header(Path(case["image"][0]), _HEADER)
    text = {name: str(header.get(name) or "").strip() for name in _HEADER} if header is not None else {}
    dates = {name: _dicom_date(text.get(name, "")) for name in ("AcquisitionDate", "SeriesDate", "StudyDate")}
    known = {name: date for name, date in dates.items() if date is not None}
    if len(known) > 1 and max(known.values()) - min(known.values()) > datetime.timedelta(days=1):
        said = ", ".join(f"{name} {date}" for name, date in known.items())
        add_flag(
            case,
            "dates_contradict",
            f"{case['image'][0]}: its dates contradict each other ({said}). StudyDate is used if there is one; give "
            "the right date with --timeline.",
        )
        day: datetime.date | None = known.get("StudyDate", next(iter(known.values())))
    else:
        day = next(iter(known.values()), None)
    person = {name: text[name] for name in ("PatientSex", "PatientBirthDate") if text.get(name)}
    return text.get("PatientID") or case["case"], DatedCase(case, day, person=person, order=(_natural(case["case"]),))


def _dicom_date(text: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _of_bids(case: dict[str, Any], subject: str, session: str | None) -> tuple[str, DatedCase]:
    file = Path(case["image"][0])
    root = bids_root(file) or file.parent
    order = (_natural(session or ""), _natural(file.name))
    return subject, DatedCase(case, _bids_date(root, file, subject, session), order=order)


def _bids_date(root: Path, file: Path, subject: str, session: str | None) -> datetime.date | None:
    """``acq_time`` of a session or a scan; BIDS allows both tables."""
    folder = root / subject
    own = [folder / f"{subject}_sessions.tsv", root / "sessions.tsv"]
    for table in own:
        for row in _rows(table):
            own_row = session and row.get("session_id") == session and row.get("participant_id", subject) == subject
            if own_row and (date := _iso_date(row.get("acq_time", ""))) is not None:
                return date
    prefix = f"{subject}_{session}" if session else subject
    for table in ((folder / session if session else folder) / f"{prefix}_scans.tsv", folder / f"{subject}_scans.tsv"):
        for row in _rows(table):
            if Path(row.get("filename", "")).name == file.name:
                return _iso_date(row.get("acq_time", ""))
    return None


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(encoding="utf-8-sig", newline="") as stream:
        return [
            {str(key): str(value or "").strip() for key, value in row.items()}
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def _iso_date(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text[:10])
    except ValueError:
        return None


def _of_name(case: dict[str, Any], roots: Sequence[Path]) -> tuple[str, DatedCase]:
    """The patient and the date that the names of a file and its folders say."""
    parts = _name_parts(case, roots)
    different = sorted({date for date in map(_date_in, parts) if date is not None})
    if len(different) > 1:
        said = " and ".join(map(str, different[:2]))
        raise ValueError(f"{case['image'][0]}: its name has two dates, {said}, expected one. {_FORM}")
    order = tuple(_natural(part) for part in parts)
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
        raise ValueError(f"{text}: has two dates, expected one. {_FORM}")
    return next(iter(found), None)


def _as_date(match: re.Match[str]) -> datetime.date | None:
    try:
        return datetime.date(int(match[1]), int(match[3]), int(match[4]))
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
    """Words of a name without those that number a visit: ``P1_scan2`` gives ``P1``; a lone number is a visit too."""
    if len(words) == 1 and words[0].isdigit():
        return ()
    for count in (2, 1):
        if len(words) >= count and _VISIT.fullmatch("".join(words[-count:])):
            return words[:-count]
    return words


def _natural(text: str) -> tuple[Any, ...]:
    """Key by which ``scan 10`` comes after ``scan 9``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)


def _patient(name: str, cases: list[DatedCase]) -> Patient:
    dated = all(case.date is not None for case in cases)
    if dated:
        cases = sorted(cases, key=lambda case: (case.date, case.order))
    else:
        cases = sorted(cases, key=lambda case: case.order)
    patient = Patient(safe_name(name, "patient"), cases)
    for what, said in (("PatientSex", "sex"), ("PatientBirthDate", "birth date")):
        values = {case.person[what]: case.file for case in reversed(cases) if what in case.person}
        if len(values) > 1:
            (one, file), (other, at) = sorted(values.items())[:2]
            patient.error = (
                f"{file} and {at}: have the same PatientID, {name}, but another {said} ({one} and {other}): they are "
                f"of different people. Separate them with --timeline."
            )
    some = [case for case in cases if case.date is not None]
    if some and not dated:
        without = next(case for case in cases if case.date is None)
        patient.error = patient.error or (
            f"{without.file}: has no date, but {some[0].file} of the same patient, {name}, has. {_FORM}"
        )
    return patient


def read_timeline(
    file: PathLike | str, cases: Sequence[dict[str, Any]], roots: Sequence[Path] = ()
) -> list[tuple[str, DatedCase]]:
    """Read a CSV file that says patient, date, file and event of cases.

    A row without a file is an event at its date: the next scan of the patient on or after that date is a new baseline.

    Args:
        file: the CSV file, with the columns ``patient``, ``file``, and perhaps ``date`` (``YYYY-MM-DD``) and ``event``.
            Files are a file of a case or its folder, relative to the CSV file or to a folder that was searched.
        cases: the cases that were found.
        roots: folders that were searched.

    Returns:
        name of the patient and dated case for each row with a file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when a column is missing, a date is none, or a file is no case, or is named twice.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {_FORM}")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [str(name or "").strip().lower() for name in reader.fieldnames or []]
        missing = [name for name in ("patient", "file") if name not in columns]
        if missing:
            raise ValueError(f"{path}: has no column {' and '.join(missing)}; it has {', '.join(columns)}. {_FORM}")
        reader.fieldnames = columns
        rows = [{key: str(value or "").strip() for key, value in row.items() if key} for row in reader]
    folders = [path.resolve().parent, *roots]
    found: list[tuple[str, DatedCase]] = []
    events: list[tuple[str, datetime.date, str]] = []
    named: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        date = _row_date(path, line, row.get("date", ""))
        if not row["patient"]:
            raise ValueError(f"{path}, line {line}: has no patient. {_FORM}")
        if not row["file"]:
            if date is None or not row.get("event"):
                raise ValueError(f"{path}, line {line}: has no file, so it needs a date and an event.")
            events.append((row["patient"], date, row["event"]))
            continue
        case = _case_of(row["file"], cases, folders)
        if case is None:
            raise ValueError(
                f"{path}, line {line}: {row['file']} is no case that was found. Give a file of a case or its folder, "
                "relative to this CSV file or to the input folder."
            )
        if case["case"] in named:
            raise ValueError(f"{path}, line {line}: {row['file']} is named in line {named[case['case']]} too.")
        named[case["case"]] = line
        person = _of_dicom(dict(case))[1].person if case.get("source") == "dicom" else {}
        dated = DatedCase(dict(case), date, row.get("event", ""), order=(line,), person=person)
        found.append((row["patient"], dated))
    for patient, date, event in events:
        later = [case for name, case in found if name == patient and case.date is not None and case.date >= date]
        if not later:
            raise ValueError(f"{path}: {event} of {patient} on {date} is after all its scans, or it has none.")
        first = min(later, key=lambda case: case.date or date)
        first.event = "; ".join(filter(None, [first.event, event]))
    return found


def _row_date(path: Path, line: int, text: str) -> datetime.date | None:
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{path}, line {line}: {text} is no date, expected YYYY-MM-DD.") from None


def _case_of(name: str, cases: Sequence[dict[str, Any]], folders: Sequence[Path]) -> dict[str, Any] | None:
    """The case to which a file belongs, or which is the only one in a folder."""
    for place in dict.fromkeys((folder / name).resolve() for folder in folders):
        own = [
            case
            for case in cases
            if any(place == file or place in file.parents for file in (Path(one).resolve() for one in case["image"]))
        ]
        if len(own) == 1:
            return own[0]
        if own:
            raise ValueError(f"{place}: holds {len(own)} cases, expected one. Name a file of one of them.")
    return None
