"""Tensors that carry metadata, told apart for the type checker and for whoever has switched metadata off."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

__all__ = ["as_meta_tensor"]


def as_meta_tensor(volume: torch.Tensor) -> MetaTensor:
    """The same volume, known to carry metadata: MONAI annotates its transforms as giving any tensor.

    Args:
        volume: a result of one of MONAI's transforms.

    Raises:
        TypeError: when it carries none.
    """
    if not isinstance(volume, MetaTensor):
        raise TypeError(
            f"found a {type(volume).__name__} without metadata, expected a MetaTensor: set_track_meta(True)."
        )
    return volume
