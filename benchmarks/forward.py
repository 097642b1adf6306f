"""Time the forward pass on the CPU: PyTorch in several ways, OpenVINO in float32 and 8 bits, ONNX Runtime.

    python benchmarks/forward.py --dataset_dir data/kaggle_3m --json forward.json

Contestants, the published network with random weights and the network of inference.json, take turns on whole slices of
256 x 256, three batches a turn; then on whole volumes with air skipped, by the boxes of
`mri_seg.inference.inferers.ForegroundSliceInferer`, counted in slices of the volumes. Ratios are to PyTorch's eager
float32 in the same turn, of the published network and of the same network, with nothing skipped. The share is of the
machine's rate of matrix products in the same type, measured in the same run, with the operations that
`FlopCounterMode` counts on the whole slices; what skipped air saves counts as if it were computed.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import measuring
import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SimpleInferer
from torch.utils.flop_counter import FlopCounterMode

from mri_seg.config.weights import load_weights
from mri_seg.inference.inferers import AutocastInferer, ForegroundSliceInferer
from mri_seg.inference.quantization import quantize
from mri_seg.inference.runtimes import RuntimeInferer, int8_file
from mri_seg.io.cases import find_cases
from mri_seg.networks.attention_unet import AttentionUNet

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "bundle" / "models" / "model.pt"
PUBLISHED, DEFAULT = "published network", "default network"
EAGER = "torch, eager"
CALLS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--cases", type=int, default=4, help="volumes of the runs with air skipped")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    config, network = shipped_network(args.checkpoint)
    published = AttentionUNet(in_channels=config.get_parsed_content("network_def#in_channels")).eval()
    prepare = config.get_parsed_content("preprocessing")
    cases = find_cases(args.dataset_dir)
    cases = cases[:: max(len(cases) // args.cases, 1)][: args.cases]
    volumes = [{"image": torch.as_tensor(prepare(case)["image"])} for case in cases]
    networks: dict[str, Any] = {PUBLISHED: (published, None), DEFAULT: (network, args.checkpoint)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for number, (name, (member, checkpoint)) in enumerate(networks.items()):
            if checkpoint is None or not int8_file(checkpoint).is_file():
                checkpoint = Path(folder, f"{number}.pt")
                torch.save(member.state_dict(), checkpoint)
                quantize(copy.deepcopy(member), checkpoint, volumes, slices=30)  # enough to time it
                networks[name] = member, checkpoint
        measure(args, networks, [volume["image"][None] for volume in volumes])


def measure(
    args: argparse.Namespace, networks: dict[str, tuple[torch.nn.Module, Path]], volumes: list[torch.Tensor]
) -> None:
    image = torch.randn(args.batch, volumes[0].shape[1], 256, 256)
    count = sum(volume.shape[-1] for volume in volumes)
    whole: dict[tuple[str, str], Callable] = {}
    skipped: dict[tuple[str, str], Callable] = {}

    def repeated(inferer: Callable, network: Callable) -> Callable:
        return lambda: [inferer(image, network) for _ in range(CALLS)]

    def of_volumes(inferer: Inferer, network: torch.nn.Module, **options: Any) -> Callable:
        infer = ForegroundSliceInferer(inferer, slices_per_batch=args.batch, **options)
        return lambda: [infer(volume, network) for volume in volumes]

    stack = torch.cat([volume[0].movedim(-1, 0) for volume in volumes])

    def in_batches(network: torch.nn.Module) -> None:
        for batch in stack.split(args.batch):
            network(batch)

    for name, (network, checkpoint) in networks.items():
        last = cast(Any, copy.deepcopy(network)).to(memory_format=torch.channels_last)
        slices, half = SimpleInferer(), AutocastInferer(SimpleInferer())
        ways: dict[str, Callable] = {
            EAGER: repeated(slices, network),
            "torch, channels last": repeated(slices, last),
            "torch, channels last, bfloat16": repeated(half, last),
        }
        if not args.no_compile:
            ways["torch.compile, channels last"] = repeated(slices, torch.compile(last))
        on_volumes: dict[str, Callable] = {
            f"{EAGER}, nothing skipped": functools.partial(in_batches, network),
            "torch, channels last, bfloat16": of_volumes(half, last),
        }
        for runtime in ("openvino", "openvino-int8", "onnxruntime"):
            inferer = RuntimeInferer(slices, runtime, checkpoints=[checkpoint])
            ways[runtime] = repeated(inferer, network)
            on_volumes[runtime] = of_volumes(inferer, network, threads=1)  # as inference.json has it
        whole |= {(name, way): run for way, run in ways.items()}
        skipped |= {(name, way): run for way, run in on_volumes.items()}

    operations = {name: gflop(network, image) for name, (network, _) in networks.items()}
    limits = measuring.limits(args.repeats)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    print("GFLOP a slice of 256 x 256: " + ", ".join(f"{name} {number:.2f}" for name, number in operations.items()))
    peaks = ", ".join(f"{kind} {limits[kind]:.0f}" for kind in ("float32", "bfloat16", "int8"))
    print(f"matrix products, 10^9 operations a second: {peaks}; copy {limits['copy']:.0f} GB/s")
    found: dict[str, Any] = {
        "machine": measuring.machine(),
        "gflop_a_slice": operations,
        "limits": limits,
        "repeats": args.repeats,
    }
    tables = (("whole slices", whole, CALLS * args.batch), ("air skipped", skipped, count))
    for title, contestants, number in tables:
        seconds = measuring.in_turn(contestants, args.repeats)
        found[title] = {}
        for name in networks:
            print(f"\n| {name}, {title} | slices a second | times published, eager | times eager | share |")
            print("|" + " --- |" * 5)
            of_network = {way: times for (owner, way), times in seconds.items() if owner == name}
            marks = [
                next(times for (owner, _), times in seconds.items() if owner == mark) for mark in (PUBLISHED, name)
            ]
            for way, times in of_network.items():
                rates = [number / t for t in times]
                ratios = [[one / other for one, other in zip(mark, times)] for mark in marks]
                limit = limits[next((kind for kind in ("bfloat16", "int8") if kind in way), "float32")]
                shares = [100 * rate * operations[name] / limit for rate in rates]
                found[title][f"{name}, {way}"] = {
                    "slices_a_second": rates,
                    "times_published_eager": ratios[0],
                    "times_eager": ratios[1],
                    "share_of_limit_percent": shares,
                }
                cells = [measuring.spread(rates, 1), *map(measuring.spread, ratios), measuring.spread(shares, 0)]
                print(f"| {way} | {' | '.join(cells)} % |")
    measuring.write(args.json, found)


def shipped_network(checkpoint: Path) -> tuple[ConfigParser, torch.nn.Module]:
    """inference.json, and its network with weights."""
    config = ConfigParser()
    config.read_config(str(ROOT / "bundle" / "configs" / "inference.json"))
    network = config.get_parsed_content("network_def").eval()
    load_weights(network, checkpoint)
    return config, network


def gflop(network: torch.nn.Module, image: torch.Tensor) -> float:
    """10^9 floating-point operations of a slice."""
    with FlopCounterMode(display=False) as counter:
        network(image[:1])
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    main()
