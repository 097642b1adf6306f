"""Compare two evaluations of the same patients, patient by patient and slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_seg.evaluation.writer import bootstrap_interval

__all__ = ["compare"]

_EQUAL = 1e-6  # difference of Dice below which two values are the same


def compare(
    patients: Sequence[Mapping[str, Any]],
    other_patients: Sequence[Mapping[str, Any]],
    slices: Sequence[Mapping[str, Any]] = (),
    other_slices: Sequence[Mapping[str, Any]] = (),
    *,
    most: int = 20,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two evaluations by the Dice of the patients and slices that both contain.

    A difference is this evaluation's value minus the other's: above 0, this one is better.

    Args:
        patients: rows of ``patients.csv`` with ``case`` and ``dice`` (a number, or text that holds one).
        other_patients: the same rows of the other evaluation.
        slices: rows of ``slices.csv`` with ``case``, ``slice`` and ``dice``.
        other_slices: the same rows of the other evaluation.
        most: maximum number of slices to list.
        resamples: number of bootstrap resamples of the patients.
        seed: seed of the bootstrap.

    Returns:
        ``patients``: ``case``, ``dice``, ``other_dice`` and ``difference`` of each shared patient, from the largest
        loss to the largest gain; ``mean_difference`` with its 95 % bootstrap ``interval`` (None for one patient); how
        many patients are ``better``, ``worse`` and ``equal``; ``only_here`` and ``only_there``: patients that only one
        evaluation contains; ``slices``: ``case``, ``slice`` (from 1), ``dice`` and ``other_dice`` of the shared slices
        that differ most, the largest difference first; if differences are equal, the largest lesion comes first.

    Raises:
        ValueError: when no patient is in both evaluations.
    """
    here, there = ({str(row["case"]): float(row["dice"]) for row in rows} for rows in (patients, other_patients))
    shared = [case for case in here if case in there]
    if not shared:
        raise ValueError(
            f"the two evaluations share no patient: this one has {_some(here)}, the other {_some(there)}. "
            "Compare evaluations of the same patients."
        )
    rows = [
        {"case": case, "dice": here[case], "other_dice": there[case], "difference": here[case] - there[case]}
        for case in shared
    ]
    differences = np.array([row["difference"] for row in rows])
    interval = bootstrap_interval((differences,), np.mean, resamples=resamples, seed=seed)
    return {
        "patients": sorted(rows, key=lambda row: (row["difference"], row["case"])),
        "mean_difference": float(differences.mean()),
        "interval": interval,
        "better": int((differences > _EQUAL).sum()),
        "worse": int((differences < -_EQUAL).sum()),
        "equal": int((np.abs(differences) <= _EQUAL).sum()),
        "only_here": [case for case in here if case not in there],
        "only_there": [case for case in there if case not in here],
        "slices": _different_slices(slices, other_slices)[:most],
    }


def _different_slices(slices: Sequence[Mapping], other_slices: Sequence[Mapping]) -> list[dict[str, Any]]:
    """Slices that are in both evaluations and differ in Dice, the largest difference first."""
    here, there = ({(str(row["case"]), int(row["slice"])): row for row in rows} for rows in (slices, other_slices))
    found = []
    for (case, number), row in here.items():
        other = there.get((case, number))
        if other is None:
            continue
        dice, other_dice = float(row["dice"]), float(other["dice"])
        if abs(dice - other_dice) > _EQUAL:
            size = max(_pixels(row), _pixels(other))
            # Rounded, so that differences that are equal up to rounding errors are ordered by size.
            order = (-round(abs(dice - other_dice), 6), -size, case, number)
            found.append((order, {"case": case, "slice": number, "dice": dice, "other_dice": other_dice}))
    return [row for _, row in sorted(found, key=lambda entry: entry[0])]


def _pixels(row: Mapping) -> int:
    """Pixels of the larger of reference and prediction in a slice."""
    return max(int(row.get("label_pixels") or 0), int(row.get("pred_pixels") or 0))


def _some(cases: Mapping[str, float]) -> str:
    names = list(cases)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
