"""Write the page that leads to all cases of a folder: a sortable table with a small picture of each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import mri_seg
from mri_seg.utils.files import atomic_write
from mri_seg.visualize.case_page import thumbnail_of
from mri_seg.visualize.html import script_hash, template_environment, template_source

__all__ = ["COLUMNS", "INDEX_NAME", "Column", "index_page", "write_index"]

logger = logging.getLogger(__name__)

INDEX_NAME = "index.html"

_MARK = '<meta name="generator" content="mri_seg">'
_HEAD = 2**16  # bytes at the beginning of a page, among which its small picture is


class Column(NamedTuple):
    """A column of numbers in the table of cases.

    Attributes:
        title: its header.
        key: where a row holds its value; a column without any value is left out.
        digits: decimals shown.
    """

    title: str
    key: str
    digits: int = 0


COLUMNS = (
    Column("expected Dice", "expected_dice", 2),
    Column("volume (mL)", "volume_ml", 1),
    Column("volume (voxels)", "volume_voxels"),
    Column("lesions", "lesion_count"),
    Column("longest diameter (mm)", "longest_diameter_mm", 1),
    Column("longest diameter (pixels)", "longest_diameter_pixels", 1),
)
"""Columns of numbers, of ``summary.csv`` and ``measurements.csv``; whoever adds one to these tables adds it here."""


def write_index(
    folder: PathLike | str,
    summary: Mapping[str, Mapping[str, Any]],
    measurements: Mapping[str, Mapping[str, Any]],
) -> Path | None:
    """Write ``index.html`` beside ``summary.csv``.

    Args:
        folder: the folder that holds ``summary.csv`` and a folder for each case.
        summary: rows of ``summary.csv`` by case.
        measurements: rows of ``measurements.csv`` by case.

    Returns:
        path of the file; None, with a warning, if there is an ``index.html`` that is not of this program.
    """
    folder = Path(folder)
    path = folder / INDEX_NAME
    if path.is_file() and _MARK not in _beginning(path):
        logger.warning("%s: is not of this program and is kept. Move it away to get the page of cases.", path)
        return None
    rows = [{**measurements.get(case, {}), **_filled(row), "case": case} for case, row in summary.items()]
    content = index_page(rows, lambda row: _page_of(folder, row), title=f"Cases in {folder.resolve().name}")
    with atomic_write(path) as unfinished:
        unfinished.write_text(content, encoding="utf-8")
    return path


def index_page(
    rows: Iterable[Mapping[str, Any]],
    page_of: Callable[[Mapping[str, Any]], tuple[str, str | None] | None],
    *,
    title: str = "Cases",
    columns: Iterable[Column] = COLUMNS,
) -> str:
    """Make the page of all cases.

    Args:
        rows: a row for each case with ``case``, ``status``, ``error``, ``flags`` (names, separated by semicolons),
            ``warnings`` (sentences), ``input`` and the keys of the columns, as text.
        page_of: a function that gives the address of a case's page and its small picture, a data URI; None if the
            case has no page.
        title: title of the page.
        columns: the columns of numbers.

    Returns:
        one HTML document that loads nothing from elsewhere. If cases have an expected Dice, failed cases come first,
        then those without one, then those with the lowest.
    """
    rows = list(rows)
    worst_first = any(row.get("expected_dice") for row in rows)
    if worst_first:
        rows.sort(key=_trust)
    columns = [column for column in columns if any(row.get(column.key) for row in rows)]
    environment = template_environment()
    script = template_source(environment, "tables.js", "index.js")
    status = Counter(row.get("status") for row in rows)
    return environment.get_template("index.html").render(
        mark=_MARK,
        title=title,
        count=len(rows),
        worst_first=worst_first,
        status=[(name, status[name]) for name in ("done", "kept", "failed") if status[name]],
        flagged=sum(bool(row.get("flags")) for row in rows),
        columns=columns,
        cases=[_case(row, page_of(row), columns) for row in rows],
        style=template_source(environment, "base.css", "index.css", "media.css"),
        script=script,
        script_hash=script_hash(script),
        version=mri_seg.__version__,
    )


def _trust(row: Mapping[str, Any]) -> tuple[int, float]:
    """What sorts cases, the worst first: failed ones, those without an expected Dice, then by expected Dice."""
    try:
        return 1, float(row["expected_dice"])
    except (KeyError, TypeError, ValueError):
        return (0 if row.get("status") == "failed" else 1), -1.0


def _case(row: Mapping[str, Any], page: tuple[str, str | None] | None, columns: Iterable[Column]) -> dict[str, Any]:
    """A row of the table as the template shows it."""
    flags = [name for name in (row.get("flags") or "").split(";") if name]
    failed = row.get("status") == "failed"
    return {
        "name": row["case"],
        "status": row.get("status") or "",
        "href": page[0] if page else None,
        "thumbnail": page[1] if page else None,
        "numbers": [_number(row.get(column.key), column.digits) for column in columns],
        "flags": flags,
        "warnings": row.get("warnings") or "",
        "error": row.get("error") or "" if failed else "",
        "checks": len(flags) + (1000 if failed else 0),  # failed cases sort above all others
        "input": row.get("input") or "",
    }


def _number(value: Any, digits: int) -> tuple[str, str]:
    """The value that sorts a cell and the text it shows; both empty if there is none."""
    try:
        return str(value), f"{float(value):,.{digits}f}"
    except (TypeError, ValueError):  # nothing, or what somebody wrote into the table
        return "", str(value or "")


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value not in (None, "")}


def _page_of(folder: Path, row: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Address of a case's page, relative to the folder, and its small picture; None if the case has no page."""
    case = row["case"]
    page = folder / case / f"{case}.html"
    if row.get("status") == "failed" or not page.is_file():
        return None
    return quote(f"{case}/{case}.html"), thumbnail_of(_beginning(page))


def _beginning(page: Path) -> str:
    with page.open("rb") as stream:
        return stream.read(_HEAD).decode("utf-8", errors="replace")
