"""Time the evaluation of finished masks: both protocols, 95th Hausdorff percentile, surface Dice, bootstrap, files.

    python benchmarks/evaluation.py --json evaluation.json

Masks are NIfTI files of 256 x 256 pixels and 20 to 60 slices. Labels are ellipsoids with a rough surface, predictions
are the same, shifted and with another roughness. Every fifth prediction also has specks far away, so that the box for
distances is as large as the head. They go through `mri_seg.evaluation.writer.EvaluationWriter`, as in an evaluation
with evaluate.json, without the network and the report. Times count reading the masks and writing metrics.json,
patients.csv and slices.csv, after start-up.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import measuring
import nibabel
import numpy as np
import torch
from ignite.engine import Engine
from measuring import spread

import mri_seg.evaluation.writer
from mri_seg.io.load import LoadVolumed

SIDE = 256
PARTS = {
    "slice_rows": "slice protocol",
    "compute_dice": "Dice",
    "surface_scores": "95th Hausdorff percentile and surface Dice",
    "summarize": "means and bootstrap",
    "_write_csv": "files",
    "write_json": "files",
}
READING, REST = "reading the masks", "all else (counts)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    logging.disable(logging.INFO)
    parts = measuring.Parts(REST)
    for function, part in PARTS.items():
        setattr(mri_seg.evaluation.writer, function, parts.timed(part, getattr(mri_seg.evaluation.writer, function)))
    with tempfile.TemporaryDirectory() as name:
        files = [write_masks(Path(name), number) for number in range(args.patients)]
        turns: list[dict[str, float]] = []
        load = parts.timed(READING, LoadVolumed(("pred", "label")))
        run = {"evaluation": lambda: turns.append(evaluate(files, Path(name, "out"), parts, load))}
        seconds = measuring.in_turn(run, args.repeats)["evaluation"]
    print(f"{args.patients} patients: {spread(seconds, 1)} s\n")
    print("| part | ms a patient | share |\n| --- | --- | --- |")
    for part in dict.fromkeys([READING, *PARTS.values(), REST]):
        times = [turn.get(part, 0) for turn in turns[1:]]
        shares = [100 * time / sum(turn.values()) for time, turn in zip(times, turns[1:])]
        print(f"| {part} | {spread((1000 * t / args.patients for t in times), 1)} | {spread(shares, 0)} % |")
    found = {"machine": measuring.machine(), "patients": args.patients, "seconds": seconds, "parts": turns[1:]}
    measuring.write(args.json, found)


def evaluate(files: list[dict], out: Path, parts: measuring.Parts, load: Callable) -> dict[str, float]:
    """Evaluate all patients, and return the seconds of each part."""

    def load_case(engine: Engine, case: dict) -> list[dict]:
        cast(Any, engine.state).batch = [case]  # as MONAI's evaluators part it
        return [load(case)]

    parts.begin()
    engine = Engine(load_case)
    mri_seg.evaluation.writer.EvaluationWriter(out).attach(engine)
    engine.run(files)
    return parts.seconds()


def write_masks(folder: Path, number: int) -> dict[str, str]:
    """Write label and prediction of a patient; gives their files and the name of the case."""
    rng = np.random.default_rng(number)
    shape = SIDE, SIDE, int(rng.integers(20, 61))
    center = np.array(shape) * rng.uniform(0.35, 0.65, 3)
    radii = [*rng.uniform(12, 45, 2), shape[2] * rng.uniform(0.1, 0.3)]
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    surface = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, radii)) + roughness(rng, shape)
    masks = {"label": surface < 1, "pred": np.roll(surface, rng.integers(-3, 4, 2), (0, 1)) + roughness(rng, shape) < 1}
    if number % 5 == 0:
        masks["pred"][40:44, 40:44, 1] = masks["pred"][-44:-40, -44:-40, -2] = True
    case = {"case": f"case{number:03d}"}
    for key, mask in masks.items():
        case[key] = str(folder / f"{case['case']}_{key}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([0.94, 0.94, 5, 1])), case[key])
    return case


def roughness(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth noise that varies over about 16 pixels and 4 slices."""
    coarse = torch.from_numpy(rng.normal(0, 0.2, (1, 1, shape[0] // 16, shape[1] // 16, shape[2] // 4)))
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].numpy()


if __name__ == "__main__":
    main()
