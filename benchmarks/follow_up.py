"""Measure whether growth is found: phantom series with known growth, through the network and with the true masks.

    python benchmarks/follow_up.py --series 500 --results runs/follow_up_benchmark.jsonl
    python benchmarks/follow_up.py --series 20                      # a trial

Each series is a synthetic patient whose tumour's mean diameter grows evenly, by 0 to 15 mm a year (a third of them do
not grow), with 2 to 6 scans over 0.5 to 6 years. Each scan has another pose, offset of its slices, contrast, shading
and noise. Every scan is segmented as the command does, the scans are registered, and velocity, interval and category
are those of ``mri-seg follow``; the same with the true masks, without registration. A series is a line of the results,
which is written when it is done: the program can be stopped, and the same command resumes it. ``--only_table`` prints
the tables of what is there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

import mri_seg
from mri_seg.datasets.phantom import PhantomPatient, PhantomScan
from mri_seg.follow_up.engine import make_timeline
from mri_seg.follow_up.growth import velocity_of
from mri_seg.follow_up.rano import response_of
from mri_seg.follow_up.repeatability import load_repeatability
from mri_seg.follow_up.timeline import DAYS_PER_YEAR, Scan
from mri_seg.follow_up.tracking import values_of
from mri_seg.measurements.lesions import mean_diameter, measure

FIRST_DAY = datetime.date(2015, 1, 1)
SPANS = ((0.5, 1), (1, 2), (2, 3), (3, 4), (4, 6))
STABLE_SHARE = 1 / 3
PROGRESSION = "progressive disease"


def plan(seed: int, index: int) -> dict[str, Any]:
    """Draw the days, the velocity and the first diameter of a series."""
    rng = np.random.default_rng([seed, index, 99])
    span = float(rng.uniform(0.5, 6))
    scans = int(rng.integers(2, 7))
    inner = np.sort(rng.uniform(0.05, 0.95, scans - 2)) * span
    days = [round(years * DAYS_PER_YEAR) for years in (0.0, *inner, span)]
    stable = rng.uniform() < STABLE_SHARE
    return {
        "days": days,
        "velocity": 0.0 if stable else float(rng.uniform(0, 15)),
        "first_diameter": float(rng.uniform(20, 45)),
    }


def scans_of(seed: int, index: int, planned: Mapping[str, Any]) -> tuple[list[PhantomScan], float]:
    """The scans of a series, and its velocity, which is lower if the tumour would not fit into the head."""
    patient = PhantomPatient(seed, index, tumor=True)
    assert patient.tumor is not None
    largest = 0.98 * mean_diameter(patient.tumor.largest_volume)
    years = np.array(planned["days"]) / DAYS_PER_YEAR
    first = min(planned["first_diameter"], 0.8 * largest)
    velocity = min(planned["velocity"], (largest - first) / years[-1])
    return [patient.scan(n, diameter=first + velocity * time) for n, time in enumerate(years)], float(velocity)


def of_series(seed: int, index: int, segmenter: Any, repeatability: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a series: its truth, what was found through the network, and with the true masks."""
    began = time.perf_counter()
    planned = plan(seed, index)
    scans, velocity = scans_of(seed, index, planned)
    row = {"seed": seed, "index": index, **planned, "true_velocity": velocity, "scans": len(scans)}
    row |= {"true_volumes": [scan.volume for scan in scans], "seconds": {"scans": time.perf_counter() - began}}
    began = time.perf_counter()
    masks = [segmenter(scan.image, scan.affine).mask.numpy() > 0 for scan in scans]
    row["seconds"]["segmentation"] = time.perf_counter() - began
    began = time.perf_counter()
    days = [FIRST_DAY + datetime.timedelta(days=day) for day in planned["days"]]
    followed = [
        Scan(f"scan {n + 1}", scan.image, mask, scan.affine, day)
        for n, (scan, mask, day) in enumerate(zip(scans, masks, days, strict=True))
    ]
    try:
        timeline = make_timeline(f"{seed}-{index}", followed, repeatability=repeatability)
    except ValueError as error:
        row["error"] = str(error)
    else:
        found = timeline.velocity
        row["network"] = {
            "volumes": [point.values["volume"].value for point in timeline.points],
            "velocity": None if found is None else found.estimate._asdict(),
            "responses": [response.category for response in timeline.responses if response is not None],
        }
    row["seconds"]["following"] = time.perf_counter() - began
    row["masks"] = with_masks([scan.mask for scan in scans], scans, planned["days"], repeatability)
    return row


def with_masks(
    masks: Sequence[np.ndarray], scans: Sequence[PhantomScan], days: Sequence[int], repeatability: Mapping[str, Any]
) -> dict[str, Any]:
    """Velocity and categories of given masks, without registration, so without new lesions."""
    measured = [values_of(measure(mask, scan.affine), repeatability) for mask, scan in zip(masks, scans, strict=True)]
    years = [day / DAYS_PER_YEAR for day in days]
    found = velocity_of(years, [values["mean_diameter"].value for values in measured], "mean_diameter", repeatability)
    products = [values["product"].value for values in measured]
    return {
        "volumes": [values["volume"].value for values in measured],
        "velocity": None if found is None else found.estimate._asdict(),
        "responses": [
            response_of(products[: n + 1], (), repeatability, visible=bool(masks[n].any())).category
            for n in range(1, len(masks))
        ],
    }


def rate(hits: Iterable[bool]) -> str:
    """A rate in percent with its 95 % interval (Clopper and Pearson)."""
    values = list(hits)
    if not values:
        return "-"
    k, n = sum(values), len(values)
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return f"{100 * k / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}; n = {n})"


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown: velocity error and coverage by span, and false progressions by number of scans."""
    lines = [f"{len(rows)} series, {sum('error' in row for row in rows)} that could not be followed.", ""]
    lines += ["| span | masks | median error | within 1 mm a year | interval holds the truth |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for low, high in (*SPANS, (3, 6), (0.5, 6)):
        for kind in ("network", "masks"):
            own = [
                row
                for row in rows
                if low <= row["days"][-1] / DAYS_PER_YEAR < high + 0.01 and row.get(kind, {}).get("velocity")
            ]
            errors = [row[kind]["velocity"]["value"] - row["true_velocity"] for row in own]
            holds = [
                row[kind]["velocity"]["low"] <= row["true_velocity"] <= row[kind]["velocity"]["high"] for row in own
            ]
            median = f"{np.median(np.abs(errors)):.2f} mm a year" if errors else "-"
            near = rate(abs(error) <= 1 for error in errors)
            lines.append(f"| {low:g} to {high:g} years | {kind} | {median} | {near} | {rate(holds)} |")
    lines += ["", "False progressions of stable series, by number of scans since the baseline:", ""]
    lines += ["| scan | network | masks |", "| --- | --- | --- |"]
    false: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for row in rows:
        if row["true_velocity"] == 0:
            for kind in ("network", "masks"):
                for n, category in enumerate(row.get(kind, {}).get("responses", []), start=2):
                    false[n, kind].append(category == PROGRESSION)
                    false[0, kind].append(category == PROGRESSION)
    for n in [*sorted({n for n, _ in false} - {0}), 0]:
        name = "all comparisons" if n == 0 else f"{n}"
        lines.append(f"| {name} | {rate(false[n, 'network'])} | {rate(false[n, 'masks'])} |")
    seconds = [sum(row["seconds"].values()) / row["scans"] for row in rows]
    if seconds:
        lines += ["", f"A scan took {np.median(seconds):.1f} s (median), phantom, segmentation and following."]
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--results", type=Path, default=Path("runs/follow_up_benchmark.jsonl"))
    parser.add_argument("--checkpoint", type=Path, help="weights (default: the shipped ones)")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--repeatability", type=Path, help="measurement error (default: the shipped one)")
    parser.add_argument("--only_table", action="store_true")
    given = parser.parse_args()
    rows = []
    if given.results.is_file():
        rows = [json.loads(line) for line in given.results.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["seed"] == given.seed and row["index"] < given.series]
    done = {row["index"] for row in rows}
    if not given.only_table:
        options = {} if given.checkpoint is None else {"checkpoint": str(given.checkpoint)}
        segmenter = mri_seg.Segmenter(runtime=given.runtime, **options)
        repeatability = load_repeatability(given.repeatability)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        for index in range(given.series):
            if index not in done:
                row = of_series(given.seed, index, segmenter, repeatability)
                with given.results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                rows.append(row)
    print(tables(rows))


if __name__ == "__main__":
    main()
