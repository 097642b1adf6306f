"""Measure memory and speed of training with its slices in memory and on disk, on phantoms.

    python benchmarks/cache.py --cases 4 --slices 155
    python benchmarks/cache.py --cases 1000 --slices 155 --places disk --linked --rounds 1

Random volumes in the size of a modern FLAIR are written as NIfTI. For each place of the slices, a process of its own
makes the data set twice (the slices on disk are there the second time) and then takes training steps with the bundle's
network. It reports the seconds of both, the median seconds of a step, its CPU time, which other programs change less,
and the peak of the memory that belongs to the process alone (`RssAnon`; mapped files are left out, since the system
frees them if it needs memory). Steps of both places alternate in rounds. With `--linked`, only the first case is
preprocessed, and the slices of all others are links to its slices: the files, maps and indices of a large data set
without its bytes on disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from measuring import in_process, machine, write

_CODE = """
import threading, torch
from pathlib import Path
from monai.bundle import ConfigParser
import mri_seg
from mri_seg.training.slice_cache import SliceCache, describe_settings

torch.set_num_threads(options["threads"])
peak = 0

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
before = anonymous()
parser = ConfigParser()
parser.read_config(options["config"])
parser.update({"cache": options["cache"], "cache_dir": options["cache_dir"], "num_workers": 1,
    "train#dataset#data": options["cases"], "slices_per_epoch": 16 * options["steps"], "amp": options["amp"]})
if options["linked"]:
    transform = parser.get_parsed_content("train#preprocessing")
    cache = SliceCache(options["cache_dir"], describe_settings(transform, mirror=parser["mirror"]))
    first, *others = options["cases"]
    parser.update({"train#dataset#data": [first]})
    parser.get_parsed_content("train#dataset")
    made = cache.find(first).file
    for case in others:
        for suffix in (".slices", ".json"):
            link = cache._file(case).with_suffix(suffix)
            if not link.exists():
                os.link(made.with_suffix(suffix), link)
    parser.update({"train#dataset#data": options["cases"]})
began = time.perf_counter()
dataset = parser.get_parsed_content("train#dataset")
found = {"cache": dataset.cache, "slices": len(dataset), "seconds": time.perf_counter() - began}
loader = parser.get_parsed_content("train#dataloader")
network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
augment = mri_seg.AugmentBatch(parser.get_parsed_content("train#augmentation"))
found["took"], found["loading"], found["cpu"] = [], [], []
batches = iter(loader)
while True:
    began, cpu = time.perf_counter(), time.process_time()
    batch = next(batches, None)
    if batch is None:
        break
    found["loading"].append(time.perf_counter() - began)
    image, label = augment(batch, "cpu")
    loss(network(image), label).backward()
    optimizer.step()
    optimizer.zero_grad()
    found["took"].append(time.perf_counter() - began)
    found["cpu"].append(time.process_time() - cpu)
found["memory_before_gib"], found["anonymous_gib"] = before, peak
"""


def write_cases(folder: Path, cases: int, slices: int, size: int) -> list[dict]:
    """Write volumes of random voxels in a head, with a tumour; one volume is written, the others are links to it."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    head = (rows**2 + columns**2 < 0.8)[..., None]
    image = (head * np.random.default_rng(0).integers(60, 200, (size, size, slices))).astype(np.int16)
    label = np.zeros((size, size, slices), np.uint8)
    label[size // 2 : size // 2 + 20, size // 2 : size // 2 + 20, slices // 3 : slices // 2] = 1
    affine = np.diag([0.94, 0.94, 1, 1])
    for name, volume in (("image", image), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"{name}.nii")
    found = []
    for n in range(cases):
        files = {}
        for name in ("image", "label"):
            files[name] = [str(folder / f"{n}_{name}.nii")]
            Path(files[name][0]).hardlink_to(folder / f"{name}.nii")
        found.append({"case": f"P{n}", **files})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--slices", type=int, default=155)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--places", nargs="+", default=["memory", "disk"], choices=["memory", "disk"])
    parser.add_argument("--linked", action="store_true", help="preprocess the first case alone")
    parser.add_argument("--folder", type=Path, help="where phantoms and slices are written (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config = Path(__file__).resolve().parent.parent / "bundle" / "configs" / "train.json"
    results: dict[str, list[dict]] = {place: [] for place in args.places}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        cases = write_cases(Path(folder), args.cases, args.slices, args.size)
        shared = {"cases": cases, "config": str(config), "steps": args.steps, "threads": args.threads, "amp": False}
        shared["linked"] = args.linked
        for number in range(args.rounds):
            for place in args.places:
                found = in_process(_CODE, cache=place, cache_dir=str(Path(folder, "cache")), **shared)
                results[place].append(found)
                took, loading = (statistics.median(found[key][2:]) for key in ("took", "loading"))
                print(
                    f"round {number}: {place}: {found['slices']} slices in {found['seconds']:.1f} s, "
                    f"step {took:.3f} s, of which loading {1000 * loading:.1f} ms, "
                    f"own memory {found['anonymous_gib']:.2f} GiB",
                    flush=True,
                )
        on_disk = sum(file.stat().st_size for file in Path(folder).glob("cache/*")) / 1e9
    print("\n| slices | data set, first time | again | a step | its CPU time | of which loading | own memory |")
    print("|" + " --- |" * 7)
    for place, runs in results.items():
        took, cpu, loading = ([value for run in runs for value in run[key][2:]] for key in ("took", "cpu", "loading"))
        again = f"{runs[1]['seconds']:.1f} s" if len(runs) > 1 else ""
        print(
            f"| {place} | {runs[0]['seconds']:.1f} s | {again} | {statistics.median(took):.3f} s | "
            f"{statistics.median(cpu):.3f} s | "
            f"{1000 * statistics.median(loading):.1f} ms | {max(run['anonymous_gib'] for run in runs):.2f} GiB |"
        )
    print(f"\nThe slices on disk take {on_disk:.2f} GB{', counting links as files' * args.linked}.")
    write(args.json, {"machine": machine(), "options": json.loads(json.dumps(vars(args), default=str)), **results})


if __name__ == "__main__":
    main()
