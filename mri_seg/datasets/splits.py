"""Split the cases of a data set by patient: read, draw, apply and write splits."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

__all__ = ["SECTIONS", "Split", "parse_split", "random_split", "select", "shared_patients", "split_content"]

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")

_KEPT = ("image", "sequences", "label", "case", "patient", "group", "volume", "flags")  # keys of a case that go on
_RANDOM = re.compile(r"random:(?P<folds>\d+):(?P<fold>\d+)")


class Split(NamedTuple):
    """Which patients are for what.

    Attributes:
        name: how ``--split`` names it.
        sections: for each section, the number of slices (None if it does not matter) by the name of each patient or
            case.
    """

    name: str
    sections: Mapping[str, Mapping[str, int | None]]


def parse_split(text: bytes, source: str) -> dict[str, dict[str, int | None]]:
    """Parse the content of a split file.

    Args:
        text: a JSON object with one or more of the sections ``training``, ``validation`` and ``test``, and an optional
            ``description``. A section is an object with the number of slices of each patient (null if it does not
            matter), or a list of patients.
        source: names the file in errors.

    Returns:
        for each section, the number of slices (or None) of each patient.

    Raises:
        ValueError: when the text is not a split, or when a patient is in two sections.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested too deeply
        raise ValueError(f"{source}: not a JSON file ({error}), expected a split.") from error
    known = ", ".join(SECTIONS)
    if not isinstance(content, dict):
        raise ValueError(f"{source}: holds a {type(content).__name__}, expected an object with sections {known}.")
    content.pop("description", None)
    unknown = [key for key in content if key not in SECTIONS]
    if unknown:
        raise ValueError(f"{source}: {unknown[0]!r} is not a section, expected {known}. Rename or remove it.")
    if not content:
        raise ValueError(f"{source}: no sections, expected one or more of {known}.")
    sections = {name: _parse_section(patients, f"{source}: section {name!r}") for name, patients in content.items()}
    _refuse_shared_names(sections, source)
    return sections


def random_split(cases: Iterable[Mapping[str, Any]], name: str, seed: int) -> Split:
    """Draw a split by patient: ``random:5:0`` are five folds, of which fold 0 is for validation.

    The patients of each institution are dealt out over the folds in random order, so that the folds differ by at most
    one patient of each institution. The draw depends only on the seed and on the names of patients and institutions.

    Args:
        cases: cases with ``patient`` and, if known, ``institution``.
        name: ``random:<folds>:<fold>``; folds count from 0.
        seed: seed of the draw.

    Raises:
        ValueError: when the name is malformed, or there are more folds than patients.
    """
    match = _RANDOM.fullmatch(name)
    folds, fold = (int(match["folds"]), int(match["fold"])) if match else (0, 0)
    if folds < 2 or fold >= folds:
        raise ValueError(
            f"--split: {name!r}, expected random:<folds>:<fold> with two folds or more, counted from 0, as in "
            "random:5:0."
        )
    institutions = {case["patient"]: str(case.get("institution") or "") for case in cases}
    if len(institutions) < folds:
        raise ValueError(
            f"--split: {name!r} needs {folds} patients or more, found {len(institutions)}. Give fewer folds, or "
            "--split all to train on every patient without validation."
        )
    draw = np.random.default_rng(seed)
    ordered: list[str] = []
    for institution in sorted(set(institutions.values())):
        members = sorted(patient for patient, place in institutions.items() if place == institution)
        ordered += draw.permutation(members).tolist()
    held = set(ordered[fold::folds])
    sections: dict[str, dict[str, int | None]] = {
        "training": dict.fromkeys(sorted(set(ordered) - held)),
        "validation": dict.fromkeys(sorted(held)),
    }
    return Split(name, sections)


def select(
    cases: Sequence[Mapping[str, Any]],
    split: Split,
    section: str,
    *,
    place: PathLike | str,
    allow_missing: bool = False,
    remedy: str = "Complete the data set",
) -> list[dict[str, Any]]:
    """Select the cases of a section of a split, in the form that MONAI's data sets expect.

    Only the requested section has to be complete. But a patient that is in no section is always an error, because it
    would be left out silently.

    Args:
        cases: all cases of a data set: ``image``, ``label``, ``case``, ``patient``, ``group``; ``slices``, the number
            of files if each is a slice; ``error``, why the case cannot be used.
        split: the split.
        section: ``training``, ``validation``, ``test``, several of them joined by ``+``, or ``all``.
        place: names the data set in errors.
        allow_missing: if true, differences between data set and split, and cases that cannot be used, are only logged
            as a warning, and the other cases of the section are used.
        remedy: what errors about missing patients suggest.

    Returns:
        the cases of the section, sorted by name, with the keys of ``cases`` that training and evaluation need.

    Raises:
        ValueError: when the split has no such section, when the data set does not match the section or a case cannot be
            used and ``allow_missing`` is false, when a patient is in two sections, or when there is no case.
    """
    what = f"section {section!r} of split {split.name!r}"
    wanted = _wanted(split, section)
    if shared := shared_patients(cases, split):
        raise ValueError(
            f"{place}: {shared[0]}. Move all cases of a patient to one section: a model must not be validated or "
            "tested on training patients."
        )
    problems = _mismatches(wanted, cases, split)
    if problems and not allow_missing:
        raise ValueError(
            f"{place} does not match {what}: {'; '.join(problems)}. {remedy} or correct the split. With allow_missing "
            "true, only the patients of the section that exist are used."
        )
    found = [case for case in cases if case["case"] in wanted or case["patient"] in wanted]
    if not found:
        raise ValueError(f"{place}: has none of the {len(wanted)} patients in {what}. Choose another section.")
    if problems:
        logger.warning("%s does not match %s: %s", place, what, "; ".join(problems))
        logger.warning("Continuing with %d of %d patients.", len({case["patient"] for case in found}), len(wanted))
    usable = [case for case in found if "error" not in case]
    if broken := [str(case["error"]) for case in found if "error" in case]:
        more = f" ({len(broken) - 1} more cases cannot be used either.)" if len(broken) > 1 else ""
        if not allow_missing or not usable:
            raise ValueError(f"{broken[0]}{more}")
        logger.warning("%s%s Continuing with %d of %d cases.", broken[0], more, len(usable), len(found))
    return [{key: case[key] for key in _KEPT if key in case} for case in sorted(usable, key=lambda case: case["case"])]


def _assign(cases: Iterable[Mapping[str, Any]], split: Split) -> dict[str, list[str]]:
    """Find the sections of each case, which a split may name by its patient or by itself.

    Returns:
        for each case, by its name, the sections that name it: none or one, or two if they name case and patient.
    """
    return {
        case["case"]: [
            section for section, names in split.sections.items() if case["patient"] in names or case["case"] in names
        ]
        for case in cases
    }


def shared_patients(cases: Iterable[Mapping[str, Any]], split: Split) -> list[str]:
    """Describe each patient whose cases are in more than one section of a split."""
    cases = list(cases)
    sections_of = _assign(cases, split)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        for section in sections_of[case["case"]]:
            found[case["patient"]].setdefault(section, case["case"])
    return [
        f"patient {patient} is in two sections, "
        + " and ".join(f"{section!r} ({case})" for section, case in sections.items())
        for patient, sections in found.items()
        if len(sections) > 1
    ]


def split_content(split: Split, **facts: Any) -> dict[str, Any]:
    """The JSON content of a split's file, as ``--split`` reads it.

    Args:
        split: the split.
        facts: how it was made, for its description.
    """
    made = ", ".join(f"{key} {value}" for key, value in facts.items())
    return {
        "description": f"Split {split.name}" + (f" ({made})." if made else "."),
        **{
            section: list(names) if all(count is None for count in names.values()) else dict(names)
            for section, names in split.sections.items()
        },
    }


def _parse_section(patients: Any, source: str) -> dict[str, int | None]:
    if isinstance(patients, list):
        for patient in patients:
            if not isinstance(patient, str):
                raise ValueError(f"{source} lists {patient!r}, expected patients' names as text.")
        return dict.fromkeys(patients)
    if not isinstance(patients, dict):
        raise ValueError(
            f"{source} is a {type(patients).__name__}, expected an object (slices by patient) or a list of patients."
        )
    for patient, slices in patients.items():
        if slices is not None and (type(slices) is not int or slices < 1):  # JSON's true is an int to Python
            raise ValueError(
                f"{source} gives {slices!r} slices to {patient}, expected a whole number, 1 or more, or null."
            )
    return patients


def _refuse_shared_names(sections: Mapping[str, Mapping[str, int | None]], source: str) -> None:
    section_of: dict[str, str] = {}
    for section, patients in sections.items():
        for patient in patients:
            if patient in section_of:
                raise ValueError(
                    f"{source}: patient {patient} is in two sections, {section_of[patient]!r} and {section!r}. "
                    "Remove it from one of them: a model must not be validated or tested on training patients."
                )
            section_of[patient] = section


def _wanted(split: Split, section: str) -> dict[str, int | None]:
    """Names of patients or cases of a section, or of several joined by ``+``, or of ``all``.

    Raises:
        ValueError: when the split has no such section.
    """
    if section == "all":
        return {name: slices for names in split.sections.values() for name, slices in names.items()}
    wanted: dict[str, int | None] = {}
    for name in str(section).split("+"):
        if name not in split.sections:
            raise ValueError(
                f"split {split.name!r} has no section {name!r}, expected {', '.join(split.sections)} or all."
            )
        wanted |= split.sections[name]
    return wanted


def _mismatches(wanted: Mapping[str, int | None], cases: Sequence[Mapping[str, Any]], split: Split) -> list[str]:
    """List the differences between the cases of a data set and those of a section.

    Args:
        wanted: number of slices by the names of the section.
        cases: all cases of the data set.
        split: the split, in one of whose sections every case must be.
    """
    names = {name for case in cases for name in (case["case"], case["patient"])}
    counts: dict[str, int] = defaultdict(int)
    for case in cases:
        counts[case["patient"] if case["patient"] in wanted else case["case"]] += case.get("slices", 0)
    other_counts = [
        f"{name} ({counts[name]} instead of {slices})"
        for name, slices in wanted.items()
        if slices is not None and counts[name] not in (0, slices)
    ]
    sections_of = _assign(cases, split)
    unnamed = sorted({case["patient"] for case in cases if not sections_of[case["case"]]})
    return [
        f"{_count(found)} {problem}: {_first(found)}"
        for found, problem in (
            (sorted(wanted.keys() - names), "missing"),
            (sorted(other_counts), "with another number of slices than in the split"),
            (unnamed, "in no section of the split"),
        )
        if found
    ]


def _first(names: Sequence[str], limit: int = 10) -> str:
    """List names, of many only the first ones."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} patient{'s' if len(names) > 1 else ''}"
