"""Compare what was said of each case without its reference with what the reference says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["quality_summary"]

_LOW = 0.7  # Dice below which a result is a mistake


def quality_summary(patients: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Compare expected with true Dice, intervals with volumes, and flags with mistakes.

    Args:
        patients: rows of ``patients.csv``; see :py:data:`mri_seg.evaluation.writer.QUALITY_COLUMNS`.

    Returns:
        ``cases`` with an estimate, as numbers; ``rank_correlation`` (Spearman) of expected and true Dice, None if it is
        not defined; ``within_range``: how many of the cases have a Dice within its range; ``with_volume`` and
        ``covered``: cases with a reference volume, and those in whom it lies in its interval; ``width``, the median
        ratio of its ends; ``without``: cases without an estimate; and ``flagged`` and ``unflagged``, each with
        ``cases`` and those with a Dice below 0.7 (``low``).
        None if no case has an estimate.
    """
    cases = [_numbers(row) for row in patients if row.get("expected_dice") not in (None, "")]
    if not cases:
        return None
    expected, dice = ([row[name] for row in cases] for name in ("expected_dice", "dice"))
    varied = len(set(expected)) > 1 and len(set(dice)) > 1
    sized = [row for row in cases if row["label_voxels"]]
    flags = {name: [row for row in patients if bool(row.get("flags")) == (name == "flagged")] for name in _FLAGGED}
    return {
        "cases": cases,
        "rank_correlation": float(stats.spearmanr(expected, dice).statistic) if varied else None,
        "within_range": sum(row["expected_dice_low"] <= row["dice"] <= row["expected_dice_high"] for row in cases),
        "with_volume": len(sized),
        "covered": sum(
            row["volume_ratio_low"] <= row["label_voxels"] / row["pred_voxels"] <= row["volume_ratio_high"]
            for row in sized
        ),
        "width": float(np.median([row["volume_ratio_high"] / row["volume_ratio_low"] for row in cases])),
        "without": len(patients) - len(cases),
        **{
            name: {"cases": len(rows), "low": sum(float(row["dice"]) < _LOW for row in rows)}
            for name, rows in flags.items()
        },
    }


_FLAGGED = ("flagged", "unflagged")
_NUMBERS = ("dice", "expected_dice", "expected_dice_low", "expected_dice_high", "volume_ratio_low", "volume_ratio_high")


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{name: float(row[name]) for name in _NUMBERS}}
