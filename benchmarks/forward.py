"""Time the network's forward pass on the CPU: PyTorch in several ways, OpenVINO in float32 and 8 bits, ONNX Runtime.

    python benchmarks/forward.py --dataset_dir data/kaggle_3m --json forward.json

Contestants take turns on whole slices of 256 x 256; then those named after "with air skipped" on whole volumes, by the
boxes of `mri_seg.inferers.HeadInferer`, counted in slices of the volumes. Ratios are to PyTorch's eager float32 in the
same turn: of the published network, with random weights, and of the network of inference.json. The share is of the
machine's rate of matrix products in the same type, measured in the same run, with the operations that
`FlopCounterMode` counts on the whole slices; what skipped air saves counts as if it were computed.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measuring
import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SimpleInferer, SliceInferer
from torch.utils.flop_counter import FlopCounterMode

from mri_seg.inferers import AutocastInferer, HeadInferer
from mri_seg.networks import AttentionUNet
from mri_seg.quantization import quantize
from mri_seg.runtimes import RuntimeInferer, int8_file
from mri_seg.studies import find_cases
from mri_seg.weights import read_weights

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = "published network, torch, eager"
EAGER = "torch, eager"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "bundle" / "models" / "model.pt")
    parser.add_argument("--cases", type=int, default=4, help="volumes of the runs with air skipped")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    config = ConfigParser()
    config.read_config(str(ROOT / "bundle" / "configs" / "inference.json"))
    network = config.get_parsed_content("network_def").eval()
    network.load_state_dict(read_weights(args.checkpoint))
    prepare = config.get_parsed_content("preprocessing")
    cases = find_cases(args.dataset_dir)
    cases = cases[:: max(len(cases) // args.cases, 1)][: args.cases]
    volumes = [{"image": torch.as_tensor(prepare(case)["image"])} for case in cases]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        checkpoint = args.checkpoint
        if not int8_file(checkpoint).is_file():
            checkpoint = Path(shutil.copy(checkpoint, folder))
            quantize(copy.deepcopy(network), checkpoint, volumes, slices=30)  # enough to time it
        measure(args, network, checkpoint, [volume["image"][None] for volume in volumes])


def measure(args: argparse.Namespace, network: torch.nn.Module, checkpoint: Path, volumes: list[torch.Tensor]) -> None:
    image = torch.randn(args.batch, volumes[0].shape[1], 256, 256)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    published = AttentionUNet(in_channels=image.shape[1]).eval()

    def runtime(name: str, inferer: Inferer) -> RuntimeInferer:
        return RuntimeInferer(inferer, name, checkpoints=[checkpoint])

    def volumes_by(inferer: Inferer, member: torch.nn.Module, *, enabled: bool = True) -> Callable:
        infer = HeadInferer(inferer, enabled=enabled, slices_per_batch=args.batch)
        return lambda: [infer(volume, member) for volume in volumes]

    slices = SliceInferer(roi_size=(-1, -1), sw_batch_size=args.batch, spatial_dim=2)
    whole: dict[str, Callable] = {
        PUBLISHED: lambda: published(image),
        EAGER: lambda: network(image),
        "torch, channels last": lambda: last(image),
        "torch, channels last, bfloat16": lambda: AutocastInferer(SimpleInferer())(image, last),
    }
    if not args.no_compile:
        compiled = torch.compile(last)
        whole["torch.compile, channels last"] = lambda: compiled(image)
    for name in ("openvino", "openvino-int8", "onnxruntime"):
        whole[name] = partial(runtime(name, SimpleInferer()), image, network)
    skipped = {
        PUBLISHED: volumes_by(runtime("torch", slices), published, enabled=False),
        EAGER: volumes_by(runtime("torch", slices), network, enabled=False),
        "torch, channels last, bfloat16": volumes_by(AutocastInferer(runtime("torch", slices)), last),
        "openvino": volumes_by(runtime("openvino", slices), network),
        "openvino-int8": volumes_by(runtime("openvino-int8", slices), network),
    }
    operations = {PUBLISHED: gflop(published, image), EAGER: gflop(network, image)}
    limits = measuring.limits(args.repeats)
    count = sum(volume.shape[-1] for volume in volumes)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    print(f"{operations[EAGER]:.2f} GFLOP a slice of 256 x 256, the published network {operations[PUBLISHED]:.2f}")
    rates = ", ".join(f"{kind} {limits[kind]:.0f}" for kind in ("float32", "bfloat16", "int8"))
    print(f"matrix products, 10^9 operations a second: {rates}; copy {limits['copy']:.0f} GB/s")
    found = {"machine": measuring.machine(), "gflop_a_slice": operations, "limits": limits, "repeats": args.repeats}
    for title, contestants, number in (("whole slices", whole, args.batch), ("with air skipped", skipped, count)):
        print(f"\n| {title} | slices a second | times {PUBLISHED} | times {EAGER} | share of matrix products |")
        print("|" + " --- |" * 5)
        seconds = measuring.in_turn(contestants, args.repeats)
        found[title] = {}
        for name, times in seconds.items():
            rates = [number / t for t in times]
            ratios = {mark: [one / other for one, other in zip(seconds[mark], times)] for mark in (PUBLISHED, EAGER)}
            limit = limits[next((kind for kind in ("bfloat16", "int8") if kind in name), "float32")]
            shares = [100 * rate * operations.get(name, operations[EAGER]) / limit for rate in rates]
            found[title][name] = {"slices_a_second": rates, "ratios": ratios, "share_of_limit_percent": shares}
            cells = [measuring.spread(rates, 1), *map(measuring.spread, ratios.values())]
            print(f"| {name} | {' | '.join(cells)} | {measuring.spread(shares, 0)} % |")
    measuring.write(args.json, found)


def gflop(network: torch.nn.Module, image: torch.Tensor) -> float:
    """10^9 floating-point operations of a slice."""
    with FlopCounterMode(display=False) as counter:
        network(image[:1])
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    main()
