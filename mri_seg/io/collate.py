"""Make batches of whole cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from monai.utils import convert_to_dst_type

__all__ = ["case_batch"]


def case_batch(case: Mapping[str, Any]) -> dict[str, Any]:
    """Make a batch of one case like :py:func:`monai.data.utils.list_data_collate`, but without copying its volumes.

    Use it as ``collate_fn`` of a DataLoader with ``batch_size`` None.

    Args:
        case: an item of the data set.

    Returns:
        the same items; tensors become views with a batch dimension and the metadata of a batch.
    """
    tensors = {key: value for key, value in case.items() if isinstance(value, torch.Tensor) and value.ndim}
    batch = list_data_collate([{**case, **{key: value[..., :0] for key, value in tensors.items()}}])
    for key, value in tensors.items():
        view = value.as_tensor()[None] if isinstance(value, MetaTensor) else value[None]
        batch[key] = convert_to_dst_type(view, batch[key])[0]  # with its metadata
    return batch
