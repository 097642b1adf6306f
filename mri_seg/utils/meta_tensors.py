"""Check that a tensor carries metadata, for the type checker and in case metadata are switched off."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

__all__ = ["as_meta_tensor"]


def as_meta_tensor(volume: torch.Tensor) -> MetaTensor:
    """Return the same volume as a MetaTensor; MONAI annotates its transforms as returning any tensor.

    Args:
        volume: a result of one of MONAI's transforms.

    Raises:
        TypeError: when it carries no metadata.
    """
    if not isinstance(volume, MetaTensor):
        raise TypeError(
            f"found a {type(volume).__name__} without metadata, expected a MetaTensor: set_track_meta(True)."
        )
    return volume
