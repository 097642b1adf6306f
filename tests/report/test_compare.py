"""Two evaluations side by side: pairs, interval, and the slices that differ."""

from __future__ import annotations

import json

import pytest

from mri_seg.report.compare import compare


def patients(**dice: float) -> list[dict]:
    return [{"case": case, "dice": value} for case, value in dice.items()]


def slices(case: str, *dice: float, pixels: int = 10) -> list[dict]:
    return [
        {"case": case, "slice": n, "dice": value, "label_pixels": 0, "pred_pixels": pixels}
        for n, value in enumerate(dice, start=1)
    ]


class TestPatients:
    def test_compared_patients_are_paired_by_name(self) -> None:
        found = compare(patients(a=0.9, b=0.5, only=0.1), patients(b=0.7, a=0.8, there=1.0))
        assert found["mean_difference"] == pytest.approx(-0.05)
        assert [(row["case"], round(row["difference"], 6)) for row in found["patients"]] == [("b", -0.2), ("a", 0.1)]
        assert found["patients"][0] == {"case": "b", "dice": 0.5, "other_dice": 0.7, "difference": 0.5 - 0.7}
        assert found["only_here"] == ["only"]
        assert found["only_there"] == ["there"]

    def test_compared_patients_are_counted_as_better_worse_or_equal(self) -> None:
        found = compare(patients(a=0.9, b=0.5, c=0.3, d=0.3), patients(a=0.8, b=0.7, c=0.3, d=0.1))
        assert [found[key] for key in ("better", "worse", "equal")] == [2, 1, 1]

    def test_compared_patients_may_come_as_text_from_a_table(self) -> None:
        assert compare([{"case": "a", "dice": "0.75"}], [{"case": "a", "dice": "0.5"}])["mean_difference"] == 0.25

    def test_share_at_least_one(self) -> None:
        with pytest.raises(ValueError, match="share no patient: this one has a, b, c and 1 more, the other none"):
            compare(patients(a=1, b=1, c=1, d=1), [])


class TestInterval:
    def test_interval_holds_the_mean_and_repeats(self) -> None:
        here = patients(**{f"p{n}": 0.8 + 0.01 * (n % 7) for n in range(20)})
        there = patients(**{f"p{n}": 0.8 for n in range(20)})
        found = compare(here, there)
        low, high = found["interval"]
        assert 0 < low < found["mean_difference"] < high < 0.06
        assert compare(here, there) == found

    def test_interval_is_of_the_differences_not_of_the_values(self) -> None:
        low, high = compare(patients(a=0.1, b=0.9), patients(a=0.0, b=0.8))["interval"]
        assert [low, high] == pytest.approx([0.1, 0.1])

    def test_interval_needs_two_patients(self) -> None:
        assert compare(patients(a=0.9), patients(a=0.8))["interval"] is None


class TestSlices:
    def test_compared_slices_come_with_the_largest_difference_first(self) -> None:
        found = compare(patients(a=1), patients(a=1), slices("a", 0.9, 0.5, 1.0, 0.2), slices("a", 0.8, 0.9, 1.0, 0.1))[
            "slices"
        ]
        assert [row["slice"] for row in found] == [2, 1, 4]  # slice 3 does not differ
        assert found[0] == {"case": "a", "slice": 2, "dice": 0.5, "other_dice": 0.9}

    def test_compared_slices_of_equal_difference_come_by_size(self) -> None:
        here = slices("a", 1.0, pixels=0) + slices("b", 1.0, pixels=0)
        there = slices("a", 0.0, pixels=3) + slices("b", 0.0, pixels=500)
        found = compare(patients(a=1, b=1), patients(a=1, b=1), here, there)["slices"]
        assert [row["case"] for row in found] == ["b", "a"]

    def test_compared_slices_are_matched_when_read_from_a_table_and_not_from_one_alone(self) -> None:
        here = [{"case": "a", "slice": "10", "dice": "0.5"}, {"case": "a", "slice": "11", "dice": "0.1"}]
        found = compare(patients(a=1), patients(a=1), here, [{"case": "a", "slice": 10, "dice": 0.75}])["slices"]
        assert found == [{"case": "a", "slice": 10, "dice": 0.5, "other_dice": 0.75}]

    def test_compared_slices_are_no_more_than_asked_for(self) -> None:
        here, there = slices("a", *[0.5] * 30), slices("a", *[0.6] * 30)
        assert len(compare(patients(a=1), patients(a=1), here, there, most=7)["slices"]) == 7

    def test_compared_slices_are_none_when_none_are_given(self) -> None:
        found = compare(patients(a=0.5, b=0.1), patients(a=1, b=1))
        assert found["slices"] == []
        assert json.loads(json.dumps(found)) == found
