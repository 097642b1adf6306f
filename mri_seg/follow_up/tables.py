"""The timeline of a patient as a table and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mri_seg.follow_up.rano import LIMITS, VERSION
from mri_seg.follow_up.timeline import QUANTITIES, Change, Estimate, Lesion, Timeline, Velocity
from mri_seg.utils.files import atomic_write, write_json

__all__ = ["NO_PAIRS", "patient_row", "timeline_content", "write_csv", "write_patients", "write_timeline_json"]

NO_PAIRS = (
    "Research software. No pairs of real scans of one patient were at hand when it was made: it was tried on synthetic "
    "series and on real heads imaged again by simulation."
)
"""What every output says about itself."""

_UNITS = {name: unit.replace("mL", "ml") for name, unit in QUANTITIES.items()}
_CHANGED = ("baseline", "previous", "smallest")
_CHANGE_COLUMNS = (
    "ml",
    *(f"{start}{end}" for start in ("percent", "product_percent") for end in ("", "_low", "_high")),
    "within_error",
)
_VELOCITY_COLUMNS = tuple(f"velocity_mm_per_year{end}" for end in ("", "_low", "_high"))


def timeline_content(timeline: Timeline) -> dict[str, Any]:
    """All figures of a timeline, as plain values for JSON."""
    return {
        "patient": timeline.patient,
        "note": NO_PAIRS,
        "flags": timeline.flags,
        "scans": [_scan(timeline, number) for number in range(len(timeline.points))],
        "lesions": [_lesion(lesion) for lesion in timeline.lesions],
        "changes": [_change(timeline, change) for change in timeline.changes],
        "velocities": [
            {name: _velocity(velocity, QUANTITIES[name]) for name, velocity in of_epoch.items()}
            for of_epoch in timeline.velocities
        ],
        "response_criteria": VERSION,
        "response_limits": LIMITS,
        "repeatability": dict(timeline.repeatability),
        "settings": dict(timeline.settings),
    }


def write_timeline_json(path: Path, timeline: Timeline) -> None:
    """Write all figures of a timeline as JSON."""
    write_json(path, timeline_content(timeline))


def write_csv(path: Path, timeline: Timeline) -> None:
    """Write a table with a row for every scan, and one for each of its lesions if there are several."""
    _write_rows(path, [row for number in range(len(timeline.points)) for row in _rows(timeline, number)])


def patient_row(timeline: Timeline) -> dict[str, str]:
    """What a table of all patients says of one: the latest scan, the velocity since its baseline, and flags."""
    latest = _rows(timeline, len(timeline.points) - 1)[0]
    kept = ("volume_ml", "mean_diameter_mm", *_VELOCITY_COLUMNS, "rano_lgg_t2_flair")
    return {
        "patient": timeline.patient,
        "status": "followed",
        "scans": str(len(timeline.points)),
        "first_date": _date(timeline, 0),
        "last_date": latest["date"],
        **{name: latest[name] for name in kept},
        "flags": " ".join(dict.fromkeys(flag["name"] for flag in timeline.flags)),
        "error": "",
    }


def write_patients(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table of all patients.

    Args:
        path: the file to write.
        rows: results of :py:func:`patient_row`; and ``patient``, ``status`` and ``error`` of those that failed.
    """
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    columns = max(rows, key=len) if rows else {}  # all rows have the columns of the longest, or fewer
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic_write(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8")


def _date(timeline: Timeline, number: int) -> str:
    date = timeline.points[number].date
    return "" if date is None else date.isoformat()


def _rows(timeline: Timeline, number: int) -> list[dict[str, Any]]:
    point, response = timeline.points[number], timeline.responses[number]
    common = {
        "patient": timeline.patient,
        "case": point.case,
        "date": _date(timeline, number),
        "event": point.scan.event,
        "years": "" if point.years is None else f"{point.years:.3f}",
    }
    row = {**common, "lesion": "all", **_columns(point.values)}
    row |= {f"change_from_{against}_{name}": "" for against in _CHANGED for name in _CHANGE_COLUMNS}
    for change in timeline.changes:
        if change.last == number:
            row[f"change_from_{change.against}_ml"] = _number(change.difference["volume"].value)
            for name, start in (("volume", "percent"), ("product", "product_percent")):
                for end in Estimate._fields if name in change.percent else ():
                    column = f"change_from_{change.against}_{start}" + ("" if end == "value" else f"_{end}")
                    row[column] = _number(getattr(change.percent[name], end))
            row[f"change_from_{change.against}_within_error"] = str(change.within_error["volume"]).lower()
            if change.against == "baseline":
                row |= {f"{name}_ml": _number(value) for name, value in change.voxels_ml.items()}
    row |= {name: row.get(name, "") for name in ("gained_ml", "lost_ml", "stable_ml")}
    velocity = timeline.velocities[point.epoch].get("mean_diameter")
    for name, end in zip(_VELOCITY_COLUMNS, Estimate._fields, strict=True):
        row[name] = "" if velocity is None else _number(getattr(velocity.estimate, end))
    row["rano_lgg_t2_flair"] = "baseline" if response is None else response.category
    row["flags"] = " ".join(flag["name"] for flag in point.scan.flags)
    lesions = [
        {**common, "lesion": str(lesion.number), **_columns(values)}
        for lesion in timeline.lesions
        if len(timeline.lesions) > 1 and (values := lesion.values[number]) is not None
    ]
    return [row, *lesions]


def _columns(values: Mapping[str, Estimate]) -> dict[str, str]:
    return {
        f"{name}_{unit}" + ("" if end == "value" else f"_{end}"): _number(getattr(values[name], end))
        for name, unit in _UNITS.items()
        for end in Estimate._fields
    }


def _number(value: float) -> str:
    return f"{value:.3f}"


def _scan(timeline: Timeline, number: int) -> dict[str, Any]:
    point, response = timeline.points[number], timeline.responses[number]
    return {
        "case": point.case,
        "files": point.scan.files,
        "date": None if point.date is None else point.date.isoformat(),
        "event": point.scan.event,
        "years": point.years,
        "epoch": point.epoch,
        **_values(point.values),
        "lesion_count": point.measurements["lesion_count"],
        "response": "baseline" if response is None else response.category,
        "response_reason": "" if response is None else response.reason,
        "from_first_ras": point.from_first.tolist(),
        "registration": dict(point.quality),
        "flags": point.scan.flags,
    }


def _values(values: Mapping[str, Estimate]) -> dict[str, Any]:
    return {f"{name}_{unit}": values[name]._asdict() for name, unit in _UNITS.items()}


def _lesion(lesion: Lesion) -> dict[str, Any]:
    return {
        "number": lesion.number,
        "values": [None if values is None else _values(values) for values in lesion.values],
        "parts": lesion.parts,
        "new_at": lesion.new_at,
        "measurable": lesion.measurable,
        "velocity": None if lesion.velocity is None else _velocity(lesion.velocity, "mm"),
    }


def _change(timeline: Timeline, change: Change) -> dict[str, Any]:
    return {
        "from": timeline.points[change.first].case,
        "to": timeline.points[change.last].case,
        "against": change.against,
        "difference": {f"{name}_{unit}": change.difference[name]._asdict() for name, unit in _UNITS.items()},
        "percent": {name: estimate._asdict() for name, estimate in change.percent.items()},
        "within_measurement_error": change.within_error,
        "voxels_ml": change.voxels_ml,
    }


def _velocity(velocity: Velocity, unit: str) -> dict[str, Any]:
    return {
        "unit": f"{unit} a year",
        **velocity.estimate._asdict(),
        "within_measurement_error": velocity.within_error,
        "scans": velocity.scans,
        "years": velocity.years,
        "interval_from": velocity.error,
    }
