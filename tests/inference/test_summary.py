"""The table of cases as JSON: the rows of the CSV, with types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from written_cases import NIFTI, source, table, write

from mri_seg.inference.summary import typed_row
from mri_seg.inference.writer import CaseWriter
from mri_seg.io.cases import search_cases
from mri_seg.utils.case_flags import add_flag

pytestmark = pytest.mark.usefixtures("inputs")


def cases(folder: Path) -> dict[str, dict]:
    return {row["case"]: row for row in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"]}


class TestSummary:
    def test_summary_has_the_rows_of_the_table_with_types(self, tmp_path: Path) -> None:
        case = dict(NIFTI)
        add_flag(case, "odd", "Look.")
        write(CaseWriter(tmp_path), case)
        CaseWriter(tmp_path).remaining([source(["b.nii"], "volume", "b", error="no FLAIR")])
        write(CaseWriter(tmp_path), source(["b.nii"], "volume", "b"))
        rows, csv = cases(tmp_path), table(tmp_path / "summary.csv")
        assert list(rows) == list(csv) == ["a", "b"]
        assert list(rows["a"]) == list(csv["a"])
        assert (rows["a"]["files"], rows["a"]["lesion_count"], rows["a"]["flags"]) == (1, 1, ["odd"])
        assert rows["a"]["volume_ml"] == float(csv["a"]["volume_ml"])
        assert (rows["b"]["flags"], rows["b"]["error"], rows["b"]["ensemble_sha256"]) == ([], None, [])

    def test_failed_case_has_no_numbers(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path)
        writer.remaining([{**NIFTI, "error": "no FLAIR"}])
        row = cases(tmp_path)["a"]
        assert (row["status"], row["error"], row["volume_ml"]) == ("failed", "no FLAIR", None)

    def test_values_that_are_no_numbers_are_none(self) -> None:
        assert typed_row({"files": "many", "volume_ml": "", "case": "007"}) == {
            "files": None,
            "volume_ml": None,
            "case": "007",
        }

    def test_summary_is_no_unknown_file_for_a_later_search(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "flair.nii.gz").touch()
        (tmp_path / "own.json").write_text("{}")
        _, passed_over = search_cases(tmp_path)
        assert [line for line in passed_over.described() if ".json" in line and "result" not in line] == [
            "1 .json file (own.json)"
        ]
