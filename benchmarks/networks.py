"""Compare the training speed of the networks in networks.json: how many slices each can process in the same time.

    python benchmarks/networks.py

Each network takes a training step (forward, loss, backward, optimizer) on the same random batch, in turn; the ratio of
times to the first network says how many slices it sees while the first sees `slices_per_epoch`. With these numbers in
networks.json, `python benchmarks/experiments.py benchmarks/networks.json` trains all of them for the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from mri_seg.inference.inferers import bfloat16_is_fast

ROOT = Path(__file__).resolve().parent.parent


class Contestant:
    """A network of the list with the training recipe's loss and optimizer."""

    def __init__(self, overrides: dict, batch_size: int) -> None:
        parser = ConfigParser()
        parser.read_config(str(ROOT / "bundle" / "configs" / "train.json"))
        parser.update({**overrides, "device": "$torch.device('cpu')"})
        self.network = parser.get_parsed_content("network")
        self.loss = parser.get_parsed_content("loss")
        self.optimizer = parser.get_parsed_content("optimizer")
        size = parser.get_parsed_content("roi_size")
        self.image = torch.randn(batch_size, parser["num_slices"], *size)
        self.image = self.image.to(memory_format=torch.channels_last)
        self.label = (torch.rand(batch_size, 1, *size) < 0.05).float()
        self.amp = bfloat16_is_fast(torch.device("cpu"))

    def step(self) -> float:
        """Return the seconds of one training step."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            logits = self.network(self.image)
        self.loss(logits.float(), self.label).backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def operations(self) -> float:
        """Return the floating-point operations of a forward pass of one 256 x 256 slice."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network.eval()(torch.randn(1, self.image.shape[1], 256, 256))
        return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path, default=ROOT / "benchmarks" / "networks.json")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    plan = json.loads(args.list.read_text(encoding="utf-8"))
    contestants = {
        name: Contestant({**plan["common"], **overrides}, args.batch_size)
        for name, overrides in plan["experiments"].items()
    }
    for contestant in contestants.values():
        contestant.step()
    steps = [{name: contestant.step() for name, contestant in contestants.items()} for _ in range(args.repeats)]
    mark = next(iter(contestants))
    print("| network | parameters | GFLOP a slice of 256 x 256 | time of a step, against the first |")
    print("| --- | --- | --- | --- |")
    for name, contestant in contestants.items():
        parameters = sum(p.numel() for p in contestant.network.parameters())
        ratios = [step[name] / step[mark] for step in steps]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {parameters:,} | {contestant.operations() / 1e9:.2f} | {spread} |")


if __name__ == "__main__":
    main()
