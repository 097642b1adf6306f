"""Time training, inference from GPU memory and inference from files on a GPU, against its floor and the published loop.

    python benchmarks/gpu.py --dataset_dir data/kaggle_3m --json gpu.json

It has not been run on a GPU yet. Without one it rehearses on the CPU (`--batch 4 --steps 1 --repeats 1 --cases 2`), and
compiles nothing.

The bundle trains as `train.json` has it on a GPU: slices kept on it, batches augmented on it, bfloat16, channels last;
here compiled as well, and in larger batches. The published loop is the plain one of training.py, at its own batch of
16. The published network infers eagerly in float32, ours in bfloat16, channels last, compiled, on slices that are on
the GPU. The floor of a slice is the longer of two times: its operations (`FlopCounterMode`) at the GPU's rate of matrix
products in bfloat16, and the bytes its convolutions must read and write in bfloat16 at its rate of copying; a training
step moves three times the bytes of a forward pass. `share` is of that floor. From files: files.py on the GPU.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import files
import measuring
import torch
import training
from forward import CHECKPOINT, gflop, shipped_network
from measuring import spread
from monai.inferers import SimpleInferer

from mri_seg.inference.inferers import AutocastInferer
from mri_seg.io.cases import find_cases
from mri_seg.networks.attention_unet import AttentionUNet

BFLOAT16 = 2  # bytes
DEVICE = training.DEVICE
LIMITS = """
import measuring
found = measuring.limits(options["repeats"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--split", default="published")
    parser.add_argument("--batch", type=int, default=64, help="slices a step of the bundle, and a call of inference")
    parser.add_argument("--steps", type=int, default=50, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=8, help="worker processes of the published loop")
    parser.add_argument("--cases", type=int, default=0, help="how many cases from files, 0 for all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    del sys.argv[1:]  # the bundle would look for options of its own among them

    logging.disable(logging.INFO)
    print(torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU: a rehearsal on the CPU")
    work = {"training": train(args), "inference from memory": infer(args)}
    limits = measuring.in_process(LIMITS, repeats=args.repeats)
    print(f"bfloat16 {limits['bfloat16']:.0f} GFLOP/s, copy {limits['copy']:.0f} GB/s")
    found: dict[str, Any] = {title: table(title, contestants, limits) for title, contestants in work.items()}
    found["from files"] = from_files(args)
    protocol = {key: value for key, value in vars(args).items() if key not in ("json", "dataset_dir")}
    measuring.write(args.json, {"machine": measuring.machine(), "protocol": protocol, "limits": limits, **found})


def train(args: argparse.Namespace) -> dict[str, tuple]:
    """The published loop, and the bundle on whole slices and on its own crops, in turn."""
    ours = {**vars(args), "compile": DEVICE.type == "cuda", "only": "default recipe", "profile": False, "avx2": False}
    with tempfile.TemporaryDirectory() as runs:
        contestants = training.make(argparse.Namespace(**{**ours, "batch": 16, "only": training.PLAIN}), runs)
        contestants = {**training.make(argparse.Namespace(**ours), runs), **contestants}
        contestants.pop("bundle, default recipe, float32")
        measuring.in_turn({name: one.run for name, one in contestants.items()}, args.repeats)
    return {
        name: (
            args.steps * (16 if name == training.PLAIN else args.batch),
            one.seconds(),
            one.operations(),
            3 * measuring.traffic(one.network, torch.zeros(1, *one.shape, device=DEVICE), BFLOAT16),
        )
        for name, one in contestants.items()
    }


@torch.no_grad()
def infer(args: argparse.Namespace) -> dict[str, tuple]:
    """Forward passes over slices that are on the device."""
    config, network = shipped_network(CHECKPOINT)
    network = cast(Any, network).to(DEVICE, memory_format=torch.channels_last)
    channels = config.get_parsed_content("network_def#in_channels")
    published = AttentionUNet(in_channels=channels).eval().to(DEVICE)
    image = torch.randn(args.batch, channels, 256, 256, device=DEVICE)
    last, compiled, half = (
        image.to(memory_format=torch.channels_last),
        torch.compile(network) if DEVICE.type == "cuda" else network,
        AutocastInferer(SimpleInferer()),
    )
    runs: dict[str, Callable] = {
        "published network, eager": lambda: [published(image) for _ in range(args.steps)],
        "default network, eager, bfloat16": lambda: [half(last, network) for _ in range(args.steps)],
        "default network, compiled, bfloat16": lambda: [half(last, compiled) for _ in range(args.steps)],
    }
    return {
        name: (
            args.steps * args.batch,
            seconds,
            1e9 * gflop(copy.deepcopy(member), image),
            measuring.traffic(member, image[:1], BFLOAT16),
        )
        for (name, seconds), member in zip(
            measuring.in_turn(runs, args.repeats).items(), (published, network, network), strict=True
        )
    }


def from_files(args: argparse.Namespace) -> dict[str, list[float]]:
    """Files to files, every run in a process of its own."""
    cases = find_cases(args.dataset_dir)[: args.cases or None]
    slices, rates = sum(len(case["image"]) for case in cases), []
    options = argparse.Namespace(checkpoint=CHECKPOINT, tta_flip="true", device=str(DEVICE))
    with tempfile.TemporaryDirectory() as name:
        data = files.linked(cases, Path(name, "data"))
        for repeat in range(args.repeats):
            run = files.segment(options, data, Path(name, str(repeat)), runtime="torch")
            rates.append(slices / run["seconds"])
    print(f"\nFiles to files, {len(cases)} cases, flip: {spread(rates, 1)} slices a second")
    return {"slices_a_second": rates}


def table(title: str, work: dict[str, tuple], limits: dict[str, float]) -> dict[str, dict]:
    """Print and return slices per second, the ratio to the first contestant, and the fraction of the floor.

    Args:
        title: what was done.
        work: slices and seconds of the turns, operations and bytes of a slice, by contestant.
        limits: of :py:func:`measuring.limits`.
    """
    mark = next(iter(work))
    print(f"\n| {title} | slices a second | times {mark} | share of the floor | floor: operations | bytes |")
    print("|" + " --- |" * 6)
    found, others = {}, [work[mark][0] / seconds for seconds in work[mark][1]]
    for name, (slices, seconds, operations, moved) in work.items():
        rates = [slices / time for time in seconds]
        floors = [limits["bfloat16"] * 1e9 / operations, limits["copy"] * 1e9 / moved]  # slices a second
        ratios = [rate / other for rate, other in zip(rates, others)]
        shares = [100 * rate / min(floors) for rate in rates]
        found[name] = {"slices_a_second": rates, "times": ratios, "share_of_floor_percent": shares, "floors": floors}
        cells = [spread(rates, 0), spread(ratios, 1), spread(shares, 0) + " %", *(f"{floor:.0f}" for floor in floors)]
        print(f"| {name} | {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    main()
