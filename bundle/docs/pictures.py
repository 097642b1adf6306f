"""Make the pictures of synthetic cases and of the network anew, as after a change of the weights or of the phantom.

pip install -e ".[phantom]" selenium  # and Chromium with its driver
python bundle/docs/pictures.py

writes phantom_sheet.png, report.png and network.svg beside this file; what it works with stays in runs/pictures.
"""

from __future__ import annotations

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
    """Make the cases, segment and evaluate them with the shipped weights, and take the pictures."""
    cases, evaluation, inference = WORK / "cases", WORK / "evaluation", WORK / "inference"
    run("-m", "mri_seg.datasets.phantom", cases, "--patients", 12, "--overwrite")
    run_workflow(
        "inference",
        ["inference.json"],
        dataset_dir=next(cases.glob(CASE)),
        output_dir=inference,
        outputs="sheet",
        overwrite="true",
    )
    shutil.copy(next(inference.glob("*/*_sheet.png")), DOCS / "phantom_sheet.png")
    run_workflow(
        "evaluation",
        ["train.json", "evaluate.json"],
        dataset_dir=cases,
        split=cases / "split.json",
        section="test",
        output_dir=evaluation,
    )
    run(DOCS / "screenshot.py", evaluation, DOCS / "report.png", "--page", "report", "--height", 1500)
    run(ROOT / "benchmarks" / "draw_network.py", DOCS / "network.svg")


if __name__ == "__main__":
    main()
