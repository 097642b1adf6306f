"""Files that cases are said to be of, and a small network with slices for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import small_network

from mri_seg.networks.attention_unet import AttentionUNet


@pytest.fixture
def inputs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the tests run in, with the files that the cases are said to be of."""
    folder = tmp_path_factory.mktemp("inputs")
    monkeypatch.chdir(folder)
    (folder / "in").mkdir()
    pictures = [f"x_{n}.{suffix}" for n in range(3) for suffix in ("png", "jpg", "JPEG")]
    slices = ["in/x_9.tif", "in/x_10.TIFF", "in/x_2.tif", "scan.tif"]
    for name in ("in/head.nii.gz", "in/head_mask.nii.gz", "in/c.nii", "b.nii", "c.nii", "a&b.nii", *slices, *pictures):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def network() -> AttentionUNet:
    return small_network()


@pytest.fixture
def slices() -> torch.Tensor:
    return torch.randn(3, 3, 32, 48)
