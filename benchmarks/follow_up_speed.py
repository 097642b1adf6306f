"""Time following from files to files: a synthetic patient's scans as DICOM studies, from the start of the process.

    python benchmarks/follow_up_speed.py
    python benchmarks/follow_up_speed.py --scans 6 --threads 1 --options "--runtime openvino-int8"

Each repeat is a process of its own that runs `mri-seg follow` with all its outputs, into an empty folder. "Segment" is
the inference with its outputs; "register", "write" (tables, page, change, SEG, SR) and "other" are parts of following.
Processor seconds are those of all threads; they are the figure to compare if other programs run. Weights, options and
the number of slices are those of a user who gives none.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, in_process, machine, spread, write

from mri_seg.datasets.phantom import PhantomPatient

FOLLOW = """
import contextlib, io
from mri_seg.cli.main import cli
import mri_seg.follow_up.engine as engine
from mri_seg.follow_up.writer import FollowUp
seconds = {"register": 0.0, "write": 0.0, "follow": 0.0}
def timed(name, function):
    def call(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - began
    return call
engine.register = timed("register", engine.register)
FollowUp._write = timed("write", FollowUp._write)
FollowUp.run = timed("follow", FollowUp.run)
with contextlib.redirect_stdout(io.StringIO()) as told:
    try:
        cli(["follow", options["studies"], options["out"], *options["words"]], prog_name="mri-seg")
    except SystemExit as end:
        assert not end.code, told.getvalue()
seconds["whole"] = time.time() - float(os.environ["BEGAN"])
seconds["other"] = seconds["follow"] - seconds["register"] - seconds["write"]
seconds["segment"] = seconds["whole"] - seconds["follow"]
found = {"seconds": seconds, "processor": sum(os.times()[:2])}
"""
ROWS = ("whole", "segment", "follow", "register", "write", "other")


def write_studies(folder: Path, scans: int, slices: int) -> None:
    """DICOM studies of a patient whose tumour grows by 3 mm a year, a year apart."""
    sys.path.insert(0, str(ROOT / "tests"))
    from dicom_series import write_series

    patient = PhantomPatient(2024, 0, tumor=True)
    for number in range(scans):
        scan = patient.scan(number, diameter=36 + 3 * number, slices=slices)
        dates = {name: f"{2015 + number}0301" for name in ("StudyDate", "SeriesDate", "AcquisitionDate")}
        write_series(folder / str(number), scan.image.astype(np.uint16), scan.affine, **dates)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=3)
    parser.add_argument("--slices", type=int, default=26)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--options", default="", help="further options of mri-seg follow, in one text")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_studies(Path(folder) / "studies", given.scans, given.slices)
        paths: dict[str, Any] = {"studies": f"{folder}/studies", "words": shlex.split(given.options)}
        found = [in_process(FOLLOW, **paths, out=f"{folder}/out{n}") for n in range(given.repeats)]
    about = f"{given.scans} scans of {given.slices} slices, {given.threads} threads, {given.repeats} repeats"
    lines = [f"| {about} | median (range) |", "| --- | --- |"]
    lines += [f"| {name}, s | {spread((one['seconds'][name] for one in found), 1)} |" for name in ROWS]
    lines += [f"| processor, s | {spread((one['processor'] for one in found), 1)} |"]
    lines += [f"| peak memory, GiB | {spread(one['memory_gib'] for one in found)} |"]
    print("\n".join(lines))
    write(given.json, {"machine": machine(), "repeats": found, **vars(given)})


if __name__ == "__main__":
    main()
