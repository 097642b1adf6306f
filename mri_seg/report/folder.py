"""Find and read the folder that an evaluation wrote."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.evaluation.writer import QUALITY_COLUMNS
from mri_seg.utils.files import read_json

__all__ = ["Evaluation", "read_evaluation"]

_TABLES = {
    "patients.csv": {
        "case": str,
        "dice": float,
        "hd95": float,
        "surface_dice": float,
        "distance_unit": str,
        "label_voxels": int,
        "pred_voxels": int,
        "slices": int,
    },
    "slices.csv": {
        "case": str,
        "slice": int,
        "dice": float,
        "precision": float,
        "recall": float,
        "label_pixels": int,
        "pred_pixels": int,
        "overlap_pixels": int,
    },
}
_OPTIONAL = {"patients.csv": ("group", *QUALITY_COLUMNS), "slices.csv": ()}
"""Columns of text that not all tables have; they read as empty."""

_HOW_TO_MAKE = "Run the evaluation: mri-seg evaluate DATASET."


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, as read from its folder.

    Attributes:
        folder: the folder.
        metrics: content of ``metrics.json``.
        patients: rows of ``patients.csv``, with numbers parsed.
        slices: rows of ``slices.csv`` of each case, from the lowest slice.
    """

    folder: Path
    metrics: dict[str, Any]
    patients: list[dict[str, Any]]
    slices: dict[str, list[dict[str, Any]]]

    def case_file(self, case: str) -> Path:
        """Path of an archived case.

        Raises:
            FileNotFoundError: when it does not exist.
        """
        file = self.folder / "cases" / f"{case}.npz"
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: the evaluation did not keep its cases. Run it again with --report true."
            )
        return file


def read_evaluation(folder: PathLike | str) -> Evaluation:
    """Read an evaluation.

    Args:
        folder: folder with ``metrics.json``, ``patients.csv`` and ``slices.csv``, or a folder that contains exactly
            one such folder, such as that of a training run.

    Raises:
        FileNotFoundError: when the folder or one of the files is missing.
        ValueError: when a file is damaged, or the folder holds several evaluations.
    """
    folder = _find(Path(folder))
    metrics = read_json(folder / "metrics.json")
    for key in ("slice_protocol", "patient_protocol"):
        if not isinstance(metrics, dict) or key not in metrics:
            raise ValueError(
                f"{folder / 'metrics.json'}: has no {key!r}, so it is not from an evaluation. {_HOW_TO_MAKE}"
            )
    patients = _read_table(folder / "patients.csv")
    if not patients:
        raise ValueError(f"{folder / 'patients.csv'}: lists no patient. {_HOW_TO_MAKE}")
    slices: dict[str, list[dict[str, Any]]] = {row["case"]: [] for row in patients}
    for row in _read_table(folder / "slices.csv"):
        slices.setdefault(row["case"], []).append(row)
    for row in patients:
        if len(slices[row["case"]]) != row["slices"]:
            raise ValueError(
                f"{folder / 'slices.csv'}: has {len(slices[row['case']])} slices of {row['case']}, but patients.csv "
                f"says {row['slices']}. The files come from different evaluations. {_HOW_TO_MAKE}"
            )
    return Evaluation(folder, metrics, patients, slices)


def _find(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder. Name the folder of an evaluation or of a run.")
    if (folder / "metrics.json").is_file():
        return folder
    found = sorted(file.parent for file in folder.glob("*/metrics.json"))
    if len(found) > 1:
        names = ", ".join(str(place) for place in found)
        raise ValueError(f"{folder} holds {len(found)} evaluations: {names}. Name one of them.")
    if not found:
        raise FileNotFoundError(
            f"{folder / 'metrics.json'} is missing, and no folder directly below has one. {_HOW_TO_MAKE}"
        )
    return found[0]


def _read_table(file: Path) -> list[dict[str, Any]]:
    columns, optional = _TABLES[file.name], _OPTIONAL[file.name]
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. {_HOW_TO_MAKE}")
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {**_typed(row, columns, f"{file}, line {n}"), **{name: row.get(name) or "" for name in optional}}
            for n, row in enumerate(csv.DictReader(stream), start=2)
        ]


def _typed(row: Mapping[str, str], columns: Mapping[str, type], place: str) -> dict[str, Any]:
    try:
        return {name: kind(row[name]) for name, kind in columns.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{place}: expected the columns {', '.join(columns)}, found {dict(row)}. {_HOW_TO_MAKE}"
        ) from error
