"""Run a network in reduced precision where the machine is fast at it."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import torch
from monai.inferers import Inferer

from mri_seg.options import flag

__all__ = ["AutocastInferer", "AveragingInferer", "bfloat16_is_fast"]


class AutocastInferer(Inferer):
    """Call another inferer under bfloat16 autocast, on any device; the result is float32.

    MONAI's engines have autocast for CUDA alone. bfloat16 has the range of float32, so no gradient scaling is needed.

    Args:
        inferer: the inferer to call.
        enabled: whether to autocast; without it the inferer is called as it is.
    """

    def __init__(self, inferer: Inferer, enabled: bool | str = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.enabled = flag(enabled, "amp")

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Infer with the network under autocast."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            return self.inferer(inputs, network, *args, **kwargs).float()


class AveragingInferer(Inferer):
    """Average the probabilities of mirrored inputs and of several checkpoints; with neither, call an inferer as it is.

    The result is the logit of the mean probability, so that what follows is the same with and without.

    Args:
        inferer: the inferer to call.
        flip: whether to infer on the input mirrored left to right as well (its last but one axis: columns).
        checkpoints: weights of further networks of the same make, averaged with the one that is given; read when
            the inferer is first called.
    """

    def __init__(
        self, inferer: Inferer, *, flip: bool | str = False, checkpoints: Sequence[PathLike | str] = ()
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.flip = flag(flip, "flip")
        self.checkpoints = [checkpoints] if isinstance(checkpoints, (str, PathLike)) else list(checkpoints)
        self._others: list[torch.nn.Module] | None = None

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return logits for inputs ``(B, C, H, W, D)``."""
        if not self.flip and not self.checkpoints:
            return self.inferer(inputs, network, *args, **kwargs)
        total, count = 0, 0
        for member in [network, *self._load_others(network)]:
            for columns in [(), (-2,)][: 2 if self.flip else 1]:
                logits = self.inferer(inputs.flip(columns) if columns else inputs, member, *args, **kwargs)
                total, count = total + (logits.flip(columns) if columns else logits).sigmoid(), count + 1
        return torch.logit(total / count, eps=1e-6)

    def _load_others(self, network: Callable[..., torch.Tensor]) -> list[torch.nn.Module]:
        if self._others is None:
            self._others = []
            for checkpoint in self.checkpoints:
                other = copy.deepcopy(network)
                device = next(other.parameters()).device
                other.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
                self._others.append(other)
        return self._others


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
