"""Training speed: the bundle's workflow against a plain PyTorch loop, MONAI scripts and nnU-Net's network, in turn.

    pip install --no-deps dynamic-network-architectures
    python benchmarks/training.py --dataset_dir data/kaggle_3m --profile --json runs/training.json
    python benchmarks/training.py --dataset_dir data/kaggle_3m --only "own crops" --avx2

The plain loop is the published baseline's: each item reads one TIFF and its mask by PIL in a DataLoader, the network
runs eagerly in float32 and PyTorch's default memory format, Adam steps on binary cross-entropy, batch 16, whole slices
of 256 x 256. The bundle's workflow is `train.json` at the same batch: at the same size with everything it does (three
neighbouring slices, augmentation, averaged weights, handlers) and with the published recipe; and at its own crops. A
typical MONAI script caches each slice, changes it by MONAI's transforms of single samples in the worker processes of a
DataLoader, and trains one of MONAI's networks, as large as ours, by SupervisedTrainer in float32. nnU-Net's network is
its 2D one as it plans it for 256 x 256 (7 stages, 32 to 512 channels, deep supervision) with its optimizer, on the
slices of the MONAI scripts; it is left out where the package is not installed.

All draw the same number of slices; repeats alternate. A turn is an epoch of a few steps. What is done once an epoch
(starting workers, a checkpoint) does not count, as an epoch has hundreds of steps; the profile shows it. Outside the
network are drawing slices, copying, augmentation, averaging of weights and handlers. The share of the limit is of the
machine's rate of matrix products in the type of the network's convolutions, with the operations that `FlopCounterMode`
counts on forward and backward pass. `--profile` shows the parts of a step of the default recipe.

The same program runs on a GPU, where there is one: the bundle as `train.json` has it there, with `--compile` by
torch.compile as well, the others with each batch copied to it, nnU-Net's in float16; parts are then as long as the GPU
takes for them. It has not been run on one yet; gpu.py compares with the GPU's floor.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import inspect
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import measuring
import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers import EMAHandler
from measuring import ROOT, spread
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityd,
)
from PIL import Image
from torch.utils.data import RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from mri_seg.datasets.lgg import datalist
from mri_seg.networks.attention_unet import AttentionUNet
from mri_seg.training.handlers import GradientClip

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLAIN = "plain loop"
DEFAULT = "bundle, default recipe, its own crops"
DRAWING, HANDLERS, AVERAGING, ONCE = "drawing slices", "handlers", "averaging of weights", "once an epoch"
OUTSIDE = (DRAWING, "copying", "augmentation", AVERAGING, HANDLERS)
STEP = (*OUTSIDE[:3], "forward", "loss", "backward", "clipping", "optimizer", *OUTSIDE[3:])


class Training:
    """A contestant: trains for one epoch per turn, and keeps the seconds of each part of a turn.

    Attributes:
        network: what it trains.
        kind: type of the network's convolutions.
        shape: channels, rows and columns that the network sees, known after a turn.
        turns: seconds by part of every turn but the first.
    """

    def __init__(self, network: torch.nn.Module, kind: str = "float32") -> None:
        self.network = network
        self.kind = kind
        self.shape: tuple[int, ...] = ()
        self.turns: list[dict[str, float]] = []
        self.parts = measuring.Parts(DRAWING)

    def run(self) -> None:
        """Take a turn; the first warms up."""
        first = not self.shape
        self.parts.begin()
        self.epoch()
        if not first:
            self.turns.append(self.parts.seconds())

    def epoch(self) -> None:
        """Train for an epoch."""
        raise NotImplementedError

    def seconds(self) -> list[float]:
        """Seconds of the steps of every turn."""
        return [sum(t for part, t in turn.items() if part != ONCE) for turn in self.turns]

    def operations(self) -> float:
        """Floating-point operations of a step for each slice, forward and backward."""
        network = copy.deepcopy(self.network).train()
        with FlopCounterMode(display=False) as counter:
            output = network(torch.zeros(1, *self.shape, device=DEVICE))
            parts = [output] if isinstance(output, torch.Tensor) else output
            torch.stack([part.sum() for part in parts]).sum().backward()
        return counter.get_total_flops()


class SliceFiles(torch.utils.data.Dataset):
    """Slices read from their files each time, as the published loop does."""

    def __init__(self, cases: list[dict]) -> None:
        self.files = slice_files(cases)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """FLAIR and mask, both (1, H, W), 0 to 1."""
        image, mask = (np.asarray(Image.open(file), dtype=np.float32) / 255 for file in self.files[index].values())
        return torch.from_numpy(image[None, ..., 1]), torch.from_numpy(mask[None])


class PlainLoop(Training):
    """The published loop, re-created."""

    def __init__(self, args: argparse.Namespace, cases: list[dict]) -> None:
        super().__init__(AttentionUNet().to(DEVICE))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.loss = torch.nn.BCEWithLogitsLoss()
        self.loader = torch.utils.data.DataLoader(**drawing(args, SliceFiles(cases)))

    def epoch(self) -> None:
        """Train for an epoch."""
        begin, step = self.parts.timed(ONCE, iter), self.parts.timed("step", self._step)
        for image, mask in begin(self.loader):
            step(image.to(DEVICE), mask.to(DEVICE))

    def _step(self, image: torch.Tensor, mask: torch.Tensor) -> None:
        self.shape = image.shape[1:]
        self.optimizer.zero_grad()
        self.loss(self.network(image), mask).backward()
        self.optimizer.step()


class EngineTraining(Training):
    """A MONAI trainer in which each part of a step is timed."""

    def __init__(self, trainer: SupervisedTrainer, kind: str = "float32") -> None:
        super().__init__(getattr(trainer.network, "_orig_mod", trainer.network), kind)  # of a compiled one
        self.trainer = trainer
        trainer.state.max_epochs = 0
        timed, prepare = self.parts.timed, cast(Any, trainer.prepare_batch)
        if getattr(prepare, "augment", None):
            prepare.augment = timed("augmentation", prepare.augment)
        trainer.prepare_batch = timed("copying", functools.partial(self._prepare, prepare))
        trainer.inferer = cast(Any, timed("forward", trainer.inferer))
        trainer.loss_function = timed("loss", trainer.loss_function)
        for name in ("zero_grad", "step"):
            setattr(trainer.optimizer, name, timed("optimizer", getattr(trainer.optimizer, name)))
        # ignite has no other access. Of a step, the parts above and handlers apart, the backward pass is left.
        trainer._process_function = timed("backward", trainer._process_function)
        cast(Any, trainer)._setup_dataloader_iter = timed(ONCE, trainer._setup_dataloader_iter)
        for event, handlers in trainer._event_handlers.items():
            handlers[:] = [(timed(part_of(event, handler), handler), *rest) for handler, *rest in handlers]

    def epoch(self) -> None:
        """Train for an epoch, with all handlers."""
        self.trainer.state.max_epochs += 1
        self.trainer.run()

    def _prepare(self, prepare: Callable, *args: Any, **kwargs: Any) -> Any:
        batch = prepare(*args, **kwargs)
        self.shape = batch[0].shape[1:]
        return batch


def part_of(event: Any, handler: Any) -> str:
    """The part of a step to which a handler of a trainer belongs."""
    if event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        return ONCE
    owner = getattr(inspect.unwrap(handler), "__self__", handler)
    kinds = {GradientClip: "clipping", EMAHandler: AVERAGING}
    return next((part for kind, part in kinds.items() if isinstance(owner, kind)), HANDLERS)


class BundleTraining(EngineTraining):
    """`train.json` with overlays and overrides.

    Attributes:
        slices: number of slices it draws from.
        preparing: seconds in which they were read, normalised and cached.
    """

    def __init__(self, *overlays: str, **overrides: Any) -> None:
        workflow = ConfigWorkflow(
            [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", *overlays)],
            workflow_type="train",
            bundle_root=str(ROOT / "bundle"),
            allow_missing=True,
            val_interval=10**6,
            checkpoint_interval=10**6,
            **{**cast(Any, {"train#dataset#progress": False}), **overrides},
        )
        workflow.initialize()
        started = time.perf_counter()
        self.slices = len(workflow.train_dataset)
        self.preparing = time.perf_counter() - started
        super().__init__(workflow.trainer, "bfloat16" if workflow.parser.get_parsed_content("amp") else "float32")


class MonaiScript(EngineTraining):
    """A typical script: a DataLoader with workers over a data set of single slices, and SupervisedTrainer."""

    def __init__(
        self,
        args: argparse.Namespace,
        dataset: CacheDataset,
        network: torch.nn.Module,
        loss: Callable | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        amp: bool = False,
    ) -> None:
        network = network.to(DEVICE)
        trainer = SupervisedTrainer(
            device=DEVICE,
            max_epochs=1,
            train_data_loader=DataLoader(**drawing(args, dataset), pin_memory=DEVICE.type == "cuda"),
            network=network,
            optimizer=optimizer or torch.optim.Adam(network.parameters(), lr=1e-3),
            loss_function=loss or DiceCELoss(sigmoid=True),
            amp=amp,
        )
        super().__init__(trainer, "bfloat16" if amp else "float32")  # float16 has the same rate


def cached_slices(args: argparse.Namespace, cases: list[dict]) -> CacheDataset:
    """Slices as dictionaries, cached up to the random transforms."""
    keys = ("image", "label")
    transforms = [
        LoadImaged(keys, reader="PILReader"),
        EnsureChannelFirstd(keys),
        Lambdad("image", lambda image: image[1:2]),  # FLAIR
        ScaleIntensityd(keys),
        RandFlipd(keys, prob=0.5, spatial_axis=0),
        RandAffined(
            keys, prob=0.5, rotate_range=0.35, scale_range=0.2, mode=("bilinear", "nearest"), padding_mode="border"
        ),
        RandAdjustContrastd("image", prob=0.35, gamma=(0.75, 1.35)),
        RandGaussianNoised("image", prob=0.35, std=0.1),
    ]
    return CacheDataset(slice_files(cases), Compose(transforms), num_workers=args.workers, progress=False)


def slice_files(cases: list[dict]) -> list[dict[str, str]]:
    """Files of image and label of each slice."""
    return [dict(zip(("image", "label"), pair)) for case in cases for pair in zip(case["image"], case["label"])]


def drawing(args: argparse.Namespace, dataset: Any) -> dict[str, Any]:
    """Options of a DataLoader that draws an epoch of this number of steps in worker processes."""
    sampler = RandomSampler(dataset, num_samples=args.steps * args.batch)
    return {"dataset": dataset, "batch_size": args.batch, "sampler": sampler, "num_workers": args.workers}


def network_of(name: str) -> torch.nn.Module:
    """A network of networks.json, for single slices."""
    definition = json.loads((ROOT / "benchmarks" / "networks.json").read_text())["experiments"][name]["network_def"]
    return ConfigParser({"network": definition, "num_slices": 1}).get_parsed_content("network")


def nnunet(args: argparse.Namespace, dataset: CacheDataset) -> MonaiScript:
    """nnU-Net v2's 2D network as planned for 256 x 256, with its optimizer."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        input_channels=1,
        n_stages=7,
        features_per_stage=(32, 64, 128, 256, 512, 512, 512),
        conv_op=torch.nn.Conv2d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2, 2, 2, 2),
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    ).to(DEVICE)
    loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    return MonaiScript(args, dataset, network, loss, optimizer, amp=DEVICE.type == "cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--split", default="published")
    parser.add_argument("--batch", type=int, default=16, help="slices a step")
    parser.add_argument("--steps", type=int, default=12, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contestant, after one not counted")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the plain loop and the scripts")
    parser.add_argument("--compile", action="store_true", help="compile the bundle's network by torch.compile")
    parser.add_argument("--only", default="", help="only contestants whose names hold this, and the plain loop")
    parser.add_argument("--profile", action="store_true", help="show the parts of a step of the default recipe")
    parser.add_argument("--avx2", action="store_true", help="with AVX2 alone (simulated)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.avx2 and "LD_PRELOAD" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(subprocess.call([sys.executable, *sys.argv], env=os.environ | measuring.avx2(Path(folder))))
    del sys.argv[1:]  # the bundle would look for options of its own among them

    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as runs:
        contestants = make(args, runs)
        measuring.in_turn({name: one.run for name, one in contestants.items()}, args.repeats)
    limits = measuring.limits(args.repeats)
    rows = {}
    print("| contestant | type | slices a second | times the plain loop | outside the network | share of the limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, one in contestants.items():
        rates = [args.steps * args.batch / t for t in one.seconds()]
        ratios = [plain / t for plain, t in zip(contestants[PLAIN].seconds(), one.seconds())]
        outside = [100 * sum(t.get(part, 0) for part in OUTSIDE) / all_ for t, all_ in zip(one.turns, one.seconds())]
        operations = one.operations() / 1e9
        shares = [100 * rate * operations / limits[one.kind] for rate in rates]
        rows[name] = {
            "slices_per_second": rates,
            "ratio_to_plain_loop": ratios,
            "percent_outside_network": outside,
            "percent_of_limit": shares,
            "gflop_per_slice": operations,
            "input": one.shape,
            "type": one.kind,
            "parameters": sum(p.numel() for p in one.network.parameters()),
            "seconds_by_part": one.turns,
        }
        cells = [spread(rates, 1), spread(ratios), spread(outside, 1) + " %", spread(shares, 0) + " %"]
        print(f"| {' | '.join([name, one.kind, *cells])} |")
    print("\nLimits: " + ", ".join(f"{kind} {rate:.0f}" for kind, rate in limits.items()) + " (GFLOP/s; copy GB/s)")
    protocol = {key: value for key, value in vars(args).items() if key not in ("json", "dataset_dir")}
    found = {"machine": measuring.machine(), "protocol": protocol, "limits": limits, "training": rows}
    bundles = [one for one in contestants.values() if isinstance(one, BundleTraining)]
    if bundles:
        rates = [one.slices / one.preparing for one in bundles]
        found["preparing"] = {"slices": bundles[0].slices, "slices_per_second": rates}
        print(f"Preparing (reading, normalising, caching) of {bundles[0].slices} slices: {spread(rates, 0)} a second")
    if args.profile:
        print("\n" + profile(contestants[DEFAULT].turns, args.steps))
    measuring.write(args.json, found)


def make(args: argparse.Namespace, runs: str) -> dict[str, Training]:
    """The requested contestants, by name."""
    slices, whole = args.steps * args.batch, {"roi_size": [256, 256]}
    cases = datalist(args.dataset_dir, args.split, "training", allow_missing=True)
    cached = functools.cache(lambda: cached_slices(args, cases))

    def bundle(*overlays: str, **overrides: Any) -> BundleTraining:
        return BundleTraining(
            *overlays,
            dataset_dir=args.dataset_dir,
            split=args.split,
            output_dir=tempfile.mkdtemp(dir=runs),
            batch_size=args.batch,
            epochs=args.repeats + 1,
            slices_per_epoch=slices,
            **{"compile": args.compile, **overrides},
        )

    makers: dict[str, Callable[[], Training]] = {
        PLAIN: lambda: PlainLoop(args, cases),
        "bundle, published recipe, float32": lambda: bundle(
            "published_recipe.json", **whole, **{"train#sampler#num_samples": slices}
        ),
        "bundle, published recipe, float32, compiled": lambda: bundle(
            "published_recipe.json", **whole, compile=True, **{"train#sampler#num_samples": slices}
        ),
        "bundle, default recipe, float32": lambda: bundle(**whole, amp=False),
        "bundle, default recipe": lambda: bundle(**whole),
        DEFAULT: bundle,
        f"{DEFAULT}, float32, compiled": lambda: bundle(amp=False, compile=True),
        "MONAI's AttentionUnet, typical script": lambda: MonaiScript(args, cached(), network_of("MONAI AttentionUnet")),
        "MONAI's UNet, typical script": lambda: MonaiScript(args, cached(), network_of("MONAI UNet")),
    }
    if importlib.util.find_spec("dynamic_network_architectures"):
        makers["nnU-Net's 2D network"] = lambda: nnunet(args, cached())
    else:
        print("nnU-Net's 2D network is left out: pip install --no-deps dynamic-network-architectures")
    if args.avx2:  # the compiler does not run on the simulated processor
        makers = {name: maker for name, maker in makers.items() if "compiled" not in name}
    always = (PLAIN, DEFAULT) if args.profile else (PLAIN,)
    return {name: maker() for name, maker in makers.items() if args.only in name or name in always}


def profile(turns: list[dict[str, float]], steps: int) -> str:
    """Make a table of the parts of a step."""
    step = [{part: 1000 * turn.get(part, 0) / steps for part in STEP} for turn in turns]
    lines = [f"| part of a step ({DEFAULT}) | ms | share |", "| --- | --- | --- |"]
    for part in STEP:
        shares = [100 * times[part] / sum(times.values()) for times in step]
        lines.append(f"| {part} | {spread((times[part] for times in step), 1)} | {spread(shares, 1)} % |")
    whole = spread((sum(times.values()) for times in step), 1)
    once = spread((1000 * turn.get(ONCE, 0) for turn in turns), 0)
    return "\n".join([*lines, f"| step | {whole} | |", "", f"Besides, {ONCE} (checkpoint, logs): {once} ms"])


if __name__ == "__main__":
    main()
