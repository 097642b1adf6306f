"""Time the parts of a training step, with one process and with several on one machine.

    python benchmarks/scaling.py

Each process trains the network of `train.json` on its own thread with the batch, crops, augmentation, loss, optimizer
and averaging of `train.json`, on synthetic slices; gradients are averaged after the backward pass, all at once, so that
the exchange can be timed by itself (DistributedDataParallel does it during the backward pass, in pieces). Two turns
alternate: all processes at once, exchanging by gloo; and the first alone, while the others wait. Ratios of the two
are valid even if the speed of the machine drifts; CPU times are valid even if other programs use the processor too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine
from monai.bundle import ConfigParser

from mri_seg.training.ddp import AverageBuffers
from mri_seg.training.slice_dataset import SliceDataset
from mri_seg.transforms.augment import AugmentBatch, RandomAugment
from mri_seg.utils.distributed import all_gather_object, all_reduce_max, cleanup, init_distributed, is_main_process

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "draw slices",
    "augment",
    "forward, backward",
    "all-reduce of gradients",
    "buffers, flag",
    "optimizer, average",
)


class Training:
    """A training run in which each part of a step is timed."""

    def __init__(self, batch: int) -> None:
        parser = ConfigParser(json.loads((ROOT / "bundle" / "configs" / "train.json").read_text()))
        parser["device"] = "cpu"
        self.network, self.loss, self.optimizer = map(parser.get_parsed_content, ("network", "loss", "optimizer"))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
        )
        size = parser["spatial_size"]
        generator = torch.Generator().manual_seed(0)
        case = {
            "image": torch.randn(1, *size, 64, generator=generator),
            "label": (torch.rand(1, *size, 64, generator=generator) > 0.9).float(),
        }
        seen = {name: parser[name] for name in ("num_slices", "mirror", "neighbor_steps")}
        dataset = SliceDataset([case], dict, progress=False, **seen)
        self.loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
        self.prepare = AugmentBatch(RandomAugment(parser["roi_size"]))
        self.buffers, self.engine = AverageBuffers(self.network), Engine(lambda *_: None)
        self.gradients = torch.zeros(sum(p.numel() for p in self.network.parameters()))
        self.amp = parser.get_parsed_content("amp")

    def step(self, exchange: bool) -> dict[str, tuple[float, float]]:
        """One step; seconds of each part, by the clock and on the processor."""
        times: dict[str, tuple[float, float]] = {}

        def timed(name: str, part: Callable, *args: Any) -> Any:
            clock, processor = time.perf_counter(), time.process_time()
            result = part(*args)
            times[name] = time.perf_counter() - clock, time.process_time() - processor
            return result

        batch = timed(PARTS[0], lambda: next(iter(self.loader)))
        image, label = timed(PARTS[1], lambda: self.prepare(batch, "cpu", memory_format=torch.channels_last))
        timed(PARTS[2], self._forward_backward, image, label)
        if exchange:
            dist.barrier()  # or waiting for the slowest would count as exchange
            timed(PARTS[3], dist.all_reduce, self.gradients)
            timed(PARTS[4], lambda: (self.buffers(self.engine), all_reduce_max(0)))
        timed(PARTS[5], self._update)
        return times

    def _update(self) -> None:
        self.optimizer.step()
        self.average.update_parameters(self.network)

    def _forward_backward(self, image: torch.Tensor, label: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.amp):
            logits = self.network(image)
        self.loss(logits.float(), label).backward()


def work(rank: int, args: argparse.Namespace) -> None:
    """Train in one process, in turns."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(args.processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(args.port)}
    init_distributed("cpu")
    training = Training(args.batch)
    training.step(exchange=True)
    turns: dict[str, list[dict[str, tuple[float, float]]]] = {"together": [], "alone": []}
    for _ in range(args.repeats):
        turns["together"] += [training.step(exchange=True) for _ in range(args.steps)]
        dist.barrier()
        if is_main_process():
            turns["alone"] += [training.step(exchange=False) for _ in range(args.steps)]
        dist.barrier()
    everyone = all_gather_object(turns["together"])
    if is_main_process():
        together = [step for part in everyone for step in part]
        print(table(together, turns["alone"], args.processes, training.gradients.numel()))
    cleanup()


def table(together: list[dict], alone: list[dict], processes: int, parameters: int) -> str:
    """Medians by the clock as a Markdown table, with the quartiles in brackets, and medians on the processor."""
    steps = {"one alone": alone, f"{processes} at once": together}
    lines = [
        "| part of a step, ms | " + " | ".join(f"{turn} | on the processor" for turn in steps) + " |",
        "| --- |" + " --- |" * 2 * len(steps),
    ]
    medians: dict[tuple[str, str], list[float]] = {}
    for name in (*PARTS, "step"):
        cells = []
        for turn, found in steps.items():
            times = [[sum(t[n] for part, t in s.items() if name in (part, "step")) for s in found] for n in (0, 1)]
            if not any(times[0]):
                cells += ["-", "-"]
                continue
            low, middle, high = statistics.quantiles(times[0], n=4)
            medians[name, turn] = [middle, statistics.median(times[1])]
            cells.append(f"{1000 * middle:.1f} ({1000 * low:.1f} to {1000 * high:.1f})")
            cells.append(f"{1000 * medians[name, turn][1]:.1f}")
        lines.append(f"| {' | '.join([name, *cells])} |")
    (one, _), (all_, _) = (medians["step", turn] for turn in steps)
    exchange = medians[PARTS[3], f"{processes} at once"][0]
    rate = 2 * (processes - 1) / processes * 4 * parameters / exchange / 2**20
    lines += [
        "",
        f"{processes} processes train on {processes * one / all_:.2f} times the slices a second of one. "
        f"All-reduce: {100 * exchange / all_:.1f} % of the step, {rate:.0f} MiB/s sent by each.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="slices a step of each process")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=10, help="turns")
    parser.add_argument("--port", type=int, default=29511, help="port by which the processes find one another")
    args = parser.parse_args()
    mp.spawn(work, args=(args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
