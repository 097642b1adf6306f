"""Time inference from files to files on every case of a data set, by runtime; and where the time goes.

    python benchmarks/files.py --dataset_dir data/kaggle_3m --cases 20 --json files.json

Reads the cases, writes NIfTI masks and measurements, draws no pictures. Every run is a process of its own, so that its
peak memory is its own; runtimes take turns. Slices a second count from the start of the evaluator, with what compiles
then, to the last file; `in all` from the start of Python. Stages are timed in the process of the last repeat: reading
and preparing run beside the network, so that they sum up to more than the time in all. 8-bit weights must exist: see
quantize.json. With --avx2, each runtime also runs as on a processor that has no more than AVX2, which is simulated. CPU
seconds are those of all threads, and vary less than seconds if the machine is busy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import measuring
from measuring import ROOT

from mri_seg.io.cases import find_cases

SEGMENT = """
from collections import defaultdict
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config(options.pop("config"))
parser.update(options)
evaluator = parser.get_parsed_content("evaluator")
dataset = parser.get_parsed_content("dataset")
stages = defaultdict(float)

def timed(stage, function):
    def call(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            stages[stage] += time.perf_counter() - began
    return call

for transform in [*dataset.transform.transforms, *parser.get_parsed_content("postprocessing").transforms]:
    kind = type(transform)
    kind.__call__ = timed(kind.__name__, kind.__call__)
inferer = parser.get_parsed_content("inferer")
type(inferer).__call__ = timed("network", type(inferer).__call__)
import mri_seg.inference.outputs
for name, output in mri_seg.inference.outputs.OUTPUTS.items():
    mri_seg.inference.outputs.OUTPUTS[name] = output._replace(write=timed("write " + name, output.write))
began, cpu_began = time.perf_counter(), time.process_time()
evaluator.run()
seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
found = {
    "seconds": seconds,
    "cpu_seconds": cpu_seconds,
    "in_all": time.time() - float(os.environ["BEGAN"]),
    "failed": sum(row["status"] == "failed" for row in parser.get_parsed_content("writer").rows.values()),
    "stages": stages,
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "bundle" / "models" / "model.pt")
    parser.add_argument("--runtimes", default="torch,openvino,openvino-int8")
    parser.add_argument("--cases", type=int, default=0, help="how many cases, evenly from all; 0 for all")
    parser.add_argument("--tta_flip", default="true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--avx2", action="store_true", help="also with AVX2 alone (simulated)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = find_cases(args.dataset_dir)
    if args.cases:
        cases = cases[:: max(len(cases) // args.cases, 1)][: args.cases]
    slices = sum(len(case["image"]) for case in cases)
    print(f"{len(cases)} cases, {slices} slices, flip {args.tta_flip}")
    with tempfile.TemporaryDirectory() as name:
        data = linked(cases, Path(name, "data"))
        contestants: dict[str, dict] = {}
        for runtime in args.runtimes.split(","):
            contestants[runtime] = {"runtime": runtime}
            if args.avx2:
                contestants[f"{runtime}, AVX2"] = {"runtime": runtime, "environment": measuring.avx2(Path(name))}
        runs: dict[str, list[dict]] = {contestant: [] for contestant in contestants}
        for repeat in range(args.repeats):
            for contestant, options in contestants.items():
                out = Path(name, f"{contestant}-{repeat}")
                runs[contestant].append(segment(args, data, out, **options))
                print(f"  {repeat + 1}: {contestant}, {runs[contestant][-1]['seconds']:.1f} s", flush=True)
    first = next(iter(runs))
    columns = ("slices a second", f"times {first}", "CPU ms a slice", f"times {first}", "seconds in all", "memory, GiB")
    print("| runtime | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for runtime, found in runs.items():
        cells = [
            measuring.spread([slices / run["seconds"] for run in found], 1),
            measuring.spread([one["seconds"] / run["seconds"] for one, run in zip(runs[first], found)]),
            measuring.spread([1000 * run["cpu_seconds"] / slices for run in found], 1),
            measuring.spread([run["cpu_seconds"] / one["cpu_seconds"] for one, run in zip(runs[first], found)]),
            measuring.spread([run["in_all"] for run in found], 1),
            f"{max(run['memory_gib'] for run in found):.2f}",
        ]
        print(f"| {runtime} | " + " | ".join(cells) + " |")
    for runtime, found in runs.items():
        print(f"{runtime}: milliseconds a slice by stage")
        for stage, seconds in sorted(found[-1]["stages"].items(), key=lambda item: -item[1]):
            print(f"  {stage:24} {1000 * seconds / slices:.2f}")
    measuring.write(args.json, {"machine": measuring.machine(), "slices": slices, "flip": args.tta_flip, "runs": runs})


def linked(cases: list[dict], folder: Path) -> Path:
    """A folder of links to the folders of the cases."""
    folder.mkdir()
    for case in cases:
        (folder / case["case"]).symlink_to(Path(case["image"][0]).parent.resolve())
    return folder


def segment(args: argparse.Namespace, data: Path, out: Path, **options: Any) -> dict:
    """Segment all cases in a separate process."""
    return measuring.in_process(
        SEGMENT,
        config=ROOT / "bundle" / "configs" / "inference.json",
        bundle_root=ROOT / "bundle",
        dataset_dir=data,
        output_dir=out,
        checkpoint=args.checkpoint,
        outputs="mask,measurements",
        tta_flip=args.tta_flip,
        device=args.device,
        **options,
    )


if __name__ == "__main__":
    main()
