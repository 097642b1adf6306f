"""Group cases by patient, and order them by time."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.follow_up.dated_cases import TIMELINE_FORM, DatedCase, identify, natural_order
from mri_seg.follow_up.timeline_file import add_events, named_cases, read_timeline
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.files import safe_name

__all__ = ["Patient", "group_cases"]

_PERSON = {"PatientSex": "sex", "PatientBirthDate": "birth date"}

logger = logging.getLogger(__name__)


@dataclass
class Patient:
    """The cases of a patient, from the earliest to the latest.

    Attributes:
        name: name of the patient, valid for files, and unlike that of every other patient.
        cases: the cases.
        error: why they cannot be followed; empty if they can.
    """

    name: str
    cases: list[DatedCase]
    error: str = ""

    def described(self) -> str:
        """The patient in a line: how many scans, and when."""
        count = len(self.cases)
        first, last = self.cases[0].date, self.cases[-1].date
        if all(case.date is None for case in self.cases):
            when = "without dates"
        elif first is None or last is None:
            when = "some without dates"
        else:
            when = f"{first}" if first == last else f"{first} to {last}"
        return f"{self.name}: {count} scan{'' if count == 1 else 's'}, {when}"


def group_cases(
    cases: Iterable[Mapping[str, Any]],
    roots: Sequence[PathLike | str] = (),
    *,
    timeline: PathLike | str | None = None,
) -> list[Patient]:
    """Group cases by patient, and order them by time.

    - With ``timeline``, a CSV file says patient, date and event of each file; cases that it does not name are left out,
      with a warning. If it names no file, it gives events alone, and the files say the rest.
    - DICOM: PatientID; the date of acquisition, or else of the series or the study.
    - BIDS: subject and session; dates from ``acq_time`` of ``sessions.tsv`` or ``scans.tsv``.
    - Other files: the date in the names of the file and of its folders. The patient is what is left of these names
      without words for contrasts and visits (``scan2``).

    Without dates, cases are in the order of their names. Dates that were all shifted by the same days, as
    de-identification does, change nothing: only differences count.

    Args:
        cases: cases of :py:func:`mri_seg.io.cases.find_cases`.
        roots: folders that were searched; names of folders below them may name patients.
        timeline: the CSV file; see :py:mod:`mri_seg.follow_up.timeline_file`.

    Returns:
        the patients by name. A patient whose cases contradict each other has an error that names the files.

    Raises:
        FileNotFoundError: when ``timeline`` does not exist.
        ValueError: when ``timeline`` is not such a file, names a file that is no case, or an event after all scans.
    """
    found = list(cases)
    folders = [Path(root).resolve() for root in roots]
    rows = [] if timeline is None else read_timeline(Path(timeline))
    by_user = any(row.file for row in rows)
    if by_user:
        identified = named_cases(rows, found, [Path(str(timeline)).resolve().parent, *folders])
        _warn_of_others(str(timeline), found, identified)
    else:
        identified = _by_data_set([_identified(case, folders) for case in found])
    groups: dict[str, list[DatedCase]] = defaultdict(list)
    for name, dated in identified:
        groups[name].append(dated)
    add_events(rows, groups)
    return _with_names(
        {name: _patient(name, groups[name], by_user=by_user) for name in sorted(groups, key=natural_order)}
    )


def _identified(case: Mapping[str, Any], roots: Sequence[Path]) -> tuple[str, DatedCase]:
    try:
        name, dated = identify(case, roots)
    except (OSError, ValueError) as error:
        return case["case"], DatedCase({**case, "error": case.get("error") or str(error)})
    if not name:
        add_flag(
            dated.case,
            "no_patient_id",
            f"{dated.file}: has no PatientID, so it is compared with no other scan. {TIMELINE_FORM}",
        )
    return name or case["case"], dated


def _by_data_set(identified: Sequence[tuple[str, DatedCase]]) -> list[tuple[str, DatedCase]]:
    """Names of patients. Equal subjects of several BIDS data sets are different people: theirs hold its name too."""
    data_sets: dict[str, set[Path]] = defaultdict(set)
    for name, dated in identified:
        if dated.data_set is not None:
            data_sets[name].add(dated.data_set.resolve())
    return [
        (f"{dated.data_set.name}_{name}" if dated.data_set is not None and len(data_sets[name]) > 1 else name, dated)
        for name, dated in identified
    ]


def _warn_of_others(timeline: str, cases: Sequence[Mapping[str, Any]], named: Sequence[tuple[str, DatedCase]]) -> None:
    used = {dated.case["case"] for _, dated in named}
    others = [str(case["image"][0]) for case in cases if case["case"] not in used]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        logger.warning("%s: does not name %s%s, which will not be followed.", timeline, others[0], more)


def _patient(name: str, cases: list[DatedCase], *, by_user: bool) -> Patient:
    """A patient with its cases in order.

    Args:
        name: name of the patient.
        cases: its cases.
        by_user: whether a user says that they are of one person.
    """
    dated = all(case.date is not None for case in cases)
    cases = sorted(cases, key=lambda case: (case.date, case.order) if dated else case.order)
    patient = Patient(safe_name(name, "patient"), cases, next((case.problem for case in cases if case.problem), ""))
    _check_person(patient, name, by_user=by_user)
    some = [case for case in cases if case.date is not None]
    if some and not dated:
        without = next(case for case in cases if case.date is None)
        patient.error = patient.error or (
            f"{without.file}: has no date, but {some[0].file} of the same patient, {name}, has. {TIMELINE_FORM}"
        )
    if not dated:
        _flag_same_study(cases)
    if len(cases) == 1:
        patient.error = patient.error or str(cases[0].case.get("error", ""))
    return patient


def _check_person(patient: Patient, name: str, *, by_user: bool) -> None:
    """One PatientID of people with another sex or birth date is an error; if the user says who it is, a flag."""
    for what, said in _PERSON.items():
        first: dict[str, DatedCase] = {}
        for case in patient.cases:
            if case.person.get(what, "O") != "O":  # other, or left out by those who took the names away
                first.setdefault(case.person[what], case)
        if len(first) < 2:
            continue
        (one, own), (other, at) = list(first.items())[:2]
        differs = f"another {said} ({one} and {other})"
        if by_user:
            add_flag(
                at.case,
                "person_contradicts",
                f"{at.file}: says {differs} than {own.file}, although both are given as {name}. Check that they are of "
                "one person.",
            )
        else:
            patient.error = (
                f"{own.file} and {at.file}: have the same PatientID, {name}, but {differs}: they are of different "
                "people. Name the patient of each file with --timeline."
            )


def _flag_same_study(cases: Sequence[DatedCase]) -> None:
    """Flag scans without dates that belong to one study or session: their order says nothing."""
    first: dict[str, DatedCase] = {}
    for case in cases:
        before = first.setdefault(case.study, case) if case.study else case
        if before is not case:
            add_flag(
                case.case,
                "same_study",
                f"{case.file}: belongs to the same study or session as {before.file}. Check whether one of them is a "
                "repetition; leave it out with --timeline.",
            )


def _with_names(patients: Mapping[str, Patient]) -> list[Patient]:
    """Patients whose names differ as names of folders, also where these do not tell cases of letters apart."""
    taken: set[str] = set()
    for patient in patients.values():
        name, number = patient.name, 1
        while patient.name.lower() in taken:
            number += 1
            patient.name = f"{name}_{number}"
        taken.add(patient.name.lower())
    return list(patients.values())
