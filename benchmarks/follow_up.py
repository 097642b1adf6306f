"""Measure whether growth is found: phantom series with known growth, through the network and with the true masks.

    python benchmarks/follow_up.py --series 500 --results runs/follow_up_benchmark.jsonl
    python benchmarks/follow_up.py --series 20                      # a trial
    python benchmarks/follow_up.py --real --dataset_dir data/kaggle_3m --results runs/real_growth.jsonl

Each series is a synthetic patient whose tumour's mean diameter grows evenly, by 0 to 15 mm a year (a third of them do
not grow), with 2 to 6 scans over 0.5 to 6 years. Each scan has another pose, offset of its slices, contrast, shading
and noise. Every scan is segmented by the shipped weights in float32, to the mask that the command gives, but without
its checks of the image, which cost as much again. Velocity, interval and category are computed as ``mri-seg follow``
does, and the same with the true masks beside it.

Velocity needs no registration, since every mask is measured in its own grid. Registration decides whether a lesion is
new. So a series is registered and its lesions are tracked, as the command does, if any scan shows anything but a single
lesion that can count (both diameters at least 10 mm) and that is the true tumour in the main; and every 25th series in
any case, whose transforms are compared with the true ones. ``--follow_every 1`` does so for all.

For the first ``--prior`` series, the probability of the scan before, brought to the scan by the true transform, is also
mixed into its probability with weights of 0.1 and 0.2: does a weak prior make growth more exact, or damp it?

``--real`` takes real heads whose real lesion is scaled in place instead: see ``real_growth.py``.

A series is a line of the results, which is written when it is done: the program can be stopped, and the same command
resumes it. Processes may share the work by ``--first`` and ``--series``: all append to the same file. The lines hold
volumes and products, so that ``--only_table`` computes velocities, intervals and categories again in seconds, such as
with another measurement error (``--repeatability``).
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_growth
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from robustness import Model
from scipy.stats import beta
from segmented import OPTIONS, cleaning

from mri_seg.datasets.phantom import PhantomPatient, PhantomScan
from mri_seg.follow_up.engine import make_timeline
from mri_seg.follow_up.growth import velocity_of
from mri_seg.follow_up.rano import response_of
from mri_seg.follow_up.registration import resample
from mri_seg.follow_up.repeatability import (
    critical_difference,
    load_repeatability,
    repeatability_of,
    standard_deviation,
)
from mri_seg.follow_up.timeline import DAYS_PER_YEAR, QUANTITIES, Scan, Timeline
from mri_seg.follow_up.tracking import MEASURABLE
from mri_seg.measurements.lesions import label_lesions, mean_diameter, measure
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.files import sha256

WEIGHTS = Path(__file__).resolve().parent.parent / "bundle" / "models" / "model.pt"
FIRST_DAY = datetime.date(2015, 1, 1)
SPANS = ((0.5, 1), (1, 2), (2, 3), (3, 4), (4, 6))
STABLE_SHARE = 1 / 3
PROGRESSION = "progressive disease"
PRIORS = (0.0, 0.1, 0.2)
NO_ERROR = {name: {"absolute_sd": 0.0, "relative_sd": 0.0} for name in QUANTITIES}
"""Measurement error with which lesions are tracked; the real one is applied when the tables are made."""


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
    largest = 0.98 * mean_diameter(patient.tumor.max_volume)
    years = np.array(planned["days"]) / DAYS_PER_YEAR
    first = min(planned["first_diameter"], 0.8 * largest)
    velocity = min(planned["velocity"], (largest - first) / years[-1])
    return [patient.scan(n, diameter=first + velocity * time) for n, time in enumerate(years)], float(velocity)


def of_series(
    seed: int, index: int, segment: Callable[[PhantomScan], tuple[np.ndarray, np.ndarray]], *, follow: bool, prior: bool
) -> dict[str, Any]:
    """Segment a series: its truth, and what was measured in each scan, through the network and with the true masks."""
    began = time.perf_counter()
    planned = plan(seed, index)
    scans, velocity = scans_of(seed, index, planned)
    seconds = {"scans": time.perf_counter() - began}
    began = time.perf_counter()
    masks, probabilities = zip(*map(segment, scans), strict=True)
    seconds["segmentation"] = time.perf_counter() - began
    began = time.perf_counter()
    row: dict[str, Any] = {"seed": seed, "index": index, **planned, "true_velocity": velocity}
    row |= {"true_volumes": [scan.volume for scan in scans], "dice": list(map(dice, masks, scans))}
    row["expected_dice"] = [real_growth.expected_dice(probability) for probability in probabilities]
    row["network"] = {"scans": list(map(measured, masks, scans)), "new": []}
    row["masks"] = {"scans": [measured(scan.mask, scan) for scan in scans], "new": []}
    if follow or not all(map(only_the_tumor, masks, scans)):
        days = [FIRST_DAY + datetime.timedelta(days=day) for day in planned["days"]]
        followed = [
            Scan(f"scan {n + 1}", scan.image, mask, scan.affine, day)
            for n, (scan, mask, day) in enumerate(zip(scans, masks, days, strict=True))
        ]
        try:
            timeline = make_timeline(f"{seed}-{index}", followed, repeatability=NO_ERROR)
        except ValueError as error:
            row["error"] = str(error)
        else:
            row["network"]["new"] = new_lesions(timeline)
            row["registration_mm"] = [
                misplaced(point.from_first, scans[0], scan) for point, scan in zip(timeline.points[1:], scans[1:])
            ]
    seconds["following"] = time.perf_counter() - began
    if prior:
        row["prior"] = {str(weight): with_prior(scans, probabilities, weight) for weight in PRIORS}
    return row | {"seconds": seconds}


def dice(mask: np.ndarray, scan: PhantomScan) -> float:
    """Dice of a mask with the true one."""
    return float(2 * (mask & scan.mask).sum() / max(mask.sum() + scan.mask.sum(), 1))


def measured(mask: np.ndarray, scan: PhantomScan) -> dict[str, float]:
    """What is followed of a mask, as :py:func:`mri_seg.follow_up.tracking.values_of` takes it."""
    return real_growth.figures(mask, scan.affine)


def only_the_tumor(mask: np.ndarray, scan: PhantomScan) -> bool:
    """Whether a mask has one lesion that could count as new, and it is the true tumour: no new lesion can be found.

    True tumours of a series hold one another, so that lesions that cover more than half of them overlap.
    """
    lesions = measure(mask, scan.affine)["lesions"]
    wide = [min(one["longest_diameter_mm"], one["perpendicular_diameter_mm"]) >= MEASURABLE for one in lesions]
    if sum(wide) != 1:
        return False
    labels, _ = label_lesions(mask)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    both = int((largest & scan.mask).sum())
    return wide[0] and 2 * both > scan.mask.sum() and 2 * both > largest.sum()


def new_lesions(timeline: Timeline) -> list[dict[str, Any]]:
    """Lesions that are new at some scan: which, whether they are wide enough to count, and their volume in each."""
    return [
        {
            "new_at": lesion.new_at,
            "wide": lesion.measurable,  # with no error, their diameters alone decide
            "volumes": [None if value is None else value["volume"].value for value in lesion.values],
        }
        for lesion in timeline.lesions
        if lesion.new_at is not None
    ]


def true_transform(first: PhantomScan, later: PhantomScan) -> np.ndarray:
    """From mm in one scan to mm in another ``(4, 4)``."""
    return np.linalg.inv(later.to_head) @ first.to_head


def misplaced(found: np.ndarray, first: PhantomScan, later: PhantomScan) -> float:
    """Mean distance in mm between where a transform puts the brain of the first scan, and where it is."""
    corners = np.array(np.meshgrid([-50, 50], [-75, 50], [-30, 50])).reshape(3, -1).T  # of the head, in mm
    points = apply_affine(np.linalg.inv(first.to_head), corners)
    off = apply_affine(found, points) - apply_affine(true_transform(first, later), points)
    return float(np.linalg.norm(off, axis=1).mean())


def with_prior(
    scans: Sequence[PhantomScan], probabilities: Sequence[np.ndarray], weight: float
) -> list[dict[str, float]]:
    """What is followed if the earlier scan's probability, in the true place, has a weight in each later one's."""
    clean = cleaning(OPTIONS)
    found = []
    for n, (scan, own) in enumerate(zip(scans, probabilities, strict=True)):
        affine, mixed = torch.from_numpy(scan.affine), own
        if n and weight:
            to_earlier = true_transform(scan, scans[n - 1])
            grid = (own.shape, scan.affine)
            before, inside = resample(probabilities[n - 1], scans[n - 1].affine, to_earlier, *grid)
            mixed = np.where(inside, (1 - weight) * own + weight * before, own)
        pred = MetaTensor(torch.from_numpy(mixed[None] >= OPTIONS["threshold"]), affine=affine)
        brain = MetaTensor(torch.from_numpy(brain_mask(scan.image)[None]), affine=affine)
        found.append(measured(clean({"pred": pred, "brain": brain})["pred"].numpy()[0] > 0, scan))
    return found


def velocity_and_responses(
    found: Mapping[str, Any], years: Sequence[float], repeatability: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Velocity of diametric expansion, and the category of each later scan, from what was measured in all scans."""
    scans = found["scans"]
    velocity = velocity_of(years, [scan["mean_diameter"] for scan in scans], "mean_diameter", repeatability)
    assert velocity is not None  # a series has two scans or more
    products = [scan["product"] for scan in scans]
    categories = []
    for n in range(1, len(scans)):
        new = [lesion for lesion in found["new"] if counts(lesion, n, repeatability)]
        response = response_of(products[: n + 1], ["found"] * len(new), repeatability, visible=bool(scans[n]["volume"]))
        categories.append(response.category)
    return velocity.estimate, categories


def counts(lesion: Mapping[str, Any], n: int, repeatability: Mapping[str, Any]) -> bool:
    """Whether a lesion counts as new in a scan: it is there, was new by then, and was wide and beyond error then."""
    if lesion["new_at"] > n or not lesion["wide"] or lesion["volumes"][n] is None:
        return False
    volume = lesion["volumes"][lesion["new_at"]]
    return bool(volume > critical_difference(1) * standard_deviation(repeatability, "volume", volume))


def rate(hits: Iterable[bool]) -> str:
    """A rate in percent with its 95 % interval (Clopper and Pearson)."""
    values = list(hits)
    if not values:
        return "-"
    k, n = sum(values), len(values)
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return f"{100 * k / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}; n = {n})"


def tables(rows: Sequence[Mapping[str, Any]], repeatability: Mapping[str, Any]) -> str:
    """The results in Markdown: velocity error and coverage by span, and false progressions by number of scans."""
    kinds = ("network", "masks")
    failed = sum("error" in row for row in rows)
    lines = [f"{len(rows)} series, {failed} in which a scan could not be registered, which do not count."]
    lowest = [min(row["expected_dice"]) for row in rows if "expected_dice" in row]
    if lowest:
        lines[-1] += f" The lowest expected Dice of a series' scans is {np.median(lowest):.2f} in the median."
    if len(lowest) < len(rows):  # lines of an earlier version of this program
        lines[-1] += f" It is known of {len(lowest)} series, for which alone intervals and categories count."
    lines.append("")
    lines += ["| span | masks | median error | mean error | within 1 mm a year | interval holds the truth |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    results: dict[str, list[tuple[float, float, Any, bool]]] = {kind: [] for kind in kinds}
    false: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for row in rows:
        years = [day / DAYS_PER_YEAR for day in row["days"]]
        for kind in kinds if "error" not in row else ():  # the command would not follow the patient either
            error = repeatability_of(repeatability, row.get("expected_dice", [None]))
            velocity, categories = velocity_and_responses(row[kind], years, error)
            results[kind].append((years[-1], row["true_velocity"], velocity, "expected_dice" in row))
            if row["true_velocity"] == 0 and "expected_dice" in row:
                for n, category in enumerate(categories, start=2):
                    false[n, kind].append(category == PROGRESSION)
                    false[0, kind].append(category == PROGRESSION)
    for low, high in (*SPANS, (3, 6), (0.5, 6)):
        for kind in kinds:
            own = [(truth, found, known) for span, truth, found, known in results[kind] if low <= span < high + 0.01]
            if not own:
                continue
            errors = np.array([found.value - truth for truth, found, _ in own])
            holds = rate(found.low <= truth <= found.high for truth, found, known in own if known)
            lines.append(
                f"| {low:g} to {high:g} years | {kind} | {np.median(np.abs(errors)):.2f} mm a year | "
                f"{errors.mean():+.2f} | {rate(np.abs(errors) <= 1)} | {holds} |"
            )
    spans = [(row["days"][-1] / DAYS_PER_YEAR, row["true_velocity"]) for row in rows]
    highest = [max((v for span, v in spans if low <= span < high + 0.01), default=0.0) for low, high in SPANS]
    lines += ["", "Highest true velocity by span, as a tumour must fit into the head: "]
    lines[-1] += ", ".join(f"{v:.0f} ({low:g} to {high:g} years)" for v, (low, high) in zip(highest, SPANS)) + "."
    lines += ["", "| velocity | measured on true velocity, spans of 2 years and more |", "| --- | --- |"]
    for kind in kinds:
        pairs = np.array([(truth, found.value) for span, truth, found, _ in results[kind] if span >= 2])
        if len(pairs) > 2:
            lines.append(f"| {kind} | slope {np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0]:.2f} |")
    lines += ["", "False progressions of stable series, by number of scans since the baseline:", ""]
    lines += ["| scans | network | masks |", "| --- | --- | --- |"]
    for n in [*sorted({n for n, _ in false} - {0}), 0]:
        name = "all comparisons" if n == 0 else f"{n}"
        lines.append(f"| {name} | {rate(false[n, 'network'])} | {rate(false[n, 'masks'])} |")
    off = [mm for row in rows for mm in row.get("registration_mm", [])]
    if off:
        lines += [
            "",
            f"{len(off)} scans were registered, {sum('registration_mm' in row for row in rows)} series; the brain was "
            f"{np.median(off):.1f} mm from its true place (median; 95 % under {np.percentile(off, 95):.1f} mm).",
        ]
    lines += ["", *prior_table(rows)]
    scores = [score for row in rows for score in row["dice"]]
    count = len(scores)
    parts = [f"{sum(row['seconds'][part] for row in rows) / count:.1f} s {part}" for part in rows[0]["seconds"]]
    lines += [f"Dice of the network's masks: {np.mean(scores):.3f} (mean). A scan took {', '.join(parts)} (means)."]
    return "\n".join(lines)


def prior_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Velocity error and damping by the weight of the earlier scan's probability, in Markdown."""
    own = [row for row in rows if "prior" in row and row["days"][-1] >= DAYS_PER_YEAR]
    if len(own) < 3:
        return []
    lines = ["| weight of the earlier scan | series of a year or more | median error | RMS error | slope |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for weight in PRIORS:
        pairs = []
        for row in own:
            years = [day / DAYS_PER_YEAR for day in row["days"]]
            diameters = [scan["mean_diameter"] for scan in row["prior"][str(weight)]]
            found = velocity_of(years, diameters, "mean_diameter", NO_ERROR)
            pairs.append((row["true_velocity"], 0.0 if found is None else found.estimate.value))
        truth, found = np.array(pairs).T
        lines.append(
            f"| {weight:g} | {len(own)} | {np.median(np.abs(found - truth)):.2f} mm a year | "
            f"{np.sqrt(np.mean((found - truth) ** 2)):.2f} | {np.polyfit(truth, found, 1)[0]:.3f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="first series, so that several processes share the work")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, help="weights (default: the shipped ones)")
    parser.add_argument("--follow_every", type=int, default=25, help="register every so many series in any case")
    parser.add_argument("--prior", type=int, default=60, help="series in which a prior is tried")
    parser.add_argument("--repeatability", type=Path, help="measurement error (default: the shipped one)")
    parser.add_argument("--complete", action="store_true", help="add the expected Dice to lines that lack it")
    parser.add_argument("--only_table", action="store_true")
    parser.add_argument("--real", action="store_true", help="real heads whose lesion is scaled")
    parser.add_argument("--heads", type=int, default=20, help="of --real")
    parser.add_argument("--dataset_dir", default="data/kaggle_3m", help="of --real")
    parser.add_argument("--runs", nargs="*", default=[], metavar="DU=WEIGHTS", help="of --real: left-out weights")
    given = parser.parse_args()
    repeatability = load_repeatability(given.repeatability)
    if given.real:
        results = given.results or Path("runs/real_growth.jsonl")
        real_growth.run(given.dataset_dir, given.runs, given.heads, given.seed, results, only_table=given.only_table)
        print(real_growth.table(results, given.runs, given.seed, repeatability, rate))
        return
    results = given.results or Path("runs/follow_up_benchmark.jsonl")
    about = {"weights": sha256(given.checkpoint), "options": OPTIONS}
    rows = []
    if results.is_file():
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    rows = [
        row for row in rows if row["seed"] == given.seed and row["index"] < given.series and {**row, **about} == row
    ]
    rows = list({row["index"]: row for row in rows}.values())  # the last line of each series
    done = {row["index"] for row in rows}
    if not given.only_table:
        model = Model(given.checkpoint)

        def segment(scan: PhantomScan) -> tuple[np.ndarray, np.ndarray]:
            mask = model(MetaTensor(torch.from_numpy(scan.image[None]), affine=torch.from_numpy(scan.affine)))
            return mask, model.probability

        results.parent.mkdir(parents=True, exist_ok=True)
        for index in range(given.first, given.series):
            if index not in done:
                follow, prior = index % given.follow_every == 0, index < given.prior
                row = of_series(given.seed, index, segment, follow=follow, prior=prior) | about
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                rows.append(row)
        for row in rows if given.complete else ():
            if "expected_dice" not in row:
                scans, _ = scans_of(given.seed, row["index"], row)
                row["expected_dice"] = [real_growth.expected_dice(segment(scan)[1]) for scan in scans]
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    print(tables(rows, repeatability) if rows else f"{results}: no series of these weights and this seed yet.")


if __name__ == "__main__":
    main()
