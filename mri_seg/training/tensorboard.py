"""Show a training run in TensorBoard: curves, validation slices, attention and settings."""

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
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.utils.compat import SummaryHandler, network_of, state_of
from mri_seg.utils.distributed import all_reduce_sum
from mri_seg.utils.label_classes import LabelClasses
from mri_seg.utils.threshold_counts import positives, voxel_counts
from mri_seg.visualize.overlays import (
    attention_overlay,
    contact_sheet,
    draw_contours,
    gray_levels,
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
    "write_metrics",
]

METRICS = ("patient_dice", "slice_dice", "slice_precision", "slice_recall")
"""Validation metrics by which runs are compared."""

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
"""Layout of TensorBoard's page of custom scalars, in the form of ``SummaryWriter.add_custom_scalars``."""


def write_metrics(engine: Engine, writer: SummaryWriter) -> None:
    """Write an evaluator's metrics as one group; for ``epoch_event_writer`` of MONAI's ``TensorBoardStatsHandler``.

    Args:
        engine: the evaluator, whose epoch is that of the trainer.
        writer: the summary writer.
    """
    for name, value in engine.state.metrics.items():
        writer.add_scalar(f"validation/{name}", value, engine.state.epoch)


class LearningRateHandler(SummaryHandler):
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
        self.writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], engine.state.epoch)


class TensorBoardSlices(SummaryHandler):
    """Write one picture per epoch of a fixed set of validation slices.

    Each slice is shown as FLAIR with the outlines of reference and prediction. If the network has
    ``forward_with_attention``, the attention of each gate is shown over FLAIR beside it at half the size, from the
    finest gate to the coarsest.

    Args:
        dataset: validation cases: ``image`` ``(C, H, W, D)``, the input of the network, whose middle channel is the
            slice itself, and ``label`` ``(1, H, W, D)``.
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
        number: number of cases to show, each with the slice that has the largest tumour.
        interval: number of epochs between pictures.
        threshold: a pixel counts as tumour if its probability is at least this.
        classes: the classes; if there are several, their union is shown.
        channel: channel of the network's input that is shown; None for the middle one.
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
        classes: LabelClasses | None = None,
        channel: int | None = None,
    ) -> None:
        super().__init__(summary_writer, str(log_dir))
        self.channel = channel
        self.classes = classes or LabelClasses()
        self.dataset = dataset
        self.number = number
        self.interval = interval
        self.threshold = threshold
        self._slices: list[tuple[torch.Tensor, np.ndarray]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator that validates."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the slices and write them."""
        if engine.state.epoch % self.interval:
            return
        if not self._slices:
            self._slices = [_largest_tumor(self.dataset[n]) for n in range(min(self.number, len(self.dataset)))]
        pictures = _same_size([self._draw(network_of(engine), *slice_) for slice_ in self._slices])
        sheet = contact_sheet(pictures, with_reference=True)
        tag = "validation/slices and attention of each gate"
        self.writer.add_image(tag, sheet, engine.state.epoch, dataformats="HWC")

    @torch.no_grad()
    def _draw(self, network: torch.nn.Module, image: torch.Tensor, label: np.ndarray) -> np.ndarray:
        network.eval()
        batch = image[None].to(next(network.parameters()).device)
        with_attention: Any = getattr(network, "forward_with_attention", None)
        logits, attention = with_attention(batch) if with_attention else (network(batch), [])
        logits = logits[0].float()
        tumor = 1 - logits.softmax(dim=0)[0] if self.classes.exclusive else logits.sigmoid().amax(dim=0)
        pred = tumor.cpu().numpy() >= self.threshold
        gray = gray_levels(image[len(image) // 2 if self.channel is None else self.channel].numpy())
        box = head_box(gray[..., None])  # the air around the head would only make the event files larger
        picture = draw_contours(gray, [(label, REFERENCE), (pred, PREDICTION)])[box]
        if not attention:
            return picture
        # At full size, the maps of four cases would take more than a megabyte per epoch.
        small = _halve(gray[box])
        maps = [attention_overlay(small, _halve(a[0, 0].float().cpu().numpy()[box])) for a in attention]
        return tile(_same_size([picture, tile(maps, 2)]), 2)


class PrecisionRecallCurve(SummaryHandler):
    """Write the precision-recall curve over all voxels of the validation cases in every epoch.

    Attach it to an evaluator whose output holds ``probability``, from 0 to 1, and ``label``: volumes of the same shape.

    Args:
        summary_writer: where to write; a new writer in ``log_dir`` if None.
        log_dir: folder of the event files.
        num_thresholds: number of thresholds, evenly spaced from 0 to 1; TensorBoard accepts up to 127.
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
        tp, fp, tn, fn, precision, recall = precision_recall_rows(all_reduce_sum(self._counts)).numpy()
        self.writer.add_pr_curve_raw(tag, tp, fp, tn, fn, precision, recall, epoch, self.num_thresholds)

    def _reset(self, engine: Engine) -> None:
        self._counts.zero_()

    def _add(self, engine: Engine) -> None:
        for item in state_of(engine).output:
            self._counts += voxel_counts(item["probability"], item["label"], self.num_thresholds).cpu()


def precision_recall_rows(counts: torch.Tensor) -> torch.Tensor:
    """Turn counts of voxels into the rows that TensorBoard's precision-recall curves take.

    Args:
        counts: ``(2, thresholds)`` as :py:func:`~mri_seg.utils.threshold_counts.voxel_counts` gives them,
            added over cases.

    Returns:
        ``(6, thresholds)``: true positives, false positives, true negatives, false negatives, precision, recall, with
        voxels at or over a threshold positive. What would be divided by 0 is 0.
    """
    healthy, tumor = counts.sum(dim=1, keepdim=True).double()
    true_positive, false_positive = (each.double() for each in positives(counts))
    precision = true_positive / (true_positive + false_positive).clamp(min=1)
    recall = true_positive / tumor.clamp(min=1)
    return torch.stack(
        [true_positive, false_positive, healthy - false_positive, tumor - true_positive, precision, recall]
    )


class RunDescription(SummaryHandler):
    """Write the description and the result of a run, so that runs can be compared.

    When training starts, it writes the layout of the page of custom scalars, the config and the network as text, and
    the hyperparameters. TensorBoard compares runs by the metrics of the last validation. When training is complete, it
    also compares them by the metrics of the epoch with the best key metric: the scalars ``validation_best/...``.

    Args:
        validator: the evaluator for validation.
        network: the network to summarize.
        hyperparameters: settings in which runs differ; numbers and text stay, other values become text.
        config_file: config file of the run, written when training started; it is not shown if it is missing.
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
        self.writer.add_custom_scalars(LAYOUT)
        self.writer.add_text("run/network", model_summary(self.network))
        if self.config_file is not None and self.config_file.is_file():
            self.writer.add_text("run/config", f"```json\n{self.config_file.read_text(encoding='utf-8')}```")
        experiment, session_start, _ = self._hparams()
        for summary in (experiment, session_start):
            self.add_summary(summary)
        self.writer.flush()

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far and its metrics, for a run that is resumed."""
        return {"best": [self._best[0], {name: float(value) for name, value in self._best[1].items()}]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        epoch, metrics = state["best"]
        self._best = epoch, dict(metrics)

    def _validated(self, validator: Engine) -> None:
        if state_of(validator).best_metric_epoch == validator.state.epoch:
            self._best = validator.state.epoch, dict(validator.state.metrics)
        self.writer.flush()

    def _complete(self, engine: Engine) -> None:
        epoch, metrics = self._best
        for name, value in metrics.items():
            self.writer.add_scalar(f"validation_best/{name}", value, epoch)
        self.add_summary(self._hparams()[2])
        self.writer.flush()

    def _hparams(self) -> tuple:
        """The summaries that ``SummaryWriter.add_hparams`` writes; it would write them to a folder of its own."""
        settings = {name: _number_or_text(value) for name, value in self.hyperparameters.items()}
        return hparams(
            settings,
            dict.fromkeys(f"{group}/{name}" for name in METRICS for group in ("validation", "validation_best")),
        )


def model_summary(network: torch.nn.Module) -> str:
    """Describe a network as a Markdown table of its blocks, with their weights and numbers of parameters.

    Args:
        network: any module; lists and sequences of modules are expanded, other modules are one row.
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
    """Pad pictures ``(H, W, 3)`` with black at the bottom and right to the size of the largest."""
    sides = np.max([picture.shape[:2] for picture in pictures], axis=0)
    return [np.pad(p, [*((0, n - m) for n, m in zip(sides, p.shape)), (0, 0)]) for p in pictures]


def _halve(picture: np.ndarray) -> np.ndarray:
    """Halve a picture ``(H, W)`` by averaging 2 x 2 pixels."""
    return F.avg_pool2d(torch.as_tensor(picture, dtype=torch.float32)[None], 2, ceil_mode=True)[0].numpy()


def _largest_tumor(case: dict) -> tuple[torch.Tensor, np.ndarray]:
    """Find the slice of a case with the largest tumour: image ``(C, H, W)`` and label ``(H, W)``."""
    image, label = (torch.as_tensor(case[key]) for key in ("image", "label"))
    if isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
        label = ResampleToMatch(mode="nearest", padding_mode="zeros")(label, image)[0]  # the image was preprocessed
    else:
        label = ResizeWithPadOrCrop(image.shape[1:])(label)[0]
    place = int((label > 0).sum(dim=(0, 1)).argmax())
    return image[..., place].float(), (label[..., place] > 0).numpy()
