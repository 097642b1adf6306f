"""Run a network in reduced precision where the machine is fast at it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["AutocastInferer", "bfloat16_is_fast"]


class AutocastInferer(Inferer):
    """Call another inferer under bfloat16 autocast, on any device; the result is float32.

    MONAI's engines have autocast for CUDA alone. bfloat16 has the range of float32, so no gradient scaling is needed.

    Args:
        inferer: the inferer to call.
        enabled: whether to autocast; without it the inferer is called as it is.
    """

    def __init__(self, inferer: Inferer, enabled: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Infer with the network under autocast."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            return self.inferer(inputs, network, *args, **kwargs).float()


def bfloat16_is_fast(device: str | torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 natively, so that autocast saves time.

    Args:
        device: where the network runs.

    Returns:
        True on CUDA devices of compute capability 8 or higher, on x86 CPUs with AVX-512 BF16 or AMX, and on Arm CPUs
        whose bfloat16 instructions oneDNN uses.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # oneDNN also takes bfloat16 on CPUs that only emulate it, where it is slower than float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
