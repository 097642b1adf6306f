"""Count voxels by the highest threshold that their probability reaches, for curves over thresholds."""

from __future__ import annotations

import torch

__all__ = ["level_counts", "positives", "voxel_counts"]


def level_counts(level: torch.Tensor, label: torch.Tensor, num_levels: int) -> torch.Tensor:
    """Count voxels by level; the counts of several cases can be added.

    Args:
        level: level of each voxel, a whole number from 0 to ``num_levels - 1``; any shape.
        label: binary label of the same shape.
        num_levels: number of levels.

    Returns:
        counts ``(2, num_levels)``, int64: row 0 counts voxels that are healthy in the label, row 1 those with tumour.

    Raises:
        ValueError: when the shapes differ.
    """
    if level.shape != label.shape:
        raise ValueError(
            f"probability and label must have the same shape, got {[*level.shape]} and {[*label.shape]}: "
            "invert the probability to the geometry of the label."
        )
    place = level.long() + num_levels * (label.to(level.device) > 0)
    return place.flatten().bincount(minlength=2 * num_levels).view(2, num_levels)


def voxel_counts(probability: torch.Tensor, label: torch.Tensor, num_thresholds: int) -> torch.Tensor:
    """Count voxels by the highest of evenly spaced thresholds from 0 to 1 that their probability reaches.

    Args:
        probability: probabilities of any shape.
        label: binary label of the same shape.
        num_thresholds: number of thresholds.

    Returns:
        counts ``(2, num_thresholds)``, as in :py:func:`level_counts`.

    Raises:
        ValueError: when the shapes differ.
    """
    probability, label = torch.as_tensor(probability), torch.as_tensor(label)
    thresholds = torch.linspace(0, 1, num_thresholds, device=probability.device)
    level = torch.bucketize(probability.float().clamp(0, 1).contiguous(), thresholds, right=True) - 1
    return level_counts(level, label, num_thresholds)


def positives(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """True and false positives at each threshold: voxels of its level or a higher one count as tumour.

    Args:
        counts: ``(2, levels)`` from :py:func:`level_counts`, of one case or the sum of several.

    Returns:
        true positives and false positives, each ``(levels,)``.
    """
    false, true = counts.flip(1).cumsum(1).flip(1)
    return true, false
