"""What the report says of expected Dice, intervals and flags."""

from __future__ import annotations

from typing import Any

import pytest

from mri_seg.report.charts import expected_dice
from mri_seg.report.quality import quality_summary


def patient(case: str, dice: float, expected: float | None, label: int = 100, flags: str = "") -> dict[str, Any]:
    estimate = {} if expected is None else {"expected_dice": str(expected), "volume_ratio_low": "0.5"}
    if expected is not None:
        estimate |= {"volume_ratio_high": "2", "expected_dice_low": str(expected - 0.1)}
        estimate |= {"expected_dice_high": str(expected + 0.1)}
    return {"case": case, "dice": dice, "label_voxels": label, "pred_voxels": 100, "flags": flags, **estimate}


PATIENTS = [
    patient("a", 0.9, 0.92),
    patient("b", 0.8, 0.85, label=240),
    patient("c", 0.3, 0.5, flags="not_flair"),
    patient("d", 0.0, None, flags="nothing_found"),
]


class TestSummary:
    def test_estimates_are_compared_with_the_reference(self) -> None:
        found = quality_summary(PATIENTS)
        assert found is not None
        assert found["rank_correlation"] == pytest.approx(1)
        assert (found["within_range"], found["covered"], found["with_volume"], found["without"]) == (2, 2, 3, 1)
        assert found["width"] == 4

    def test_flags_are_compared_with_mistakes(self) -> None:
        found = quality_summary(PATIENTS)
        assert found is not None
        assert (found["flagged"], found["unflagged"]) == ({"cases": 2, "low": 2}, {"cases": 2, "low": 0})

    def test_evaluation_without_estimates_has_no_summary(self) -> None:
        assert quality_summary([patient("a", 0.9, None)]) is None

    def test_single_patient_has_no_rank_correlation(self) -> None:
        found = quality_summary(PATIENTS[:1])
        assert found is not None
        assert found["rank_correlation"] is None

    def test_chart_has_a_point_for_each_estimated_patient(self) -> None:
        found = quality_summary(PATIENTS)
        assert found is not None
        assert (expected_dice(found["cases"]) or "").count("data-case=") == 3
