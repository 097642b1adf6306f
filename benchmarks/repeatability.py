"""Measure how much volume, mean diameter and product differ if the same head is imaged and segmented again.

    python benchmarks/repeatability.py --dataset_dir data/kaggle_3m --results runs/repeatability.jsonl --write
    python benchmarks/repeatability.py --every 20 --images 2 ...        # a trial
    python benchmarks/repeatability.py --results runs/repeatability.jsonl --only_table

Every head of TCGA-LGG is segmented by weights that have not seen its institution: by default those in
``benchmarks/left_out``, else ``--runs DU=WEIGHTS ...`` with the overrides of their config beside them. Each is imaged
again by simulation: shifted, rotated up to 15 degrees in plane and 5 degrees out of it, with other pixels, slices that
are thicker and shifted by up to half of their distance, other noise, bias field, contrast and scalp. The reference mask
goes through the same transforms, so that the error of the simulation itself is known. Training of the weights used
shifts, rotations, other pixels, noise, bias, contrast and scalp of single slices too; rotation out of the plane,
thicker slices and their shift are new to them.

Slices of TCGA-LGG do not say their distance: it is that of ``benchmarks/slice_distance.csv``, an estimate for each
volume. Pixels count as 0.94 mm (``benchmarks/pixel_size.py``). All figures in mm and mL rest on these two.

What cannot be had from thick slices is measured on phantoms (``--phantoms 0`` leaves them out): each is scanned twice
with thinner slices and twice with larger tilts, and segmented by the shipped weights.

``--write`` writes ``mri_seg/follow_up/repeatability.json``. An image is a line of the results, which is written when it
is done: the program can be stopped, and the same command resumes it. All heads are imaged once, then all of them again,
so that what is there covers all heads. Lines of other weights or options of inference than the present ones do not
count.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from robustness import Model
from scipy import ndimage
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation
from segmented import OPTIONS
from slice_distance import read_distances

from mri_seg.datasets.lgg import datalist
from mri_seg.datasets.phantom import PhantomPatient
from mri_seg.follow_up.repeatability import Z
from mri_seg.follow_up.timeline import QUANTITIES
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import bounding_box, mean_diameter, measure
from mri_seg.quality.expected_dice import ExpectedDice, threshold_spread
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.files import read_json, sha256, write_json

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "bundle" / "models" / "model.pt"  # for phantoms
PIXEL = 0.94  # mm
SUBPLANES = 3  # averaged over the thickness of a slice
INSTITUTIONS = ("CS", "DU", "FG", "HT")
PHANTOM_SEED = 31
LEVELS = (0.9, 0.8, 0.0)  # of expected Dice, by which heads have an error of their own
CONDITIONS: dict[str, dict[str, Any]] = {
    "5 mm, usual pose": {},
    "3 mm, usual pose": {"spacing": 3.0},
    "2 mm, usual pose": {"spacing": 2.0},
    "5 mm, nod of 15 degrees": {"angles": (15, 0, 0)},
    "5 mm, tilt of 15 degrees": {"angles": (0, 15, 0)},
}


def imaged_again(
    volume: np.ndarray, label: np.ndarray, affine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image a head again: another grid and pose, then other values.

    Returns:
        the image, the mask, the affine of their grid, and the pose ``(4, 4)``, from mm in it to mm in the volume.
    """
    rows, columns, depth = volume.shape
    pixel, thickness = rng.uniform(0.85, 1.2), rng.uniform(1.0, 1.3)
    angles = (rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(-15, 15))
    middle = affine[:3, :3] @ ((np.array(volume.shape) - 1) / 2) + affine[:3, 3]
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    pose[:3, 3] = middle - pose[:3, :3] @ middle + rng.uniform(-5, 5, 3) * (1, 1, 0)
    planes = max(round(depth / thickness), 3)
    grid = affine.copy()
    grid[:3, :3] = affine[:3, :3] * (pixel, pixel, thickness)
    shape = (round(rows / pixel), round(columns / pixel), planes)
    offset = rng.uniform(-0.5, 0.5)
    grid[:3, 3] = middle - grid[:3, :3] @ ((np.array(shape) - 1) / 2 + (0, 0, offset))
    fine = grid.copy()
    fine[:3, 2] /= SUBPLANES
    fine[:3, 3] = grid[:3, 3] - grid[:3, 2] * (SUBPLANES - 1) / (2 * SUBPLANES)
    to_voxel = np.linalg.inv(affine) @ pose @ fine
    sizes = (*shape[:2], planes * SUBPLANES)
    parts = [
        one.reshape(*shape, SUBPLANES).mean(-1)
        for one in (sampled(volume, to_voxel, sizes), moved(label, to_voxel, sizes))
    ]
    return other_values(parts[0], rng), parts[1] >= 0.5, grid, pose


def sampled(volume: np.ndarray, to_voxel: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sample a volume linearly on a grid, 0 outside; ``to_voxel`` (4, 4) maps voxels of the grid to those of it."""
    return ndimage.affine_transform(
        volume.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], tuple(shape), order=1, prefilter=False
    )


def moved(label: np.ndarray, to_voxel: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sample a mask as :py:func:`sampled` does, where it is: the rest of the grid costs no time."""
    result = np.zeros(shape, dtype=np.float32)
    if not label.any():
        return result
    ends = [(part.start - 1, part.stop) for part in bounding_box(label)]
    corners = np.array([[*corner, 1.0] for corner in np.array(np.meshgrid(*ends)).reshape(3, -1).T])
    places = (corners @ np.linalg.inv(to_voxel).T)[:, :3]
    first = np.clip(np.floor(places.min(0)).astype(int), 0, shape)
    last = np.clip(np.ceil(places.max(0)).astype(int) + 1, first, shape)
    own = to_voxel.copy()
    own[:3, 3] += own[:3, :3] @ first
    result[tuple(slice(a, b) for a, b in zip(first, last))] = sampled(label, own, last - first)
    return result


def other_values(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other contrast, scalp, bias field and noise."""
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, None)
    scaled = np.where(scaled < 1, scaled ** rng.uniform(0.8, 1.25), scaled)
    brain = ndimage.binary_dilation(brain_mask(image), np.ones((5, 5, 1)))
    scaled = np.where(brain, scaled, scaled * rng.uniform(0.6, 1.5))
    slope = rng.uniform(-0.25, 0.25, 3)
    for axis, size in enumerate(image.shape):
        scaled *= np.exp(slope[axis] * np.linspace(-1, 1, size)).reshape([-1 if a == axis else 1 for a in range(3)])
    noise = rng.uniform(0.005, 0.03)
    real, imaginary = (rng.normal(0, noise, image.shape) for _ in range(2))
    return (255 * np.hypot(scaled + real, imaginary)).astype(np.float32)


def affine_of(distance: float) -> np.ndarray:
    """Affine ``(4, 4)`` of a volume of TCGA-LGG whose slices are so many mm apart."""
    return np.array([[0, -PIXEL, 0, 0], [-PIXEL, 0, 0, 0], [0, 0, distance, 0], [0, 0, 0, 1.0]])


def figures(mask: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Volume, mean diameter and product of a mask."""
    found = measure(mask, affine)
    return {
        "volume": found["volume_ml"],
        "mean_diameter": mean_diameter(found["volume_ml"]),
        "product": sum(lesion["bidimensional_product_mm2"] for lesion in found["lesions"]),
    }


@cache
def shipped_estimate() -> ExpectedDice:
    """The estimate of Dice that results of the command have."""
    return ExpectedDice(**read_json(str(WEIGHTS.with_name("quality.json")))["expected_dice"])


def expected_dice(probability: np.ndarray) -> float:
    """Dice that the network expects of its mask, as results of the command have it."""
    return shipped_estimate()(threshold_spread(probability))[0]


def of_image(model: Model, case: Mapping[str, Any], distance: float, number: int, seed: int) -> dict[str, Any]:
    """Image a head again and segment it: figures of prediction and reference."""
    item = LoadVolumed(["image", "label"])(dict(case))
    volume, label = item["image"].numpy()[0], item["label"].numpy()[0] > 0
    affine = affine_of(distance)
    rng = np.random.default_rng([seed, number, *map(ord, str(case["case"])[:40])])
    image, mask, grid, _ = imaged_again(volume, label, affine, rng)
    pred = model(MetaTensor(torch.from_numpy(image[None]), affine=torch.from_numpy(grid)))
    return {"network": figures(pred, grid), "mask": figures(mask, grid), "spread": threshold_spread(model.probability)}


def of_phantom(model: Model, index: int, number: int, condition: str) -> dict[str, Any]:
    """Scan a phantom and segment it: figures of prediction and true mask."""
    scan = PhantomPatient(PHANTOM_SEED, index, tumor=True).scan(number, **CONDITIONS[condition])
    pred = model(MetaTensor(torch.from_numpy(scan.image[None]), affine=torch.from_numpy(scan.affine)))
    spread = threshold_spread(model.probability)
    return {"network": figures(pred, scan.affine), "mask": figures(scan.mask, scan.affine), "spread": spread}


Heads = Mapping[str, Sequence[Mapping[str, Any]]]
"""Images of each head, or scans of each phantom."""


def by_head(rows: Sequence[Mapping[str, Any]]) -> Heads:
    """The images of each head that was imaged twice at least."""
    heads: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        heads[row["case"]].append(row)
    return {name: images for name, images in heads.items() if len(images) > 1}


def within(heads: Heads, kind: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each head; heads in which nothing was found in any image are left out."""
    values = [np.array([image[kind][quantity] for image in images]) for images in heads.values()]
    kept = [one for one in values if one.max() > 0]
    return np.array([one.mean() for one in kept]), np.array([one.var(ddof=1) for one in kept])


def fitted(means: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Absolute and relative standard deviation: variance = absolute^2 + (relative x mean)^2.

    Weighted by the inverse of the expected variance: a variance is known to a fixed share of itself.
    """
    design = np.stack([np.ones_like(means), means**2], axis=1)
    weights = 1 / np.maximum(means**2, np.median(means**2) / 10)
    coefficients = np.zeros(2)
    for _ in range(5):
        coefficients, _ = nnls(design * weights[:, None], variances * weights)
        weights = 1 / np.maximum(design @ coefficients, 1e-9)
    return float(np.sqrt(coefficients[0])), float(np.sqrt(coefficients[1]))


def held(heads: Heads, quantity: str, absolute: float, relative: float) -> float:
    """Share of the pairs of images of a head whose difference is within the repeatability coefficient."""
    inside = []
    for images in heads.values():
        values = [image["network"][quantity] for image in images]
        for n, one in enumerate(values):
            for other in values[:n]:
                half = Z * np.hypot(*(np.hypot(absolute, relative * value) for value in (one, other)))
                inside.append(abs(one - other) <= half)
    return float(np.mean(inside))


def by_expected_dice(heads: Heads) -> Mapping[float, Heads]:
    """Heads by the level of their least sure image; those in which nothing was found once are in none."""
    found: dict[float, dict[str, Sequence[Mapping[str, Any]]]] = {level: {} for level in LEVELS}
    for name, images in heads.items():
        if all(image["network"]["volume"] for image in images):
            lowest = min(shipped_estimate()(image["spread"])[0] for image in images)
            found[next(level for level in LEVELS if lowest >= level)][name] = images
    return found


def errors(heads: Heads) -> dict[str, dict[str, Any]]:
    """Absolute and relative standard deviation of each quantity."""
    found = {}
    for name, unit in QUANTITIES.items():
        absolute, relative = fitted(*within(heads, "network", name))
        found[name] = {"unit": unit, "absolute_sd": round(absolute, 4), "relative_sd": round(relative, 4)}
    return found


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``repeatability.json``."""
    heads = by_head(rows)
    distances = [images[0]["distance"] for images in heads.values()]
    found: dict[str, Any] = {
        "provisional": False,
        "source": f"Measured by benchmarks/repeatability.py: {len(heads)} heads of TCGA-LGG, each by weights that left "
        f"its institution out, {sum(map(len, heads.values()))} images by simulation, {most(heads)} of a head at most. "
        f"Pixels count as {PIXEL} mm; the distance of slices is estimated for each head (median "
        f"{np.median(distances):.1f} mm). No repeated real scans were at hand.",
        "weights": {row["institution"]: row["weights"] for row in rows if row["case"] in heads},
    }
    levels = by_expected_dice(heads)
    by_level = [{"from": level, "heads": len(own), **errors(own)} for level, own in levels.items()]
    return {**found, **errors(heads), "by_expected_dice": by_level}


def most(heads: Heads) -> int:
    """Largest number of images of a head."""
    return max(map(len, heads.values()))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Standard deviation, repeatability coefficient and bias of heads in Markdown."""
    heads = by_head(rows)
    if not heads:
        return "No head was imaged twice yet."
    lines = ["| quantity | of | SD within a head | relative to the head's mean | repeatability coefficient | bias |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, unit in QUANTITIES.items():
        for kind in ("network", "mask"):
            means, variances = within(heads, kind, name)
            sd = float(np.sqrt(variances.mean()))
            relative = 100 * float(np.sqrt((variances / means**2).mean()))
            typical = 100 * float(np.sqrt(np.median(variances / means**2)))
            pairs = [(image["network"][name], image["mask"][name]) for images in heads.values() for image in images]
            one, other = np.array(pairs).T
            bias = f"{(one - other).mean():+.2f} {unit} ({100 * (one.mean() / other.mean() - 1):+.1f} %)"
            lines.append(
                f"| {name.replace('_', ' ')} | {kind} | {sd:.2f} {unit} | {relative:.1f} % (half of the heads under "
                f"{typical:.1f} %) | {Z * 2**0.5 * sd:.2f} {unit} | {bias if kind == 'network' else ''} |"
            )
    lines += [
        "",
        "| heads | quantity | absolute SD | relative SD | differences within the coefficient | by all heads |",
    ]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    overall = errors(heads)
    levels = {f"expected Dice from {level:g}": own for level, own in by_expected_dice(heads).items()}
    for what, own in {"all": heads, **levels}.items():
        of_level = errors(own) if own else {}
        for name, found in of_level.items():
            parts = [(one[name]["absolute_sd"], one[name]["relative_sd"]) for one in (of_level, overall)]
            shares = " | ".join(f"{100 * held(own, name, *one):.0f} %" for one in parts)
            lines.append(
                f"| {what}, {len(own)} | {name.replace('_', ' ')} | {found['absolute_sd']:.2f} {found['unit']} | "
                f"{100 * found['relative_sd']:.1f} % | {shares} |"
            )
    low, middle, high = np.percentile([images[0]["distance"] for images in heads.values()], (5, 50, 95))
    places: dict[str, int] = defaultdict(int)
    for images in heads.values():
        places[images[0]["institution"]] += 1
    missed = sum(image["network"]["volume"] == 0 for images in heads.values() for image in images)
    count = sum(map(len, heads.values()))
    lines += [
        "",
        f"{len(heads)} heads ({', '.join(f'{place} {number}' for place, number in sorted(places.items()))}), {count} "
        f"images; nothing was found in {missed} of them. Slices are {middle:.1f} mm apart ({low:.1f} to {high:.1f} in "
        "90 % of the heads), by estimate.",
    ]
    return "\n".join(lines)


def phantom_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Repeatability of phantoms by condition in Markdown."""
    lines = ["| phantoms | number | SD of volume | SD of mean diameter | SD of product | bias of mean diameter |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for condition in CONDITIONS:
        heads = by_head([row for row in rows if row["condition"] == condition])
        if not heads:
            continue
        cells = []
        for name, unit in QUANTITIES.items():
            means, variances = within(heads, "network", name)
            relative = 100 * float(np.sqrt((variances / means**2).mean()))
            cells.append(f"{np.sqrt(variances.mean()):.2f} {unit} ({relative:.1f} %)")
        off = [
            image["network"]["mean_diameter"] - image["mask"]["mean_diameter"]
            for images in heads.values()
            for image in images
        ]
        lines.append(f"| {condition} | {len(heads)} | {' | '.join(cells)} | {np.mean(off):+.2f} mm |")
    return "\n".join(lines)


def runs_of(given: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Institutions and the weights that left them out."""
    if given:
        for run in given:
            name, _, weights = run.partition("=")
            yield name.removeprefix("institution/"), Path(weights)
        return
    folder = ROOT / "benchmarks" / "left_out"
    for file in sorted(folder.rglob("*.pt")):
        place = re.search(rf"(?<![A-Z])({'|'.join(INSTITUTIONS)})(?![A-Z])", str(file.relative_to(folder)))
        if place:
            yield place[1], file


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--runs", nargs="*", default=[], metavar="DU=WEIGHTS")
    parser.add_argument("--images", type=int, default=3, help="simulated images of each head")
    parser.add_argument("--phantoms", type=int, default=8, help="phantoms for thinner slices and larger tilts")
    parser.add_argument("--every", type=int, default=1, help="take every so many heads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("runs/repeatability.jsonl"))
    parser.add_argument("--only_table", action="store_true")
    parser.add_argument("--write", action="store_true", help="write mri_seg/follow_up/repeatability.json")
    given = parser.parse_args()
    runs = {place: (weights, sha256(weights)) for place, weights in runs_of(given.runs)}
    if not runs:
        parser.error("no weights in benchmarks/left_out and no --runs: nothing to measure.")
    digests = {place: digest for place, (_, digest) in runs.items()} | {"phantom": sha256(WEIGHTS)}
    rows = []
    if given.results.is_file():
        rows = [json.loads(line) for line in given.results.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["seed"] == given.seed and row.get("options") == OPTIONS]
    rows = [row for row in rows if digests.get(row["institution"]) == row["weights"]]
    done = {(row["case"], row["number"], row["condition"]) for row in rows}

    def keep(row: dict[str, Any]) -> None:
        row |= {"seed": given.seed, "weights": digests[row["institution"]], "options": OPTIONS}
        with given.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        rows.append(row)

    if not given.only_table:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        distances = {patient: distance.mm for patient, distance in read_distances().items()}
        models = {place: Model(weights) for place, (weights, _) in runs.items()}
        cases = {
            place: datalist(given.dataset_dir, f"institution/{place}", "validation", True)[:: given.every]
            for place in runs
        }
        for number in range(given.images):
            for place, model in models.items():
                for case in cases[place]:
                    if (case["case"], number, "") not in done:
                        distance = distances[case["case"]]
                        found = of_image(model, case, distance, number, given.seed)
                        about = {"case": case["case"], "number": number, "condition": "", "institution": place}
                        keep({**about, "distance": distance, **found})
                print(f"image {number + 1} of {len(cases[place])} heads of {place}", flush=True)
        shipped = Model(WEIGHTS)
        for index in range(given.phantoms):
            for condition in CONDITIONS:
                for number in range(2):
                    name = f"phantom {index}"
                    if (name, number, condition) not in done:
                        found = of_phantom(shipped, index, number, condition)
                        keep(
                            {"case": name, "number": number, "condition": condition, "institution": "phantom", **found}
                        )
    heads = [row for row in rows if row["institution"] != "phantom"]
    print(table(heads))
    print()
    print(phantom_table([row for row in rows if row["institution"] == "phantom"]))
    if given.write:
        write_json(ROOT / "mri_seg" / "follow_up" / "repeatability.json", summary(heads))


if __name__ == "__main__":
    main()
