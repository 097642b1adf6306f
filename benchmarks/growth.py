"""Measure how time and peak memory grow: of each operation with the number of cases, of inference with the volume size.

    python benchmarks/growth.py --json growth.json --figure growth.png

Operations are those of the command line: check (`python -m mri_seg.datasets.lgg check`); prepare, the training slices
read, normalised and cached; a training step of the default recipe; evaluation with its report; inference with masks and
measurements, no pictures. Each run is a process of its own; seconds begin when all is imported. Repeats go through
cases, operations and sizes in turn.

Cases are phantoms of a few slices. `--different` of them are made; the others are hard links to their files under other
names, so that every operation reads, decodes and computes each case anew, but the files come from memory, not from a
disk. Volumes are NIfTI files of an ellipsoid of noise in air, whose pixels are as large as the network's, so that it
sees as many.

The exponent is the slope from the next to last to the last number of cases, or of voxels, both axes logarithmic: 1 for
time in proportion, 0 for memory that does not grow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import measuring
import nibabel
import numpy as np
from inference import noise
from measuring import ROOT, spread

from mri_seg.datasets.phantom import make_phantom

CONFIGS = ROOT / "bundle" / "configs"
STEPS = 3

CHECK = """
from mri_seg.datasets.lgg.__main__ import main
began = time.perf_counter()
if main(["check", options["dataset_dir"]]):
    raise SystemExit("defects")
found = {"seconds": time.perf_counter() - began}
"""

TRAIN = """
import logging
from training import BundleTraining
logging.disable(logging.INFO)
steps = options.pop("steps")
training = BundleTraining(**options, epochs=2, slices_per_epoch=16 * max(steps, 1))
found = {"seconds": training.preparing}
if steps:
    training.run()
    training.run()  # the first warms up
    found = {"seconds": training.seconds()[0] / steps}
"""

RUN = """
from monai.bundle import ConfigWorkflow
workflow = ConfigWorkflow(options.pop("configs"), **options)
workflow.initialize()
began = time.perf_counter()
workflow.run()
workflow.finalize()
found = {"seconds": time.perf_counter() - began}
"""

Job = Callable[[str], dict[str, float]]  # takes an empty folder for what it writes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="1,10,100,1000", help="numbers of cases, rising")
    parser.add_argument("--slices", type=int, default=4, help="slices of 256 x 256 of each case")
    parser.add_argument("--different", type=int, default=10, help="phantoms made; the other cases are links to them")
    parser.add_argument("--volumes", default="128x20,256x20,512x20,256x155,512x155", help="side x slices, rising")
    parser.add_argument("--operations", default="check,prepare,training step,evaluate,infer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--also",
        type=Path,
        nargs="*",
        default=[],
        help="JSON of other runs, whose rows go to tables and figure as well",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help="PNG or SVG file to draw the table to")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_cases = case_jobs(folder, args) if args.cases else {}
        by_size = volume_jobs(folder, args.volumes.split(",")) if args.volumes else {}
        runs = measure({**by_cases, **by_size}, args.repeats)
    tables = {}
    for what, jobs in (("cases", by_cases), ("voxels", by_size)):
        rows = {job: runs[job] for job in jobs}
        for file in args.also:
            rows |= earlier(json.loads(file.read_text())["growth"].get(what, {}))
        if rows:
            tables[what] = table(what, rows)
    if args.figure:
        draw(tables, args.figure)
    protocol = {key: value for key, value in vars(args).items() if key not in ("json", "figure")}
    measuring.write(args.json, {"machine": measuring.machine(), "protocol": protocol, "growth": tables})


def case_jobs(folder: Path, args: argparse.Namespace) -> dict[tuple[str, int], Job]:
    """Each operation on each number of cases."""
    numbers = [int(number) for number in args.cases.split(",")]
    cases = make_cases(folder, max(numbers) + 1, args.different, args.slices)
    jobs: dict[tuple[str, int], Job] = {}
    for number in numbers:
        data: dict[str, Any] = {"dataset_dir": data_set(folder / f"{number}-cases", cases[:number])}
        # A training wants a case to validate on; evaluated are those it trains on.
        names = [case.name for case in cases[: number + 1]]
        split = folder / f"{number}.json"
        split.write_text(json.dumps({"training": names[:-1], "validation": names[-1:]}))
        more: dict[str, Any] = {
            "dataset_dir": data_set(folder / f"{number}-and-one", cases[: number + 1]),
            "split": split,
        }
        evaluation: dict[str, Any] = {"configs": ["train.json", "evaluate.json"], "section": "training", **more}
        of_number: dict[str, Job] = {
            "check": partial(check, **data),
            "prepare": partial(train, 0, **more),
            "training step": partial(train, STEPS, **more),
            "evaluate": partial(run, **evaluation),
            "infer": partial(run, configs=["inference.json"], outputs="mask,measurements", **data),
        }
        jobs |= {(what, number): of_number[what] for what in args.operations.split(",")}
    return jobs


def volume_jobs(folder: Path, sizes: list[str]) -> dict[tuple[str, int], Job]:
    """Inference of a volume of each size."""
    pixdim = json.loads((CONFIGS / "inference.json").read_text())["pixdim"]
    jobs: dict[tuple[str, int], Job] = {}
    for size in sizes:
        side, depth = map(int, size.split("x"))
        data = folder / size
        data.mkdir()
        volume = noise((side, side, depth)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([*pixdim, 1, 1])), data / "head.nii.gz")
        jobs["infer a volume", volume.size] = partial(
            run, configs=["inference.json"], outputs="mask,measurements", dataset_dir=data
        )
    return jobs


def make_cases(folder: Path, number: int, different: int, slices: int) -> list[Path]:
    """Make folders of this number of cases, most of them links to the files of a few."""
    made = make_phantom(folder / "made", patients=min(different, number), slices=slices)
    cases = [folder / "cases" / f"PHANTOM_QA_{n:04d}_20000101" for n in range(number)]
    for case, source in zip(cases, itertools.cycle(made)):
        case.mkdir(parents=True)
        for file in source.iterdir():
            os.link(file, case / file.name.replace(source.name, case.name))
    return cases


def data_set(folder: Path, cases: list[Path]) -> Path:
    """A folder of links to cases."""
    folder.mkdir()
    for case in cases:
        (folder / case.name).symlink_to(case)
    return folder


def check(out: str, **options: Any) -> dict[str, float]:
    """Check the data set; nothing is written."""
    return measuring.in_process(CHECK, **options)


def train(steps: int, out: str, **options: Any) -> dict[str, float]:
    """Prepare the training data, or take training steps."""
    return measuring.in_process(TRAIN, steps=steps, output_dir=out, **options)


def run(out: str, *, configs: list[str], **options: Any) -> dict[str, float]:
    """Run a workflow of the bundle."""
    files = [CONFIGS / config for config in configs]
    return measuring.in_process(RUN, configs=files, bundle_root=ROOT / "bundle", output_dir=out, **options)


def measure(jobs: dict[tuple[str, int], Job], repeats: int) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Measure seconds and memory of every job, in turn."""
    runs: dict[tuple[str, int], list[dict[str, float]]] = {job: [] for job in jobs}
    for repeat in range(repeats):
        for (what, number), job in jobs.items():
            with tempfile.TemporaryDirectory() as out:
                found = job(out)
            runs[what, number].append(found)
            print(
                f"  {repeat + 1}: {what}, {number}: {found['seconds']:.2f} s, {found['memory_gib']:.2f} GiB", flush=True
            )
    return runs


def earlier(growth: dict[str, dict]) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Runs of a table that was saved as JSON."""
    return {
        (operation, int(number)): [dict(zip(row, values)) for values in zip(*row.values())]
        for operation, entry in growth.items()
        for number, row in entry["rows"].items()
    }


def table(what: str, runs: dict[tuple[str, int], list[dict[str, float]]]) -> dict[str, dict]:
    """Print seconds and memory by number of cases or voxels; return them with their exponents."""
    found: dict[str, dict] = defaultdict(dict)
    for (operation, number), of_job in runs.items():
        found[operation][number] = {key: [one[key] for one in of_job] for key in ("seconds", "memory_gib")}
    unit, each = ("case", 1) if what == "cases" else ("million voxels", 1e6)
    for operation, rows in found.items():
        print(f"\n| {operation}: {what} | seconds | ms a {unit} | peak memory, GiB |\n| --- | --- | --- | --- |")
        for number, row in sorted(rows.items()):
            share = 1000 * statistics.median(row["seconds"]) / number * each
            share = "-" if operation == "training step" else f"{share:.1f}"
            print(f"| {number} | {spread(row['seconds'])} | {share} | {spread(row['memory_gib'])} |")
        exponents = {key: exponent(rows, key) for key in ("seconds", "memory_gib")} if len(rows) > 1 else {}
        if exponents:
            print(f"| exponent | {exponents['seconds']:.2f} | | {exponents['memory_gib']:.2f} |")
        found[operation] = {"rows": rows, "exponents": exponents}
    return dict(found)


def exponent(rows: dict[int, dict[str, list[float]]], key: str) -> float:
    """Slope between the two largest numbers, both axes logarithmic."""
    before, last = sorted(rows)[-2:]
    low, high = (statistics.median(rows[number][key]) for number in (before, last))
    return math.log(high / low) / math.log(last / before)


def draw(tables: dict[str, dict[str, dict]], path: Path) -> None:
    """Draw medians, smallest and largest by number."""
    figure, rows = plt.subplots(len(tables), 2, figsize=(10, 3.6 * len(tables)), layout="constrained", squeeze=False)
    for row, (what, found) in zip(rows, tables.items()):
        for axis, key, label in zip(row, ("seconds", "memory_gib"), ("seconds", "peak memory, GiB")):
            for operation, entry in found.items():
                numbers = sorted(entry["rows"])
                values = [entry["rows"][number][key] for number in numbers]
                middle = [statistics.median(repeats) for repeats in values]
                ends = [[m - min(v) for m, v in zip(middle, values)], [max(v) - m for m, v in zip(middle, values)]]
                axis.errorbar(numbers, middle, yerr=ends, marker="o", markersize=3, label=operation)
            axis.set(xlabel=what, ylabel=label, xscale="log", yscale="log" if key == "seconds" else "linear")
            axis.set_ylim(0 if key == "memory_gib" else None, None)
        row[0].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
