"""The slice protocol: Dice, precision and recall averaged over slices."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

__all__ = ["SLICE_SCORES", "SliceProtocolMetric", "slice_scores"]

SLICE_SCORES = ("dice", "precision", "recall")
"""Scores of the slice protocol, in the order of the columns of :py:func:`slice_scores`."""

SMOOTHING = 1e-6
"""Added to the numerator and denominator of the slice protocol's scores, in pixels."""


def slice_scores(y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute Dice, precision and recall of every slice, smoothed as in the published baseline.

    Let TP, P and L be the number of pixels in the intersection, the prediction and the label, and s = 1e-6. Then Dice
    is (2 TP + s) / (P + L + s), precision is (TP + s) / (P + s) and recall is (TP + s) / (L + s). So a slice without
    tumour has Dice 1 if nothing is predicted and 0 otherwise, and its recall is always 1. If nothing is
    predicted on a slice, its precision is 1, even if the slice has tumour.

    Args:
        y_pred: binary prediction ``(B, 1, H, W, D)``.
        y: binary label of the same shape.

    Returns:
        scores ``(B * D, 3)`` in the order of ``SLICE_SCORES``, in double precision.

    Raises:
        ValueError: when the shapes differ, or are not those of a batch of volumes with one channel.
    """
    if y_pred.shape != y.shape or y.ndim != 5 or y.shape[1] != 1:
        raise ValueError(
            f"prediction and label must be binary volumes (B, 1, H, W, D), got {[*y_pred.shape]} and {[*y.shape]}."
        )
    pred, label = (torch.as_tensor(v).movedim(-1, 1).flatten(0, 1).flatten(1) > 0 for v in (y_pred, y))
    overlap, predicted, labeled = (v.sum(dim=1, dtype=torch.float64) for v in (pred & label, pred, label))
    return torch.stack(
        [
            (2 * overlap + SMOOTHING) / (predicted + labeled + SMOOTHING),
            (overlap + SMOOTHING) / (predicted + SMOOTHING),
            (overlap + SMOOTHING) / (labeled + SMOOTHING),
        ],
        dim=1,
    )


class SliceProtocolMetric(CumulativeIterationMetric):
    """One score of the slice protocol, averaged over all slices of all volumes (see :py:func:`slice_scores`).

    Args:
        score: ``dice``, ``precision`` or ``recall``.

    Raises:
        ValueError: when the score is not one of these.
    """

    def __init__(self, score: str = "dice") -> None:
        super().__init__()
        if score not in SLICE_SCORES:
            raise ValueError(f"score must be one of {SLICE_SCORES}, got {score!r}.")
        self.score = score

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("the slice protocol needs a label, got None. Evaluate cases that have one.")
        column = SLICE_SCORES.index(self.score)
        return slice_scores(y_pred, y)[:, column, None].float()

    def aggregate(self) -> torch.Tensor:
        """Average over the slices seen since the last reset.

        Raises:
            ValueError: when there were no slices.
        """
        scores = self.get_buffer()
        if not isinstance(scores, torch.Tensor):
            raise ValueError("the slice protocol has no slice to average over. Score a case first.")
        return scores.mean()
