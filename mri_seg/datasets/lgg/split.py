"""Split the TCGA-LGG patients for training, validation and test.

All shipped splits have the published baseline's 15 test patients as their test section:

- ``published``: the baseline's own 90 / 5 / 15 patients;
- ``institution/CS``, ``institution/DU``, ``institution/FG``, ``institution/HT``: of the other 95 patients, those of one
  institution are for validation, which shows how well a model works on scanners it has not seen;
- ``folds/1`` to ``folds/5``: five-fold cross-validation of these 95 patients, balanced by institution.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.datasets.splits import SECTIONS, Split, parse_split, select

from .index import find_cases, institution

__all__ = ["SECTIONS", "SHIPPED_SPLITS", "datalist", "derive_splits", "load_split", "write_splits"]

_INSTITUTIONS = ("CS", "DU", "FG", "HT")  # EZ has one patient, too few to validate on
_FOLDS = 5
SHIPPED_SPLITS = (
    "published",
    *(f"institution/{code}" for code in _INSTITUTIONS),
    *(f"folds/{fold}" for fold in range(1, _FOLDS + 1)),
)


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
        return parse_split(_read_shipped(split), f"split {split!r}")
    path = Path(split)
    if not path.is_file():
        raise ValueError(
            f"{split}: is neither a shipped split nor a file. Shipped splits of TCGA-LGG are "
            f"{', '.join(SHIPPED_SPLITS)}; you can also give the path of a JSON file, random:5:0 or all."
        )
    return parse_split(path.read_bytes(), str(path))


def datalist(
    dataset_dir: str | PathLike[str],
    split: str | PathLike[str] = "published",
    section: str = "training",
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """List the cases of a section of a split, as :py:func:`mri_seg.datasets.splits.select` does.

    Args:
        dataset_dir: folder that contains the patient folders.
        split: name of a shipped split, or path of a JSON file; see ``load_split``.
        section: ``training``, ``validation``, ``test``, several of them joined by ``+``, or ``all`` for every patient
            of the split.
        allow_missing: if true, differences between folder and split are only logged as a warning, and the patients of
            the section that exist are used.

    Returns:
        one dictionary per patient, sorted by patient: ``image`` and ``label``, the paths of its slices and masks from
        the lowest slice to the highest, ``case`` and ``patient``, the patient, and ``group``, the institution by the
        TCGA identifier (empty for other names).

    Raises:
        FileNotFoundError: when the folder does not exist.
        ValueError: when the split or section is unknown, when the folder does not match them, or a slice of the section
            has no mask, and ``allow_missing`` is false, or when the folder has no patient of the section.
    """
    chosen = Split(str(split), load_split(split))
    remedy = f"Complete the folder (python -m mri_seg.datasets.lgg fetch {dataset_dir})"
    return select(
        find_cases(dataset_dir), chosen, section, place=dataset_dir, allow_missing=allow_missing, remedy=remedy
    )


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
