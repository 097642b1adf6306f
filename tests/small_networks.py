"""A small network, slices for it, and its probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mri_seg.networks.attention_unet import AttentionUNet


def small_network(seed: int = 0, **options: Any) -> AttentionUNet:
    """A network whose probabilities vary."""
    torch.manual_seed(seed)
    network = AttentionUNet(2, in_channels=3, channels=(8, 16, 32), **options).eval()
    torch.nn.init.normal_(network.head.weight, std=60.0)
    with torch.no_grad():
        network.head.bias -= network(torch.randn(1, 3, 32, 32)).mean()
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def probabilities(inferer: Callable, inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
    return inferer(inputs, network).sigmoid()
