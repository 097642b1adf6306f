"""Tensors that must carry metadata."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from mri_seg.utils.meta_tensors import as_meta_tensor


def test_as_meta_tensor_gives_the_same_volume() -> None:
    volume = MetaTensor(torch.zeros(1, 2, 2, 2))
    assert as_meta_tensor(volume) is volume


def test_as_meta_tensor_refuses_a_volume_without_metadata_and_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="set_track_meta"):
        as_meta_tensor(torch.zeros(1, 2, 2, 2))
