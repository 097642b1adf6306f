"""Show in TensorBoard what a training does: curves, validation slices, attention, settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.handlers import TensorBoardHandler
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mri_seg.utils.distributed import all_reduce_sum
from mri_seg.visualize.overlays import (
    PREDICTION,
    REFERENCE,
    attention_overlay,
    contact_sheet,
    draw_contours,
    grey_levels,
    head_box,
    tile,
)

__all__ = [
    "LAYOUT",
    "LearningRateHandler",
    "PrecisionRecallCurve",
    "RunDescription",
    "TensorBoardSlices",
    "model_summary",
    "precision_recall_rows",
    "voxel_counts",
    "write_metrics",
]

METRICS = ("patient_dice", "slice_dice", "slice_precision", "slice_recall")
"""Metrics of validation by which runs are compared."""

LAYOUT = {
    "Overview": {
        "Training loss": ["Multiline", ["train/loss"]],
        "Validation, patient protocol: Dice": ["Multiline", ["validation/patient_dice"]],
        "Learning rate": ["Multiline", ["train/learning_rate"]],
        "Validation, slice protocol: Dice": ["Multiline", ["validation/slice_dice"]],
        "Validation, slice protocol: precision": ["Multiline", ["validation/slice_precision"]],
        "Validation, slice protocol: recall": ["Multiline", ["validation/slice_recall"]],
    }
}
"""What TensorBoard's page of custom scalars shows, in the form of ``SummaryWriter.add_custom_scalars``."""


def write_metrics(engine: Engine, writer: SummaryWriter) -> None:
    """Write an evaluator's metrics in one group: ``epoch_event_writer`` of MONAI's ``TensorBoardStatsHandler``.

    Args:
        engine: the evaluator, its epoch the trainer's.
        writer: where to write.
    """
    for name, value in engine.state.metrics.items():
        writer.add_scalar(f"validation/{name}", value, engine.state.epoch)


class LearningRateHandler(TensorBoardHandler):
    """Write the learning rate of a trainer's optimizer at the end of every epoch.

    Args:
        optimizer: the optimizer whose first group's learning rate is written.
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        summary_writer: SummaryWriter | None = None,
        log_dir: PathLike | str = "./runs",
    ) -> None:
        super().__init__(summary_writer, str(log_dir))
        self.optimizer = optimizer

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write."""
        self._writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], engine.state.epoch)


class TensorBoardSlices(TensorBoardHandler):
    """Write one picture an epoch of a fixed set of validation slices.

    Each slice is FLAIR with the outlines of reference and prediction. If the network has ``forward_with_attention``,
    the attention of each gate over FLAIR stands beside it at half the size, row by row from the finest to the coarsest.

    Args:
        dataset: validation cases: ``image`` ``(C, H, W, D)`` as the network takes it, its middle channel the slice
            itself, and ``label`` ``(1, H, W, D)``.
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
        number: how many cases to show, each by its slice with the largest tumour.
        interval: show every so many epochs.
        threshold: probability from which a pixel counts as tumour.
    """

    def __init__(
        self,
        dataset: Sequence[dict],
        *,
        summary_writer: SummaryWriter | None = None,
        log_dir: PathLike | str = "./runs",
        number: int = 4,
        interval: int = 1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(summary_writer, str(log_dir))
        self.dataset = dataset
        self.number = number
        self.interval = interval
        self.threshold = threshold
        self._slices: list[tuple[torch.Tensor, np.ndarray]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator that validates."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw and write."""
        if engine.state.epoch % self.interval:
            return
        if not self._slices:
            self._slices = [_largest_tumour(self.dataset[n]) for n in range(min(self.number, len(self.dataset)))]
        pictures = _same_size([self._draw(engine.network, *slice_) for slice_ in self._slices])
        sheet = contact_sheet(pictures, with_reference=True)
        tag = "validation/slices and attention of each gate"
        self._writer.add_image(tag, sheet, engine.state.epoch, dataformats="HWC")

    @torch.no_grad()
    def _draw(self, network: torch.nn.Module, image: torch.Tensor, label: np.ndarray) -> np.ndarray:
        network.eval()
        batch = image[None].to(next(network.parameters()).device)
        if hasattr(network, "forward_with_attention"):
            logits, attention = network.forward_with_attention(batch)
        else:
            logits, attention = network(batch), []
        pred = logits[0, 0].sigmoid().cpu().numpy() >= self.threshold
        grey = grey_levels(image[len(image) // 2].numpy())
        box = head_box(grey[..., None])  # the air around the head would only make the event files larger
        picture = draw_contours(grey, [(label, REFERENCE), (pred, PREDICTION)])[box]
        if not attention:
            return picture
        # At full size, four maps of four cases would take more than a megabyte an epoch.
        small = _halve(grey[box])
        maps = [attention_overlay(small, _halve(a[0, 0].float().cpu().numpy()[box])) for a in attention]
        return tile(_same_size([picture, tile(maps, 2)]), 2)


class PrecisionRecallCurve(TensorBoardHandler):
    """Write the precision-recall curve of all voxels of the validation cases together, every epoch.

    Attach it to an evaluator whose output holds ``probability``, from 0 to 1, and ``label``, volumes of one shape.

    Args:
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
        num_thresholds: number of thresholds, evenly from 0 to 1; TensorBoard takes up to 127.
    """

    on_every_process = True

    def __init__(
        self,
        summary_writer: SummaryWriter | None = None,
        log_dir: PathLike | str = "./runs",
        *,
        num_thresholds: int = 101,
    ) -> None:
        super().__init__(summary_writer, str(log_dir))
        self.num_thresholds = num_thresholds
        self._counts = torch.zeros(2, num_thresholds, dtype=torch.int64)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the curve of the cases seen in this epoch."""
        tag, epoch = "validation/precision and recall of voxels", engine.state.epoch
        curve = precision_recall_rows(all_reduce_sum(self._counts)).numpy()
        self._writer.add_pr_curve_raw(tag, *curve, global_step=epoch, num_thresholds=self.num_thresholds)

    def _reset(self, engine: Engine) -> None:
        self._counts.zero_()

    def _add(self, engine: Engine) -> None:
        for item in engine.state.output:
            self._counts += voxel_counts(item["probability"], item["label"], self.num_thresholds).cpu()


def voxel_counts(probability: torch.Tensor, label: torch.Tensor, num_thresholds: int) -> torch.Tensor:
    """Count voxels by the highest of evenly spaced thresholds from 0 to 1 that their probability reaches.

    Args:
        probability: probabilities of any shape.
        label: binary label of the same shape.
        num_thresholds: number of thresholds.

    Returns:
        counts ``(2, num_thresholds)``: of healthy voxels, then of tumour voxels.

    Raises:
        ValueError: when the shapes differ.
    """
    probability, label = torch.as_tensor(probability).contiguous(), torch.as_tensor(label)
    if probability.shape != label.shape:
        raise ValueError(
            f"probability and label must have one shape, got {[*probability.shape]} and {[*label.shape]}: "
            "invert the probability to the geometry of the label."
        )
    thresholds = torch.linspace(0, 1, num_thresholds, device=probability.device)
    place = torch.bucketize(probability.float().clamp(0, 1), thresholds, right=True) - 1
    place = place + num_thresholds * (label.to(place.device) > 0)
    return place.flatten().bincount(minlength=2 * num_thresholds).view(2, num_thresholds)


def precision_recall_rows(counts: torch.Tensor) -> torch.Tensor:
    """Turn counts of voxels into the rows that TensorBoard's precision-recall curves take.

    Args:
        counts: ``(2, thresholds)`` as :py:func:`voxel_counts` gives them, added over cases.

    Returns:
        ``(6, thresholds)``: true positives, false positives, true negatives, false negatives, precision, recall, with
        voxels at or over a threshold positive. What would be divided by 0 is 0.
    """
    healthy, tumour = counts.sum(dim=1, keepdim=True).double()
    false_positive, true_positive = counts.flip(1).cumsum(1).flip(1).double()
    precision = true_positive / (true_positive + false_positive).clamp(min=1)
    recall = true_positive / tumour.clamp(min=1)
    return torch.stack(
        [true_positive, false_positive, healthy - false_positive, tumour - true_positive, precision, recall]
    )


class RunDescription(TensorBoardHandler):
    """Write what a run is, and how it ended, so that runs compare.

    At the start: the layout of the page of custom scalars, the config and the network as text, and the
    hyperparameters. They are compared by the last validation's metrics and, when training is complete, by those of
    the best epoch by the validator's key metric, which are the scalars ``validation_best/...``.

    Args:
        validator: the evaluator that validates.
        network: the network to summarize.
        hyperparameters: settings by which runs differ; numbers and text stay, other values become text.
        config_file: config of the run as it was written when training began; not shown where it is missing.
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
    """

    def __init__(
        self,
        validator: Engine,
        network: torch.nn.Module,
        hyperparameters: Mapping[str, Any],
        *,
        config_file: PathLike | str | None = None,
        summary_writer: SummaryWriter | None = None,
        log_dir: PathLike | str = "./runs",
    ) -> None:
        super().__init__(summary_writer, str(log_dir))
        self.validator = validator
        self.network = network
        self.hyperparameters = hyperparameters
        self.config_file = None if config_file is None else Path(config_file)
        self._best: tuple[int, dict[str, float]] = (0, {})

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        self.validator.add_event_handler(Events.EPOCH_COMPLETED, self._validated)

    def _start(self, engine: Engine) -> None:
        self._writer.add_custom_scalars(LAYOUT)
        self._writer.add_text("run/network", model_summary(self.network))
        if self.config_file is not None and self.config_file.is_file():
            self._writer.add_text("run/config", f"```json\n{self.config_file.read_text(encoding='utf-8')}```")
        experiment, session_start, _ = self._hparams()
        for summary in (experiment, session_start):
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far and its metrics, for a run that goes on later."""
        return {"best": [self._best[0], {name: float(value) for name, value in self._best[1].items()}]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        epoch, metrics = state["best"]
        self._best = epoch, dict(metrics)

    def _validated(self, validator: Engine) -> None:
        if validator.state.best_metric_epoch == validator.state.epoch:
            self._best = validator.state.epoch, dict(validator.state.metrics)
        self._writer.flush()

    def _complete(self, engine: Engine) -> None:
        epoch, metrics = self._best
        for name, value in metrics.items():
            self._writer.add_scalar(f"validation_best/{name}", value, epoch)
        self._writer.file_writer.add_summary(self._hparams()[2])
        self._writer.flush()

    def _hparams(self) -> tuple:
        """What ``SummaryWriter.add_hparams`` writes, but it would do so into a folder of its own."""
        settings = {name: _number_or_text(value) for name, value in self.hyperparameters.items()}
        return hparams(
            settings,
            dict.fromkeys(f"{group}/{name}" for name in METRICS for group in ("validation", "validation_best")),
        )


def model_summary(network: torch.nn.Module) -> str:
    """Describe a network as a Markdown table: its blocks, their weights and numbers of parameters.

    Args:
        network: any module; lists and sequences of modules are taken apart, other modules are one row.
    """
    rows = [
        f"| {name} | {type(block).__name__} | {_weight_shapes(block)} | {_parameters(block):,} |"
        for name, block in _blocks(network)
    ]
    return "\n".join(
        [
            "| block | type | weights: output x input channels x kernel | parameters |",
            "| --- | --- | --- | ---: |",
            *rows,
            f"| **whole network** | {type(network).__name__} | | **{_parameters(network):,}** |",
        ]
    )


def _blocks(network: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    for name, module in network.named_children():
        if type(module) in (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential):
            yield from _blocks(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


def _weight_shapes(module: torch.nn.Module) -> str:
    return ", ".join(" x ".join(map(str, p.shape)) for p in module.parameters() if p.ndim > 1)


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _number_or_text(value: Any) -> float | str:
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return " x ".join(map(str, value))
    return str(value)


def _same_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures ``(H, W, 3)`` filled with black at the bottom and right to the size of the largest."""
    sides = np.max([picture.shape[:2] for picture in pictures], axis=0)
    return [np.pad(p, [*((0, n - m) for n, m in zip(sides, p.shape)), (0, 0)]) for p in pictures]


def _halve(picture: np.ndarray) -> np.ndarray:
    """Mean of each 2 x 2 pixels of a picture ``(H, W)``."""
    return F.avg_pool2d(torch.as_tensor(picture, dtype=torch.float32)[None], 2, ceil_mode=True)[0].numpy()


def _largest_tumour(case: dict) -> tuple[torch.Tensor, np.ndarray]:
    """The case's slice with the largest tumour: image ``(C, H, W)`` and label ``(H, W)``."""
    image, label = (torch.as_tensor(case[key]) for key in ("image", "label"))
    if isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
        label = ResampleToMatch(mode="nearest", padding_mode="zeros")(label, image)[0]  # turned, resampled, padded
    else:
        label = ResizeWithPadOrCrop(image.shape[1:])(label)[0]
    place = int((label > 0).sum(dim=(0, 1)).argmax())
    return image[..., place].float(), (label[..., place] > 0).numpy()
