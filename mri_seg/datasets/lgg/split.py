"""Split the TCGA-LGG patients for training, validation and test.

All shipped splits have the published baseline's 15 test patients as their test section:

- ``published``: the baseline's own 90 / 5 / 15 patients;
- ``institution/CS``, ``institution/DU``, ``institution/FG``, ``institution/HT``: of the other 95 patients, those of one
  institution are for validation, which shows how well a model works on scanners it has not seen;
- ``folds/1`` to ``folds/5``: five-fold cross-validation of these 95 patients, balanced by institution.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from .index import find_patients, group, institution, slice_files

__all__ = ["SECTIONS", "SHIPPED_SPLITS", "datalist", "derive_splits", "load_split", "write_splits"]

SECTIONS = ("training", "validation", "test")
_INSTITUTIONS = ("CS", "DU", "FG", "HT")  # EZ has one patient, too few to validate on
_FOLDS = 5
SHIPPED_SPLITS = (
    "published",
    *(f"institution/{code}" for code in _INSTITUTIONS),
    *(f"folds/{fold}" for fold in range(1, _FOLDS + 1)),
)

_logger = logging.getLogger(__name__)


def load_split(split: str | PathLike[str]) -> dict[str, dict[str, int | None]]:
    """Load a shipped split, or a split file of the user.

    A split file is a JSON object with one or more of the sections ``training``, ``validation`` and ``test``, and an
    optional ``description``. A section is an object with the number of slices of each patient (null if it does not
    matter), or a list of patients.

    Args:
        split: name of a shipped split (``SHIPPED_SPLITS``), or path of a JSON file.

    Returns:
        for each section, the number of slices (or None) of each patient.

    Raises:
        ValueError: when ``split`` is neither a shipped name nor a file, when the file is not a split, or when a patient
            is in two sections.

    Example::

        >>> {section: len(patients) for section, patients in load_split("published").items()}
        {'training': 90, 'validation': 5, 'test': 15}
    """
    if isinstance(split, str) and split in SHIPPED_SPLITS:
        return _parse(_read_shipped(split), f"split {split!r}")
    path = Path(split)
    if not path.is_file():
        raise ValueError(
            f"{split}: is neither a shipped split nor a file. Shipped splits are {', '.join(SHIPPED_SPLITS)}; "
            "you can also give the path of a JSON file."
        )
    return _parse(path.read_bytes(), str(path))


def datalist(
    dataset_dir: str | PathLike[str],
    split: str | PathLike[str] = "published",
    section: str = "training",
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """List the cases of a section of a split, in the form that MONAI's data sets expect.

    Only the requested section has to be complete. But a patient that is in no section is always an error, because it
    would be left out silently.

    Args:
        dataset_dir: folder that contains the patient folders.
        split: name of a shipped split, or path of a JSON file; see ``load_split``.
        section: ``training``, ``validation``, ``test``, several of them joined by ``+``, or ``all`` for every patient
            of the split.
        allow_missing: if true, differences between folder and split are only logged as a warning, and the patients of
            the section that exist are used.

    Returns:
        one dictionary per patient, sorted by patient: ``image`` and ``label``, the paths of its slices and masks from
        the lowest slice to the highest, ``case``, the patient, and ``group``, the institution by the TCGA identifier
        (empty for other names).

    Raises:
        FileNotFoundError: when the folder does not exist, or a slice has no mask.
        ValueError: when the split or section is unknown, when the folder does not match them and ``allow_missing`` is
            false, or when the folder has no patient of the section.
    """
    sections = load_split(split)
    wanted = _wanted(sections, section, split)
    found = find_patients(dataset_dir)
    files = {patient: slice_files(found[patient]) for patient in sorted(wanted.keys() & found.keys())}

    what = f"section {section!r} of split {str(split)!r}"
    problems = _mismatches(wanted, files, unnamed=found.keys() - set().union(*sections.values()))
    if problems and not allow_missing:
        raise ValueError(
            f"{dataset_dir} does not match {what}: {'; '.join(problems)}. Complete the folder "
            f"(python -m mri_seg.datasets.lgg fetch {dataset_dir}) or correct the split. With allow_missing true, only "
            "the patients of the section that exist are used."
        )
    if not files:
        raise ValueError(f"{dataset_dir}: has none of the {len(wanted)} patients in {what}. Choose another section.")
    if problems:
        _logger.warning("%s does not match %s: %s", dataset_dir, what, "; ".join(problems))
        _logger.warning("Continuing with %d of %d patients.", len(files), len(wanted))
    return [
        {
            "image": [str(image) for _, image, _ in slices],
            "label": [str(mask) for _, _, mask in slices],
            "case": patient,
            "group": group(patient),
        }
        for patient, slices in files.items()
    ]


def derive_splits(published: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Derive every shipped split from the published one; the test section stays the same in all.

    Args:
        published: the published split as in its file.

    Returns:
        the content of each split's file by the split's name.
    """
    others = dict(sorted({**published["training"], **published["validation"]}.items()))

    def hold_out(held: Collection[str], description: str) -> dict[str, Any]:
        return {
            "description": description,
            "training": {patient: slices for patient, slices in others.items() if patient not in held},
            "validation": {patient: slices for patient, slices in others.items() if patient in held},
            "test": published["test"],
        }

    splits = {"published": dict(published)}
    for code in _INSTITUTIONS:
        held = {patient for patient in others if institution(patient) == code}
        splits[f"institution/{code}"] = hold_out(
            held,
            f"TCGA-LGG with institution {code} left out: its {len(held)} patients outside the published test section "
            f"are validation, the other {len(others) - len(held)} training. Slices per patient.",
        )
    # Each fold takes every fifth patient in order of institution, so folds differ by at most one patient of each.
    ordered = sorted(others, key=lambda patient: (institution(patient), patient))
    for fold in range(1, _FOLDS + 1):
        held = set(ordered[fold - 1 :: _FOLDS])
        splits[f"folds/{fold}"] = hold_out(
            held,
            f"TCGA-LGG, fold {fold} of {_FOLDS} over the patients outside the published test section, balanced by "
            f"institution: {len(held)} patients are validation, the other {len(others) - len(held)} training. "
            "Slices per patient.",
        )
    return splits


def write_splits(folder: str | PathLike[str]) -> None:
    """Write the files of all shipped splits below a folder, derived from the published split."""
    for name, content in derive_splits(json.loads(_read_shipped("published"))).items():
        path = Path(folder, f"{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_shipped(name: str) -> bytes:
    return resources.files(__package__).joinpath(f"splits/{name}.json").read_bytes()


def _parse(text: bytes, source: str) -> dict[str, dict[str, int | None]]:
    """Turn the content of a split file into slices by section and patient; ``source`` names the file in errors."""
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
    _refuse_shared_patients(sections, source)
    return sections


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


def _refuse_shared_patients(sections: Mapping[str, Mapping[str, int | None]], source: str) -> None:
    section_of: dict[str, str] = {}
    for section, patients in sections.items():
        for patient in patients:
            if patient in section_of:
                raise ValueError(
                    f"{source}: patient {patient} is in two sections, {section_of[patient]!r} and {section!r}. "
                    "Remove it from one of them: a model must not be validated or tested on training patients."
                )
            section_of[patient] = section


def _wanted(
    sections: Mapping[str, Mapping[str, int | None]], section: str, split: str | PathLike[str]
) -> dict[str, int | None]:
    """Number of slices by patient of the requested section."""
    if section == "all":
        return {patient: slices for patients in sections.values() for patient, slices in patients.items()}
    wanted: dict[str, int | None] = {}
    for name in str(section).split("+"):
        if name not in sections:
            raise ValueError(f"split {str(split)!r} has no section {name!r}, expected {', '.join(sections)} or all.")
        wanted |= sections[name]
    return wanted


def _mismatches(
    wanted: Mapping[str, int | None], files: Mapping[str, Sequence[Any]], unnamed: Collection[str]
) -> list[str]:
    """List the differences between the patients of the folder and those of the section."""
    missing = sorted(wanted.keys() - files.keys())
    other_counts = [
        f"{patient} ({len(slices)} instead of {wanted[patient]})"
        for patient, slices in files.items()
        if wanted[patient] not in (None, len(slices))
    ]
    return [
        f"{_count(names)} {problem}: {_first(names)}"
        for names, problem in (
            (missing, "missing"),
            (other_counts, "with another number of slices than in the split"),
            (sorted(unnamed), "in no section of the split"),
        )
        if names
    ]


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} patient{'s' if len(names) > 1 else ''}"


def _first(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
