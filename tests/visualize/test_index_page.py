"""The table of all cases: its columns, and how long it takes for many."""

from __future__ import annotations

from pathlib import Path

import pytest

from mri_seg.visualize.index_page import COLUMNS, Column, index_page, write_index


def row(case: str, **more: str) -> dict[str, str]:
    return {"case": case, "status": "done", "error": "", "flags": "", "warnings": "", "input": "", **more}


def rendered(*rows: dict[str, str], **more: object) -> str:
    return index_page(rows, lambda _: None, **more)


class TestColumns:
    def test_columns_without_a_value_are_left_out(self) -> None:
        page = rendered(row("a", volume_ml="12.345", lesion_count="0"))
        assert "volume (mL)" in page
        assert '<td data-value="12.345">12.3</td><td data-value="0">0</td>' in page
        assert "volume (voxels)" not in page
        assert "longest diameter" not in page

    def test_volumes_of_different_units_are_in_columns_of_their_own(self) -> None:
        page = rendered(row("a", volume_ml="12.3"), row("b", volume_voxels="1234"))
        assert "volume (mL)" in page
        assert '<td data-value=""></td><td data-value="1234">1,234</td>' in page

    def test_values_that_are_no_numbers_are_shown_as_they_are(self) -> None:
        page = rendered(row("a", volume_ml="12,5"), row("b", volume_ml="7"))
        assert '<td data-value="">12,5</td>' in page
        assert '<td data-value="7">7.0</td>' in page

    def test_columns_can_be_added(self) -> None:
        page = rendered(row("a", snr="0.91"), columns=[*COLUMNS, Column("signal to noise", "snr", 2)])
        assert '<td data-value="0.91">0.91</td>' in page


class TestOrder:
    def test_failed_and_unestimated_cases_come_before_the_lowest_expected_dice(self) -> None:
        rows = [
            row("good", expected_dice="0.91"),
            row("empty"),
            row("bad", expected_dice="0.305"),
            row("broken", status="failed"),
        ]
        page = rendered(*rows)
        assert [page.index(f">{name}<") for name in ("broken", "empty", "bad", "good")] == sorted(
            page.index(f">{one['case']}<") for one in rows
        )
        assert "The worst come first" in page
        assert '<td data-value="0.305">0.30</td>' in page or '<td data-value="0.305">0.31</td>' in page

    def test_cases_keep_their_order_if_none_has_an_expected_dice(self) -> None:
        page = rendered(row("b"), row("a", status="failed"))
        assert page.index(">b<") < page.index(">a<")
        assert "The worst come first" not in page


class TestCases:
    def test_warnings_and_reasons_are_text(self) -> None:
        page = rendered(
            row("a", flags="few_values;coronal", warnings="It is <coronal>."),
            row("b<i>", status="failed", error="cannot be <read>"),
        )
        assert "few_values, coronal" in page
        assert "It is &lt;coronal&gt;." in page
        assert "cannot be &lt;read&gt;" in page
        assert "b&lt;i&gt;" in page

    def test_counts_are_those_of_the_rows(self) -> None:
        rows = [row("a"), row("b", status="kept", flags="coronal"), row("c", status="failed", error="away")]
        assert " ".join(rendered(*rows).partition("<p>")[2].partition("</p>")[0].split()).startswith(
            "3 cases: 1 done, 1 kept from an earlier run, 1 failed; 1 with warnings."
        )

    def test_page_without_cases_is_written(self, tmp_path: Path) -> None:
        assert write_index(tmp_path, {}, {}) == tmp_path / "index.html"
        assert "0 cases:" in (tmp_path / "index.html").read_text(encoding="utf-8")

    def test_case_whose_page_was_removed_has_no_link(self, tmp_path: Path) -> None:
        write_index(tmp_path, {"a": row("a")}, {})
        assert "<a " not in (tmp_path / "index.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize("beginning", ["", "<h1>Mine</h1>"])
    def test_page_of_somebody_else_is_not_replaced(self, tmp_path: Path, beginning: str) -> None:
        (tmp_path / "index.html").write_text(beginning)
        assert write_index(tmp_path, {"a": row("a")}, {}) is None
        assert (tmp_path / "index.html").read_text() == beginning
