"""Measure how much volume, mean diameter and product differ if the same head is imaged and segmented again.

    python benchmarks/repeatability.py --dataset_dir data/kaggle_3m --results runs/repeatability.jsonl
    python benchmarks/repeatability.py --every 20 --images 2 ...        # a trial
    python benchmarks/repeatability.py --results runs/repeatability.jsonl --only_table --write

Every head of TCGA-LGG is segmented by weights that have not seen its institution: by default those in
``benchmarks/left_out``, else ``--runs DU=WEIGHTS ...`` with the overrides of their config beside them. Each is imaged
again by simulation: shifted, rotated up to 15 degrees in plane and 5 degrees out of it, with other pixels, slices that
are thicker and shifted by up to half of their distance, other noise, bias field, contrast and scalp. The reference mask
goes through the same transforms, so that the error of the simulation itself is known. Training of the weights used
shifts, rotations, other pixels, noise, bias, contrast and scalp of single slices too; rotation out of the plane,
thicker slices and their shift are new to them.

Slices of TCGA-LGG do not say their distance. It is estimated for each volume from the upper part of the head, where its
breadth falls from 90 to 50 % of the largest: this height is a fixed share of the breadth, which phantoms of known
distance give. Pixels count as 0.94 mm (``benchmarks/pixel_size.py``). All figures in mm and mL rest on these two.

``--write`` writes ``mri_seg/follow_up/repeatability.json``. A head is a line of the results, which is written when it
is done: the program can be stopped, and the same command resumes it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from robustness import Model
from scipy import ndimage
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from mri_seg.datasets.lgg import datalist
from mri_seg.datasets.phantom import PhantomPatient
from mri_seg.follow_up.registration import head_mask, resample
from mri_seg.follow_up.repeatability import Z
from mri_seg.follow_up.timeline import QUANTITIES
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import mean_diameter, measure
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PIXEL = 0.94  # mm
USUAL_DISTANCE = 5.0  # mm, if the head's upper part is not in the picture
SUBPLANES = 3  # averaged over the thickness of a slice
INSTITUTIONS = ("CS", "DU", "FG", "HT")


def height_share(volume: np.ndarray) -> tuple[float, float] | None:
    """Height in slices over which the head's breadth falls from 90 to 50 % of the largest, and this breadth in pixels.

    Args:
        volume: ``(H, W, D)``, columns across the head, slices upwards.

    Returns:
        None if the breadth does not fall so far.
    """
    head = head_mask(volume.astype(np.float32))
    columns = [np.flatnonzero(head[..., n].any(axis=0)) for n in range(head.shape[-1])]
    breadths = np.array([np.ptp(one) + 1.0 if one.size else 0.0 for one in columns])
    widest = len(breadths) // 3 + int(breadths[len(breadths) // 3 :].argmax())
    largest = breadths[widest]
    places = []
    for share in (0.9, 0.5):
        below = [n for n in range(widest + 1, len(breadths)) if breadths[n] < share * largest <= breadths[n - 1]]
        if not below:
            return None
        n = below[0]
        places.append(n - 1 + (breadths[n - 1] - share * largest) / (breadths[n - 1] - breadths[n]))
    return places[1] - places[0], float(largest)


def share_of_phantoms(number: int = 8) -> float:
    """Median of the height, relative to the breadth, in phantoms, whose spacing is known."""
    shares = []
    for index in range(number):
        scan = PhantomPatient(11, index).scan(angles=(0, 0, 0), shift=(0, 0, 0), spacing=3.0)
        if (found := height_share(scan.image)) is not None:
            shares.append(found[0] * 3.0 / (found[1] * 240 / 256))
    return float(np.median(shares))


def slice_distance(volume: np.ndarray, share: float) -> float:
    """Estimate the distance of slices in mm, between 3 and 8."""
    found = height_share(volume)
    if found is None or found[0] < 1:
        return USUAL_DISTANCE
    return float(np.clip(share * found[1] * PIXEL / found[0], 3.0, 8.0))


def imaged_again(
    volume: np.ndarray, label: np.ndarray, affine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image a head again: another grid and pose, then other values.

    Returns:
        the image, the mask, and the affine of their grid.
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
    sizes = (*shape[:2], planes * SUBPLANES)
    parts = []
    for one in (volume.astype(np.float32), label.astype(np.float32)):
        sampled = resample(one, affine, pose, sizes, fine)[0]
        parts.append(sampled.reshape(*shape, SUBPLANES).mean(-1))
    return other_values(parts[0], rng), parts[1] >= 0.5, grid


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


def figures(mask: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Volume, mean diameter and product of a mask."""
    found = measure(mask, affine)
    return {
        "volume": found["volume_ml"],
        "mean_diameter": mean_diameter(found["volume_ml"]),
        "product": sum(lesion["bidimensional_product_mm2"] for lesion in found["lesions"]),
    }


def of_head(model: Model, case: Mapping[str, Any], images: int, share: float, seed: int) -> dict[str, Any]:
    """Segment a head that is imaged again several times: figures of prediction and reference."""
    item = LoadVolumed(["image", "label"])(dict(case))
    volume, label = item["image"].numpy()[0], item["label"].numpy()[0] > 0
    distance = slice_distance(volume, share)
    affine = np.array([[0, -PIXEL, 0, 0], [-PIXEL, 0, 0, 0], [0, 0, distance, 0], [0, 0, 0, 1.0]])
    rows: list[dict[str, Any]] = []
    for number in range(images):
        rng = np.random.default_rng([seed, number, *map(ord, str(case["case"])[:40])])
        image, mask, grid = imaged_again(volume, label, affine, rng)
        pred = model(MetaTensor(torch.from_numpy(image[None]), affine=torch.from_numpy(grid)))
        rows.append({"network": figures(pred, grid), "mask": figures(mask, grid)})
    return {"case": case["case"], "distance": distance, "images": rows}


def within(rows: Sequence[Mapping[str, Any]], kind: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each head; heads in which nothing was found in any image are left out."""
    values = [[image[kind][quantity] for image in row["images"]] for row in rows]
    kept = [np.array(one) for one in values if len(one) > 1 and max(one) > 0]
    return np.array([one.mean() for one in kept]), np.array([one.var(ddof=1) for one in kept])


def fitted(means: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Absolute and relative standard deviation: variance = absolute^2 + (relative x mean)^2.

    Weighted by the inverse of the expected variance, twice: a variance is known to a fixed share of itself.
    """
    design = np.stack([np.ones_like(means), means**2], axis=1)
    weights = 1 / np.maximum(means**2, np.median(means**2) / 10)
    coefficients = np.zeros(2)
    for _ in range(5):
        coefficients, _ = nnls(design * weights[:, None], variances * weights)
        weights = 1 / np.maximum(design @ coefficients, 1e-9)
    return float(np.sqrt(coefficients[0])), float(np.sqrt(coefficients[1]))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``repeatability.json``."""
    heads = len(rows)
    images = max(len(row["images"]) for row in rows)
    distances = [row["distance"] for row in rows]
    found: dict[str, Any] = {
        "provisional": False,
        "source": f"Measured by benchmarks/repeatability.py: {heads} heads of TCGA-LGG, each by weights that left "
        f"its institution out, each imaged {images} times by simulation. Pixels count as {PIXEL} mm; the distance "
        f"of slices is estimated for each head (median {np.median(distances):.1f} mm). "
        "No repeated real scans were at hand.",
    }
    for name, unit in QUANTITIES.items():
        absolute, relative = fitted(*within(rows, "network", name))
        found[name] = {"unit": unit, "absolute_sd": round(absolute, 4), "relative_sd": round(relative, 4)}
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Standard deviation, repeatability coefficient and bias in Markdown."""
    lines = ["| quantity | of | SD within a head | relative (median) | repeatability coefficient | bias |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, unit in QUANTITIES.items():
        for kind in ("network", "mask"):
            means, variances = within(rows, kind, name)
            sd = float(np.sqrt(variances.mean()))
            relative = float(np.median(np.sqrt(variances) / np.maximum(means, 1e-9)))
            pairs = [(image["network"][name], image["mask"][name]) for row in rows for image in row["images"]]
            bias = float(np.mean([one - other for one, other in pairs])) if kind == "network" else 0.0
            said = f"{bias:+.2f} {unit}" if kind == "network" else ""
            coefficient = f"{Z * 2**0.5 * sd:.2f} {unit}"
            lines.append(f"| {name} | {kind} | {sd:.2f} {unit} | {100 * relative:.1f} % | {coefficient} | {said} |")
    low, middle, high = np.percentile([row["distance"] for row in rows], (5, 50, 95))
    lines += [
        "",
        f"{len(rows)} heads. Slices are {middle:.1f} mm apart ({low:.1f} to {high:.1f} in 90 %), by estimate.",
    ]
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
    parser.add_argument("--images", type=int, default=5, help="simulated images of each head")
    parser.add_argument("--every", type=int, default=1, help="take every so many heads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("runs/repeatability.jsonl"))
    parser.add_argument("--only_table", action="store_true")
    parser.add_argument("--write", action="store_true", help="write mri_seg/follow_up/repeatability.json")
    given = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if given.results.is_file():
        rows = {row["case"]: row for row in map(json.loads, given.results.read_text(encoding="utf-8").splitlines())}
    if not given.only_table:
        share = share_of_phantoms()
        given.results.parent.mkdir(parents=True, exist_ok=True)
        for place, weights in runs_of(given.runs):
            model = Model(weights, 800.0, True)
            for case in datalist(given.dataset_dir, f"institution/{place}", "validation", True)[:: given.every]:
                if case["case"] in rows:
                    continue
                row = {**of_head(model, case, given.images, share, given.seed), "institution": place}
                with given.results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                rows[row["case"]] = row
                print(f"{place}: {row['case']}, slices {row['distance']:.1f} mm apart", flush=True)
    if not rows:
        parser.error("no weights in benchmarks/left_out and no --runs: nothing to measure.")
    print(table(list(rows.values())))
    if given.write:
        write_json(ROOT / "mri_seg" / "follow_up" / "repeatability.json", summary(list(rows.values())))


if __name__ == "__main__":
    main()
