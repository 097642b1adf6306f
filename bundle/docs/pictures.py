"""Make the pictures of synthetic cases and of the network anew, as after a change of the weights or of the phantom.

pip install -e ".[phantom]" selenium  # and Chromium with its driver
python bundle/docs/pictures.py

writes phantom_sheet.png, report.png, tensorboard.png and network.svg beside this file; what it works with stays in
runs/pictures. --only tensorboard trains as the first command of the README does, and writes that picture alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "bundle" / "docs"
WORK = ROOT / "runs" / "pictures"
CASE = "PHANTOM_*_0001_*"  # the case of the sheet


def run(*arguments: object) -> None:
    """Run a Python program in the repository's root."""
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True)


def run_workflow(name: str, configs: list[str], **options: object) -> None:
    """Run a workflow of the bundle."""
    files = str([str(ROOT / "bundle" / "configs" / config) for config in configs])
    pairs = [part for key, value in options.items() for part in (f"--{key}", value)]
    run("-m", "monai.bundle", "run", name, "--config_file", files, "--bundle_root", ROOT / "bundle", *pairs)


def main() -> None:
    """Make the cases, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PICTURES, help="make this picture alone")
    only = parser.parse_args().only
    cases = WORK / "cases"
    run("-m", "mri_seg.datasets.phantom", cases, "--patients", 12, "--overwrite")
    for name, make in PICTURES.items():
        if only in (None, name):
            make(cases)


def sheet(cases: Path) -> None:
    """Segment a case with the shipped weights."""
    results = WORK / "inference"
    options = {"outputs": "sheet", "overwrite": "true"}
    run_workflow("inference", ["inference.json"], dataset_dir=next(cases.glob(CASE)), output_dir=results, **options)
    shutil.copy(next(results.glob("*/*_sheet.png")), DOCS / "phantom_sheet.png")


def report(cases: Path) -> None:
    """Evaluate the shipped weights, and look at the report."""
    results, configs = WORK / "evaluation", ["train.json", "evaluate.json"]
    run_workflow("evaluation", configs, dataset_dir=cases, section="test", output_dir=results)
    run(DOCS / "screenshot.py", results, DOCS / "report.png", "--page", "report", "--height", 1500)


def tensorboard(cases: Path) -> None:
    """Train as the first command of the README does, and look at the run in TensorBoard."""
    shutil.rmtree(WORK / "training", ignore_errors=True)
    options = {"initial_weights": "shipped", "learning_rate": 0.0003, "epochs": 2}
    options |= {"slices_per_epoch": 160, "batch_size": 8}
    run_workflow("training", ["train.json"], dataset_dir=cases, output_dir=WORK / "training", **options)
    run(DOCS / "screenshot.py", (WORK / "training").relative_to(ROOT), DOCS / "tensorboard.png")  # which shows the path


def network(cases: Path) -> None:
    """Draw the network from itself; needs no cases."""
    run(ROOT / "benchmarks" / "draw_network.py", DOCS / "network.svg")


PICTURES = {"sheet": sheet, "report": report, "tensorboard": tensorboard, "network": network}
"""What makes each picture, from a folder of synthetic cases."""


if __name__ == "__main__":
    main()
