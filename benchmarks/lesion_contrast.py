"""Measure how bright tumours are against the tissue around them, and how that goes with the Dice of a model.

    python benchmarks/lesion_contrast.py benchmarks/left_out/patients.csv --column three_stages
    python benchmarks/lesion_contrast.py runs/DU runs/HT runs/FG

Folders are those of evaluations with institutions left out; a table has a column of Dice. *Contrast* is the
mean of the reference minus that of the brain 4 to 18 pixels around it, in units of the brain's median above air (the
0.5th percentile of the volume). *Told by brightness* is the probability that a voxel of the reference is brighter than
one around it: 0.5 means that brightness tells nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.transforms import Compose
from paired import rows_of
from scipy import ndimage, stats

import mri_seg
from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.brain import brain_mask
from mri_seg.transforms.labels import BinaryLabeld

NEAR, FAR = 3, 18  # pixels between which the tissue around a tumour lies
LOW = 0.5
AIR = 0.5  # percentile


class Patient(NamedTuple):
    """What is known of a patient."""

    case: str
    group: str
    dice: float
    voxels: int
    contrast: float
    by_brightness: float


def around(mask: np.ndarray) -> np.ndarray:
    """What lies near a tumour in its slices."""
    near, far = (
        np.stack([ndimage.binary_dilation(one, iterations=steps) for one in np.moveaxis(mask, 2, 0)], 2)
        for steps in (NEAR, FAR)
    )
    return far & ~near


def brighter(one: np.ndarray, other: np.ndarray) -> float:
    """Probability that a value of one is above a value of the other."""
    return float(stats.mannwhitneyu(one, other).statistic / (len(one) * len(other)))


def measure(volume: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Contrast of a tumour, and how far brightness tells it."""
    brain = brain_mask(volume)
    inside, outside = volume[mask], volume[around(mask) & brain]
    unit = np.median(volume[brain]) - np.percentile(volume, AIR)
    return float((inside.mean() - outside.mean()) / unit), brighter(inside, outside)


def patients_of(group: str, rows: Mapping[str, Mapping[str, str]], column: str, dataset_dir: str) -> list[Patient]:
    """The patients of an institution who have a tumour."""
    load = Compose([LoadVolumed(["image", "label"]), BinaryLabeld("label")])
    found = []
    for case in mri_seg.datalist(dataset_dir, f"institution/{group}", "validation", True):
        name, item = str(case["case"]), load(dict(case))
        volume, mask = item["image"].numpy()[0].astype(np.float32), item["label"].numpy()[0] > 0
        if mask.any():
            dice = float(rows[name][column])
            found.append(Patient(name, group, dice, int(mask.sum()), *measure(volume, mask)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="folders of evaluations, or tables of patients")
    parser.add_argument("--column", default="dice", help="column of the Dice")
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    args = parser.parse_args()
    rows = {case: row for table in args.tables for case, row in rows_of(table).items()}
    groups = dict.fromkeys(row["group"] for row in rows.values())
    by_group = {group: patients_of(group, rows, args.column, args.dataset_dir) for group in groups}
    everyone = [one for found in by_group.values() for one in found]

    print("| institution | patients | contrast: lowest, median, highest | told by brightness: median", end=" ")
    print("| rank correlation of Dice with contrast | with volume |\n| --- | --- | --- | --- | --- | --- |")
    for group, found in [*by_group.items(), ("all", everyone)]:
        contrasts, dices = [one.contrast for one in found], [one.dice for one in found]
        three = ", ".join(f"{value:.2f}" for value in np.quantile(contrasts, (0, 0.5, 1)))
        told = np.median([one.by_brightness for one in found])
        others = contrasts, [one.voxels for one in found]
        ranks = " | ".join(f"{stats.spearmanr(dices, other).statistic:.2f}" for other in others)
        print(f"| {group} | {len(found)} | {three} | {told:.2f} | {ranks} |")
    print("\n| patient | Dice | voxels | contrast | told by brightness |\n| --- | --- | --- | --- | --- |")
    for one in sorted(everyone, key=lambda one: one.dice):
        if one.dice < LOW:
            print(f"| {one.case} | {one.dice:.3f} | {one.voxels} | {one.contrast:.2f} | {one.by_brightness:.2f} |")


if __name__ == "__main__":
    main()
