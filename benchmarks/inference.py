"""Time inference from files to files: start-up by its parts, a short series, a large isotropic volume; and one call.

    python benchmarks/inference.py
    python benchmarks/inference.py --only call --avx2

Volumes are noise of realistic size; the network and its weights are those of `inference.json`. Start-up is measured in
a separate process, from its start to the first slice read, when the files of all packages are already cached. A call is
that of a `Segmenter` that was called before, on the series as an array, in turn with the inferer on the same volume,
already preprocessed; its CPU seconds are those of all threads, and vary less than seconds if the machine is busy. With
--avx2, calls are also timed as on a processor that has no more than AVX2, which is simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from measuring import ROOT, avx2, spread

CONFIG = ROOT / "bundle" / "configs" / "inference.json"

STARTUP = """
import os, time
marks = [("begin", float(os.environ["BEGAN"])), ("python", time.time())]
def mark(name): marks.append((name, time.time()))
import torch; mark("import torch")
import monai; mark("import monai")
import monai.bundle; from monai.bundle import ConfigParser; mark("import monai.bundle")
parser = ConfigParser(); parser.read_config(os.environ["CONFIG"])
parser.update({"bundle_root": os.environ["BUNDLE"], "dataset_dir": os.environ["DATA"], "output_dir": os.environ["OUT"]})
for line in parser.get_parsed_content("imports"): pass
mark("import mri_seg")
loader = parser.get_parsed_content("dataloader"); mark("find cases")
next(iter(loader.dataset)); mark("read the first case")
import json; print(json.dumps(marks))
"""

SEGMENT = """
import json, os, resource, time, torch
from monai.bundle import ConfigParser
parser = ConfigParser(); parser.read_config(os.environ["CONFIG"])
parser.update({"bundle_root": os.environ["BUNDLE"], "dataset_dir": os.environ["DATA"], "output_dir": os.environ["OUT"]})
parser.update(json.loads(os.environ["OVERRIDES"]))
evaluator = parser.get_parsed_content("evaluator")
parser.get_parsed_content("dataloader").dataset.transform  # all is built
network = parser.get_parsed_content("network")
import highdicom
began = time.perf_counter()
evaluator.run()
print(json.dumps([time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""

CALL = """
import json, os, time, numpy, torch
import mri_seg
from mri_seg.io.memory import ImageInMemory
overrides = json.loads(os.environ["OVERRIDES"])
volume, repeats = numpy.load(os.environ["DATA"]), overrides.pop("repeats")
segmenter = mri_seg.Segmenter(bundle_root=os.environ["BUNDLE"], **overrides)
evaluator, spacing = segmenter._evaluator, (0.9, 0.8, 5.0)
case = {"case": "a", "image": ImageInMemory(volume, spacing=spacing)}
batch = segmenter._collate(segmenter._transform(case))["image"].to(evaluator.state.device)
def network():
    with evaluator.mode(evaluator.network):
        evaluator.inferer(batch, evaluator.network)
def seconds(call):
    began = time.perf_counter(), time.process_time(); call()
    return time.perf_counter() - began[0], time.process_time() - began[1]
parts = {"network": network, "call": lambda: segmenter(volume, spacing=spacing)}
parts["call, measured"] = lambda: segmenter(volume, spacing=spacing).measurements
for call in parts.values(): call()
print(json.dumps([{name: seconds(call) for name, call in parts.items()} for _ in range(repeats)]))
"""


def write_series(folder: Path) -> None:
    """A DICOM series of 26 slices of 256 x 256."""
    sys.path.insert(0, str(ROOT / "tests"))
    from dicom_series import write_series as write

    write(folder, noise((256, 256, 26)), series_uid="1.2.3.4")


def write_isotropic(folder: Path) -> None:
    """A NIfTI volume of 240 x 240 x 155 voxels of 1 mm."""
    folder.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(noise((240, 240, 155)).astype(np.int16), np.eye(4)), folder / "head.nii.gz")


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    """An ellipsoid of noise in air."""
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    head = sum(axis**2 for axis in axes) < 0.8
    return (head * np.random.default_rng(0).normal(200, 40, shape)).clip(0).astype(np.uint16)


def run(code: str, data: Path, out: Path, variables: Mapping[str, str] | None = None, **overrides: object) -> list:
    environment = {
        **os.environ,
        **(variables or {}),
        "CONFIG": str(CONFIG),
        "BUNDLE": str(ROOT / "bundle"),
        "DATA": str(data),
        "OUT": str(out),
        "OVERRIDES": json.dumps(overrides),
        "BEGAN": str(time.time()),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def time_calls(folder: Path, repeats: int, *, with_avx2: bool) -> None:
    """The second call on a volume of 26 slices against the network alone."""
    np.save(folder / "volume.npy", noise((256, 256, 26)))
    print("second call on 26 slices")
    columns = ("seconds", "times the network", "CPU seconds", "times the network", "times that of torch's")
    print("| runtime | part | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 2))
    choices: dict[str, dict] = {}
    for runtime in ("torch", "openvino", "openvino-int8"):
        choices[runtime] = {"runtime": runtime}
        if with_avx2:
            choices[f"{runtime}, AVX2"] = {"runtime": runtime, "variables": avx2(folder)}
    first: dict[str, float] = {}
    for choice, options in choices.items():
        rounds = run(CALL, folder / "volume.npy", folder / "out", repeats=repeats, **options)
        for part in rounds[0]:
            cells = []
            for clock in (0, 1):
                cells.append(spread([one[part][clock] for one in rounds]))
                cells.append(spread([one[part][clock] / one["network"][clock] for one in rounds]))
            cpu = statistics.median(one[part][1] for one in rounds)
            cells.append(f"{cpu / first.setdefault(part, cpu):.2f}")
            print(f"| {choice} | {part} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("call",), help="measure this alone")
    parser.add_argument("--avx2", action="store_true", help="time calls with AVX2 alone too (simulated)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        time_calls(folder, args.repeats, with_avx2=args.avx2)
        if args.only:
            return
        write_series(folder / "series")
        write_isotropic(folder / "isotropic")
        startups = [run(STARTUP, folder / "series", folder / "out") for _ in range(args.repeats + 1)][1:]
        print("start-up to the first slice read, seconds")
        for n, (part, _) in enumerate(startups[0][1:], start=1):
            print(f"  {part:22} {spread([marks[n][1] - marks[n - 1][1] for marks in startups])}")
        print(f"  {'in all':22} {spread([marks[-1][1] - marks[0][1] for marks in startups])}")
        files = "mask,seg,measurements"
        choices: dict[str, dict[str, Any]] = {
            "mask, seg, measurements": {"outputs": files},
            "the same in float32": {"outputs": files, "amp": False},
            "the same without flip": {"outputs": files, "tta_flip": False},
            "auto (with pictures)": {},
        }
        for kind in ("series", "isotropic"):
            print(f"{kind}: files to files after start-up, seconds; largest memory of the process, GiB")
            measured: dict[str, list] = {choice: [] for choice in choices}
            for repeat in range(args.repeats if kind == "series" else 1):
                for choice, overrides in choices.items():  # in turn
                    out = folder / f"{kind}-{repeat}-{choice}"
                    measured[choice].append(run(SEGMENT, folder / kind, out, **overrides))
            for choice, found in measured.items():
                seconds, memory = zip(*found)
                print(f"  {choice:30} {spread(list(seconds))}   {max(memory):.2f}")


if __name__ == "__main__":
    main()
