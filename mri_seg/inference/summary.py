"""The table of all cases as JSON, for programs: the rows of ``summary.csv`` with numbers and lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.inference.case_quality import QUALITY_KEYS
from mri_seg.utils.files import write_json

__all__ = ["typed_row", "write_summary"]

_WHOLE = ("files", "lesion_count", "volume_voxels")
_NUMBERS = ("volume_ml", *QUALITY_KEYS)
_LISTS = ("flags", "ensemble_sha256")


def write_summary(output_dir: PathLike | str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``summary.json``.

    Args:
        output_dir: folder of the results.
        rows: rows of ``summary.csv``.

    Returns:
        the file: under ``cases`` a dictionary for each row; see :py:func:`typed_row`.
    """
    file = Path(output_dir, "summary.json")
    write_json(file, {"cases": [typed_row(row) for row in rows]})
    return file


def typed_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``summary.csv`` with numbers as numbers, and lists as lists; what is empty or no number is None.

    Example::

        >>> typed_row({"case": "7", "lesion_count": "2", "volume_ml": "", "flags": "a;b"})
        {'case': '7', 'lesion_count': 2, 'volume_ml': None, 'flags': ['a', 'b']}
    """
    return {key: _typed(key, value) for key, value in row.items()}


def _typed(key: str, value: Any) -> Any:
    if key in _LISTS:
        return value.split(";") if value else []
    if key not in (*_WHOLE, *_NUMBERS):
        return value or None
    try:
        return int(value) if key in _WHOLE else float(value)
    except (TypeError, ValueError):
        return None
