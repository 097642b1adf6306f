"""Time the page of a case and the page of all cases, and weigh them.

    python benchmarks/pages.py --cases 500 --json pages.json

Cases are phantoms, which needs the extra `phantom`. For the page of all cases, a folder holds one case's page under
many names, and tables in which every third case has warnings and every twentieth failed. Seconds are those of the
processor, so that they hold on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np

from mri_seg.datasets.phantom import phantom_volume
from mri_seg.measurements.lesions import measure, summary_row
from mri_seg.visualize.case_page import case_page
from mri_seg.visualize.index_page import write_index

WARNING = "By its timing this is not FLAIR: the inversion time is missing. Compare the outline with the images."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500, help="cases on the page of all cases")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": measuring.machine()}
    print("page of a case | CPU seconds | MB")
    for slices, size in ((26, 256), (176, 256)):
        image, mask = phantom_volume(0, 0, slices=slices, size=size, tumor=True)
        probability = mask * np.float32(0.9)
        measured = measure(mask, np.eye(4), case="phantom", probability=probability)
        made_page = functools.partial(case_page, measured, image, mask, probability)
        seconds, megabytes = timed(made_page, args.repeats), len(made_page().encode()) / 1e6
        name = f"{slices} slices of {size} x {size}"
        found[name] = {"seconds": seconds, "megabytes": megabytes}
        print(f"  {name:24} {measuring.spread(seconds):22} {megabytes:.2f}", flush=True)
        if (slices, size) == (26, 256):
            page, row = made_page(), summary_row(measured)
    with tempfile.TemporaryDirectory() as folder:
        tables = made(Path(folder), args.cases, page, row)
        seconds = timed(lambda: write_index(folder, *tables), args.repeats)
        megabytes = Path(folder, "index.html").stat().st_size / 1e6
    name = f"page of {args.cases} cases"
    found[name] = {"seconds": seconds, "megabytes": megabytes}
    print(f"{name}: {measuring.spread(seconds)} CPU seconds, {megabytes:.2f} MB")
    measuring.write(args.json, found)


def timed(run: Callable[[], Any], repeats: int) -> list[float]:
    """CPU seconds of each repeat; the first one is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return seconds[1:]


def made(folder: Path, cases: int, page: str, figures: dict[str, Any]) -> tuple[dict[str, dict], dict[str, dict]]:
    """A folder of cases with the same page, and its two tables."""
    first = folder / "page.html"
    first.write_text(page, encoding="utf-8")
    summary, measurements = {}, {}
    values = {key: "" if value is None else str(value) for key, value in figures.items()}
    for number in range(cases):
        case = f"sub-{number:04d}_FLAIR"
        (folder / case).mkdir()
        os.link(first, folder / case / f"{case}.html")
        failed, flagged = number % 20 == 0, number % 3 == 0
        summary[case] = {
            "case": case,
            "status": "failed" if failed else "done",
            "error": f"/data/{case}.nii.gz: cannot be read. Copy it again." if failed else "",
            "flags": "timing_not_flair" if flagged else "",
            "warnings": WARNING if flagged else "",
            "input": f"/data/{case}.nii.gz",
        }
        if not failed:
            measurements[case] = {**values, "case": case}
    return summary, measurements


if __name__ == "__main__":
    main()
