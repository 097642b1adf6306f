"""Series of real heads whose real lesion is scaled about its middle, by a known growth.

    python benchmarks/follow_up.py --real --dataset_dir data/kaggle_3m --results runs/real_growth.jsonl

Inside the lesion the image is that of the real lesion, enlarged; over 3 mm around its border it passes into the image
that was there before. The lesion stays inside the brain. A third of the heads do not grow, the others by 1 to 8 mm of
mean diameter a year. Three scans over 1 to 5 years are each imaged again as in ``repeatability.py``, and segmented by
weights that have not seen the head's institution. The true velocity is that of the scaled masks.

Heads are those whose largest lesion holds nine tenths of the mask and has a mean diameter of 20 to 50 mm, evenly taken
from the three institutions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from repeatability import affine_of, expected_dice, figures, imaged_again, runs_of
from robustness import Model
from scipy import ndimage
from segmented import OPTIONS
from slice_distance import read_distances

from mri_seg.datasets.lgg import datalist
from mri_seg.follow_up.growth import velocity_of
from mri_seg.follow_up.repeatability import repeatability_of
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import label_lesions
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.files import sha256

SCANS = 3
LARGEST_FACTOR = 1.6
BORDER = 3.0  # mm
DIAMETERS = (20.0, 50.0)  # mm, of the lesion before it grows
STABLE_SHARE = 1 / 3


def scaled(
    volume: np.ndarray, label: np.ndarray, brain: np.ndarray, factor: float, steps: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge the largest lesion of a head about its middle.

    Args:
        volume: intensities ``(H, W, D)``.
        label: the lesions, bool.
        brain: the brain, bool; nothing outside it changes.
        factor: from the old size to the new one, 1 or more.
        steps: distance of rows, columns and slices in mm.

    Returns:
        the image, float32, and the mask.
    """
    if factor == 1:
        return volume.astype(np.float32), label
    labels, _ = label_lesions(label)
    lesion = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    middle = np.array(ndimage.center_of_mass(lesion))
    move = {"matrix": np.full(3, 1 / factor), "offset": middle * (1 - 1 / factor), "order": 1}
    image = ndimage.affine_transform(volume.astype(np.float32), mode="nearest", **move)
    grown = (ndimage.affine_transform(lesion.astype(np.float32), **move) >= 0.5) & brain | lesion
    weight = np.clip(1 - ndimage.distance_transform_edt(~grown, sampling=steps) / BORDER, 0, 1) * (brain | grown)
    return (weight * image + (1 - weight) * volume).astype(np.float32), label | grown


def plan(seed: int, index: int, diameter: float) -> tuple[list[float], float]:
    """Times of the scans in years, and the velocity in mm a year."""
    rng = np.random.default_rng([seed, index, 98])
    span, inner = rng.uniform(1, 5), rng.uniform(0.3, 0.7)
    fastest = (LARGEST_FACTOR - 1) * diameter / span
    velocity = 0.0 if rng.uniform() < STABLE_SHARE else min(float(rng.uniform(1, 8)), fastest)
    return [0.0, float(span * inner), float(span)], velocity


def of_head(
    model: Model, item: Mapping[str, Any], affine: np.ndarray, diameter: float, seed: int, index: int
) -> dict[str, Any]:
    """Follow a head: truth, and what was measured in each scan, through the network and in the moved masks."""
    years, velocity = plan(seed, index, diameter)
    volume, label = item["image"].numpy()[0], item["label"].numpy()[0] > 0
    brain, steps = brain_mask(volume), np.abs(affine[:3, :3]).sum(0)
    row: dict[str, Any] = {"years": years, "truth": [], "network": [], "mask": [], "expected_dice": []}
    for number, time in enumerate(years):
        image, mask = scaled(volume, label, brain, 1 + velocity * time / diameter, steps)
        row["truth"].append(figures(mask, affine))
        rng = np.random.default_rng([seed, index, number])
        image, mask, grid, _ = imaged_again(image, mask, affine, rng)
        pred = model(MetaTensor(torch.from_numpy(image[None]), affine=torch.from_numpy(grid)))
        row["network"].append(figures(pred, grid))
        row["expected_dice"].append(expected_dice(model.probability))
        row["mask"].append(figures(mask, grid))
    return row


def heads_of(dataset_dir: str, place: str, number: int) -> list[tuple[str, Mapping[Any, Any], np.ndarray, float]]:
    """Some heads of an institution, evenly taken: name, volumes, affine, and mean diameter of their lesion."""
    load, distances = LoadVolumed(["image", "label"]), read_distances()
    fitting = []
    for case in datalist(dataset_dir, f"institution/{place}", "validation", True):
        item = load(dict(case))
        affine = affine_of(distances[case["case"]].mm)
        label = item["label"].numpy()[0] > 0
        sizes = np.bincount(label_lesions(label)[0].ravel())[1:]
        diameter = figures(label, affine)["mean_diameter"]
        if len(sizes) and sizes.max() >= 0.9 * sizes.sum() and DIAMETERS[0] <= diameter <= DIAMETERS[1]:
            fitting.append((case["case"], case, affine, diameter))
    chosen = np.unique(np.linspace(0, len(fitting) - 1, min(number, len(fitting))).round().astype(int))
    return [(name, load(dict(case)), affine, diameter) for name, case, affine, diameter in (fitting[n] for n in chosen)]


def run(
    dataset_dir: str, given: Sequence[str], heads: int, seed: int, results: Path, *, only_table: bool = False
) -> None:
    """Follow the heads that the results do not hold yet; each is a line of them."""
    if only_table:
        return
    runs = list(runs_of(given))
    results.parent.mkdir(parents=True, exist_ok=True)
    for n, (place, weights) in enumerate(runs):
        digest = sha256(weights)
        done = {row["case"] for row in read(results, [digest], seed)}
        model = Model(weights)
        share = heads // len(runs) + (n < heads % len(runs))
        if not share:
            continue
        for index, (name, item, affine, diameter) in enumerate(heads_of(dataset_dir, place, share)):
            if name not in done:
                row = of_head(model, item, affine, diameter, seed, 100 * n + index)
                row = {"case": name, "institution": place, "weights": digest, "options": OPTIONS, "seed": seed, **row}
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")


def read(results: Path, weights: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The lines of the results of some weights (SHA-256), these options and a seed, the last for each head."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["weights"] in weights and row["seed"] == seed]
    rows = [row for row in rows if row.get("options") == OPTIONS]
    return list({row["case"]: row for row in rows}.values())


def table(
    results: Path, given: Sequence[str], seed: int, repeatability: Mapping[str, Any], rate: Callable[..., str]
) -> str:
    """Velocity error, and which changes are beyond error, in Markdown."""
    rows = read(results, [sha256(weights) for _, weights in runs_of(given)], seed)
    lines = [f"{len(rows)} heads, {SCANS} scans each.", ""]
    lines += ["| masks | median error | mean error | within 1 mm a year | interval holds the truth | slope |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    changes = ["| masks | stable, change within error | growing, change beyond error |", "| --- | --- | --- |"]
    for kind in ("network", "mask"):
        pairs = []
        for row in rows:
            error = repeatability_of(repeatability, row["expected_dice"])
            truth, found = (
                velocity_of(row["years"], [one["mean_diameter"] for one in row[name]], "mean_diameter", error)
                for name in ("truth", kind)
            )
            if truth is not None and found is not None:
                pairs.append((truth.estimate.value, found.estimate, found.within_error))
        if not pairs:
            continue
        true, errors = np.array([one for one, _, _ in pairs]), np.array([two.value - one for one, two, _ in pairs])
        holds = rate(two.low <= one <= two.high for one, two, _ in pairs)
        lines.append(
            f"| {kind} | {np.median(np.abs(errors)):.2f} mm a year | {errors.mean():+.2f} | "
            f"{rate(np.abs(errors) <= 1)} | {holds} | {np.polyfit(true, true + errors, 1)[0]:.2f} |"
        )
        stable = rate(within for one, _, within in pairs if abs(one) < 1e-6)
        growing = rate(not within for one, _, within in pairs if abs(one) >= 1e-6)
        changes.append(f"| {kind} | {stable} | {growing} |")
    return "\n".join([*lines, "", *changes])
