"""Show validation slices and attention maps in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.handlers import TensorBoardHandler
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from torch.utils.tensorboard import SummaryWriter

from mri_seg.pictures import (
    PREDICTION,
    REFERENCE,
    attention_overlay,
    draw_contours,
    grey_levels,
    head_box,
    tile,
)

__all__ = ["LearningRateHandler", "TensorBoardSlices", "write_metrics"]


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
        log_dir: folder of the event files.
        optimizer: the optimizer whose first group's learning rate is written.
    """

    def __init__(self, log_dir: PathLike | str, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(log_dir=str(log_dir))
        self.optimizer = optimizer

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write."""
        self._writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], engine.state.epoch)


class TensorBoardSlices(TensorBoardHandler):
    """Write one picture an epoch of a fixed set of validation slices.

    A row a slice: FLAIR with the outlines of reference and prediction, then, if the network has
    ``forward_with_attention``, the attention of each gate over FLAIR, from the finest to the coarsest.

    Args:
        log_dir: folder of the event files.
        dataset: validation cases: ``image`` ``(C, H, W, D)`` as the network takes it, its middle channel the slice
            itself, and ``label`` ``(1, H, W, D)``.
        number: how many cases to show, each by its slice with the largest tumour.
        interval: show every so many epochs.
        threshold: probability from which a pixel counts as tumour.
    """

    def __init__(
        self,
        log_dir: PathLike | str,
        dataset: Sequence[dict],
        *,
        number: int = 4,
        interval: int = 1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(log_dir=str(log_dir))
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
        pictures = [picture for slice_ in self._slices for picture in self._draw(engine.network, *slice_)]
        sides = np.max([picture.shape[:2] for picture in pictures], axis=0)
        pictures = [np.pad(p, [*((0, n - m) for n, m in zip(sides, p.shape)), (0, 0)]) for p in pictures]
        sheet = tile(pictures, len(pictures) // len(self._slices))
        tag = "validation/slices and attention of each gate"
        self._writer.add_image(tag, sheet, engine.state.epoch, dataformats="HWC")

    @torch.no_grad()
    def _draw(self, network: torch.nn.Module, image: torch.Tensor, label: np.ndarray) -> list[np.ndarray]:
        network.eval()
        batch = image[None].to(next(network.parameters()).device)
        if hasattr(network, "forward_with_attention"):
            logits, attention = network.forward_with_attention(batch)
        else:
            logits, attention = network(batch), []
        pred = logits[0, 0].sigmoid().cpu().numpy() >= self.threshold
        grey = grey_levels(image[len(image) // 2].numpy())
        box = head_box(grey[..., None])  # the air around the head would only make the event files larger
        pictures = [draw_contours(grey, [(label, REFERENCE), (pred, PREDICTION)])[box]]
        pictures += [attention_overlay(grey[box], a[0, 0].float().cpu().numpy()[box]) for a in attention]
        return pictures


def _largest_tumour(case: dict) -> tuple[torch.Tensor, np.ndarray]:
    """The case's slice with the largest tumour: image ``(C, H, W)`` and label ``(H, W)``."""
    image, label = (torch.as_tensor(case[key]) for key in ("image", "label"))
    if isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
        label = ResampleToMatch(mode="nearest", padding_mode="zeros")(label, image)[0]  # turned, resampled, padded
    else:
        label = ResizeWithPadOrCrop(image.shape[1:])(label)[0]
    place = int((label > 0).sum(dim=(0, 1)).argmax())
    return image[..., place].float(), (label[..., place] > 0).numpy()
