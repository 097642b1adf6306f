"""Training speed: the bundle's workflow against a plain PyTorch loop, in turn in one run.

    python benchmarks/training.py --dataset_dir data/kaggle_3m --split published

The plain loop is the published baseline's: each item reads one TIFF and its mask by PIL in a DataLoader, the network
runs eagerly in float32 and PyTorch's default memory format, Adam steps on binary cross-entropy, batch 16, whole slices
of 256 x 256. The bundle's workflow is `train.json` at the same size and batch: once with everything it does (three
neighbouring slices, augmentation, averaged weights, handlers), once with the published recipe. Both draw the same
number of slices; repeats alternate.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from mri_seg.inferers import bfloat16_is_fast
from mri_seg.lgg import datalist
from mri_seg.networks import AttentionUNet
from mri_seg.record import versions

ROOT = Path(__file__).resolve().parent.parent
PLAIN = "plain loop"


class SliceFiles(torch.utils.data.Dataset):
    """Slices read from their files each time, as the published loop does."""

    def __init__(self, cases: list[dict]) -> None:
        self.files = [pair for case in cases for pair in zip(case["image"], case["label"])]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """FLAIR and mask, both (1, H, W), 0 to 1."""
        image, mask = (np.asarray(Image.open(file), dtype=np.float32) / 255 for file in self.files[index])
        return torch.from_numpy(image[None, ..., 1]), torch.from_numpy(mask[None])


class PlainLoop:
    """The published loop, re-created."""

    def __init__(self, args: argparse.Namespace, cases: list[dict]) -> None:
        self.network = AttentionUNet()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.loss = torch.nn.BCEWithLogitsLoss()
        self.loader = torch.utils.data.DataLoader(
            SliceFiles(cases), batch_size=args.batch, shuffle=True, num_workers=args.workers
        )

    def run(self, steps: int) -> dict[str, float]:
        """Train for some steps; seconds in all and in the network."""
        started, network = time.perf_counter(), 0.0
        for step, (image, mask) in enumerate(self.loader):
            before = time.perf_counter()
            self.optimizer.zero_grad()
            self.loss(self.network(image), mask).backward()
            self.optimizer.step()
            network += time.perf_counter() - before
            if step + 1 == steps:
                break
        return {"seconds": time.perf_counter() - started, "network": network}


class BundleTraining:
    """`train.json` with overrides, an epoch a turn."""

    def __init__(self, args: argparse.Namespace, output_dir: str, *overlays: str, **overrides: Any) -> None:
        configs = [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", *overlays)]
        workflow = ConfigWorkflow(
            configs,
            workflow_type="train",
            bundle_root=str(ROOT / "bundle"),
            dataset_dir=args.dataset_dir,
            split=args.split,
            allow_missing=True,
            output_dir=output_dir,
            batch_size=args.batch,
            crop_size=[256, 256],
            epochs=args.repeats + 1,
            slices_per_epoch=args.steps * args.batch,
            val_interval=10**6,
            checkpoint_interval=0,
            **overrides,
        )
        workflow.initialize()
        started = time.perf_counter()
        self.slices = len(workflow.train_dataset)
        self.preparing = time.perf_counter() - started
        self.trainer = workflow.trainer
        self.trainer.state.max_epochs = 0
        self.network = self._begun = 0.0
        # The network's share runs from the prepared batch to the stepped optimizer: forward, loss, backward, clipping.
        prepare, step = self.trainer.prepare_batch, self.trainer.optimizer.step

        def timed_prepare(*arguments: Any, **options: Any) -> Any:
            batch = prepare(*arguments, **options)
            self._begun = time.perf_counter()
            return batch

        def timed_step(*arguments: Any, **options: Any) -> Any:
            result = step(*arguments, **options)
            self.network += time.perf_counter() - self._begun
            return result

        self.trainer.prepare_batch = timed_prepare
        self.trainer.optimizer.step = timed_step

    def run(self, steps: int) -> dict[str, float]:
        """Train for one epoch of so many steps, with all handlers; seconds in all and in the network."""
        self.network = 0.0
        self.trainer.state.max_epochs += 1
        started = time.perf_counter()
        self.trainer.run()
        return {"seconds": time.perf_counter() - started, "network": self.network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--split", default="published")
    parser.add_argument("--batch", type=int, default=16, help="slices a step")
    parser.add_argument("--steps", type=int, default=6, help="steps a repeat")
    parser.add_argument(
        "--repeats", type=int, default=5, help="repeats of each contestant, after one that is not counted"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of the plain loop's DataLoader")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "training.json")
    args = parser.parse_args()

    logging.disable(logging.INFO)
    slices = args.steps * args.batch
    cases = datalist(args.dataset_dir, args.split, "training", allow_missing=True)
    with tempfile.TemporaryDirectory() as runs:
        default = BundleTraining(args, f"{runs}/default")
        contestants = {
            PLAIN: PlainLoop(args, cases),
            "bundle, published recipe, float32": BundleTraining(
                args, f"{runs}/published", "published_recipe.json", **{"train#sampler#num_samples": slices}
            ),
            "bundle, default recipe, float32": BundleTraining(args, f"{runs}/float32", amp=False),
            "bundle, default recipe": default,
        }
        times: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for repeat in range(args.repeats + 1):
            for name, contestant in contestants.items():
                result = contestant.run(args.steps)
                if repeat:  # the first turn warms up
                    times[name].append(result)

    rows = {}
    for name, results in times.items():
        rates = [slices / r["seconds"] for r in results]
        ratios = [p["seconds"] / r["seconds"] for p, r in zip(times[PLAIN], results)]
        outside = [1 - r["network"] / r["seconds"] for r in results]
        rows[name] = {
            "slices_per_second": spread(rates),
            "ratio_to_plain_loop": spread(ratios),
            "share_outside_network": spread(outside),
        }
    rate = default.slices / default.preparing
    report = {
        "machine": {"processors": os.cpu_count(), "threads": torch.get_num_threads()},
        "bfloat16": bfloat16_is_fast("cpu"),
        "versions": versions(),
        "protocol": {key: str(value) for key, value in vars(args).items() if key not in ("output", "dataset_dir")},
        "training": rows,
        "preparing": {"slices": default.slices, "slices_per_second": rate},
    }
    args.output.write_text(json.dumps(report, indent=4) + "\n")
    print(table(rows))
    print(f"\nPreparing (reading, normalising, caching): {default.slices} slices, {rate:.0f} a second")


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, median and largest value."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def table(rows: dict[str, dict]) -> str:
    """The results as a Markdown table: medians, with the range in brackets."""

    def cell(entry: dict[str, float], scale: float = 1, digits: int = 1, unit: str = "") -> str:
        low, middle, high = (f"{entry[key] * scale:.{digits}f}" for key in ("min", "median", "max"))
        return f"{middle}{unit} ({low} to {high})"

    lines = [
        "| contestant | slices a second | times the plain loop | outside the network |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        cells = [
            cell(row["slices_per_second"]),
            cell(row["ratio_to_plain_loop"], digits=2),
            cell(row["share_outside_network"], scale=100, unit=" %"),
        ]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
