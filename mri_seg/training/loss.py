"""The loss of nested regions: that of a single class, averaged over the regions."""

from __future__ import annotations

from typing import Any

import torch

from mri_seg.utils.label_classes import LabelClasses

__all__ = ["RegionsLoss", "loss_of_classes"]


class RegionsLoss(torch.nn.Module):
    """Average a loss for one class over nested regions, each of which has a channel of its own.

    MONAI's ``DiceCELoss`` takes several channels for exclusive classes, whose cross entropy is that of a softmax.

    Args:
        loss: takes logits and a binary label ``(B, 1, *spatial)``.
    """

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the mean loss.

        Args:
            logits: of each region, from the largest ``(B, regions, *spatial)``.
            label: numbers of the smallest region of each pixel, from 1, 0 for background ``(B, 1, *spatial)``.
        """
        losses: list[Any] = [
            self.loss(logits[:, number - 1 : number], (label >= number).to(logits.dtype))
            for number in range(1, logits.shape[1] + 1)
        ]
        return torch.stack(losses).mean()


def loss_of_classes(loss: torch.nn.Module, classes: LabelClasses) -> torch.nn.Module:
    """The loss of a network: the one given, or for nested regions its mean over them.

    Args:
        loss: loss of the config.
        classes: the classes.
    """
    return RegionsLoss(loss) if classes.mode == "regions" else loss
