"""Inferers: reduced precision, exclusive classes, averages of mirrored inputs and checkpoints, cropping to the head."""

from __future__ import annotations

import contextlib
import copy
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn.functional import avg_pool2d

from mri_seg.config.weights import load_weights
from mri_seg.utils.compat import cpu_has_bfloat16
from mri_seg.utils.flags import flag

__all__ = [
    "AutocastInferer",
    "EnsembleInferer",
    "ExclusiveInferer",
    "ForegroundSliceInferer",
    "as_module",
    "bfloat16_is_fast",
    "class_logits",
]

_BLOCK = 4  # side of the blocks of pixels with which the head is found; single bright pixels in air do not count
_COLUMNS = 3  # axis of columns in slices and volumes
_NO_HEAD = -16.0  # logit of tumour outside the head


class AutocastInferer(Inferer):
    """Call another inferer under bfloat16 autocast, on any device; the result is float32.

    MONAI's engines support autocast only on CUDA. bfloat16 has the range of float32, so no gradient scaling is needed.

    Args:
        inferer: the inferer to call.
        enabled: whether to use autocast; if false, the inferer is called without it.
    """

    def __init__(self, inferer: Inferer, enabled: bool | str = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.enabled = flag(enabled, "amp")

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Infer with the network under autocast."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            return self.inferer(inputs, network, *args, **kwargs).float()


class ExclusiveInferer(Inferer):
    """Turn the logits of a softmax with background into a logit for each class, so that all that follows is a sigmoid.

    Args:
        inferer: the inferer to call, which gives logits of background and of each class.
        enabled: whether classes exclude each other; if false, the logits stay as they are.
    """

    def __init__(self, inferer: Inferer, enabled: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.enabled = enabled

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return logits ``(B, classes, H, W)`` whose sigmoid is the softmax, without background."""
        logits = self.inferer(inputs, network, *args, **kwargs)
        return class_logits(logits) if self.enabled else logits


class EnsembleInferer(Inferer):
    """Average the probabilities of mirrored inputs and of several checkpoints.

    The result is the logit of the mean probability, so that the following steps are the same with and without
    averaging.

    Args:
        inferer: the inferer to call.
        flip: whether to also infer on the input mirrored left to right.
        checkpoints: weights of further networks with the same architecture and the same preprocessing, which are
            averaged with the given network; read when the inferer is first called.
    """

    def __init__(
        self, inferer: Inferer, *, flip: bool | str = False, checkpoints: Sequence[PathLike | str] = ()
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.flip = flag(flip, "tta_flip")
        self.checkpoints = [checkpoints] if isinstance(checkpoints, (str, PathLike)) else list(checkpoints)
        self._others: list[torch.nn.Module] | None = None

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return logits for slices ``(B, C, H, W)`` or volumes ``(B, C, H, W, D)``."""
        if not self.flip and not self.checkpoints:
            return self.inferer(inputs, network, *args, **kwargs)
        total: Any = 0  # then a tensor
        count = 0
        members: list[Callable[..., torch.Tensor]] = [network, *self._load_others(network)]
        for member in members:
            for columns in [(), (_COLUMNS,)][: 2 if self.flip else 1]:
                logits = self.inferer(inputs.flip(columns) if columns else inputs, member, *args, **kwargs)
                total, count = total + (logits.flip(columns) if columns else logits).sigmoid(), count + 1
        return torch.logit(total / count, eps=1e-6)

    def _load_others(self, network: Callable[..., torch.Tensor]) -> list[torch.nn.Module]:
        if self._others is None:
            self._others = []
            for checkpoint in self.checkpoints:
                other = copy.deepcopy(as_module(network))
                load_weights(other, checkpoint, next(other.parameters()).device)
                self._others.append(other)
        return self._others


class ForegroundSliceInferer(Inferer):
    """Infer slice by slice, only on the head: air around it is cropped, and slices without head are skipped.

    A block of 4 x 4 pixels belongs to the head if its mean is above ``threshold``, which is relative to the darkest (0)
    and the brightest (1) blocks of the volume, as in :py:class:`mri_seg.transforms.volume.NormalizeForeground`. Each
    slice is cropped to the box around its head, and slices with similar boxes go through the network together. The
    logit outside the boxes is -16. Volumes with a single value are not cropped.

    Args:
        inferer: the inferer to call on slices ``(B, C, h, w)``.
        enabled: whether to crop; if false, whole slices go through the network.
        slices_per_batch: maximum number of slices per call.
        margin: number of pixels kept around the head.
        multiple: sides and positions of the boxes are multiples of this, because the network needs such sides.
        threshold: where the head begins, 0 to 1.
        threads: number of PyTorch threads during inference; None keeps it. Use one if another runtime computes, since
            PyTorch's threads would spin after each operation and take the cores from it.
    """

    def __init__(
        self,
        inferer: Inferer,
        *,
        enabled: bool | str = True,
        slices_per_batch: int = 8,
        margin: int = 8,
        multiple: int = 32,
        threshold: float = 0.12,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.threads = threads
        self.enabled = flag(enabled, "crop_foreground")
        self.slices_per_batch = slices_per_batch
        self.margin = margin
        self.multiple = multiple
        self.threshold = threshold

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return logits for volumes ``(B, C, H, W, D)``, whose middle channel is the slice itself."""
        with _threads(self.threads):
            volumes = convert_to_tensor(inputs, track_meta=False)
            results = torch.stack([self._infer(volume, network, *args, **kwargs) for volume in volumes])
            return convert_to_dst_type(results, inputs)[0]

    def _infer(self, volume: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        volume = volume.movedim(-1, 0)  # (D, C, H, W)
        number, channels, *shape = volume.shape
        boxes = self._boxes(volume[:, channels // 2]) if self.enabled else {}
        boxes = boxes or dict.fromkeys(range(number), (slice(0, shape[0]), slice(0, shape[1])))
        buffer = volume.new_empty(min(number, self.slices_per_batch) * volume[0].numel())
        result: Any = None  # a tensor, once a logit says how many channels it has
        for batch in _batches(boxes, shape, self.slices_per_batch):
            parts = [volume[n, :, rows, columns] for n, (rows, columns) in batch]
            crops = torch.stack(parts, out=buffer[: len(parts) * parts[0].numel()].view(-1, *parts[0].shape))
            logits = self.inferer(crops, network, *args, **kwargs)
            if result is None:
                result = logits.new_full((number, logits.shape[1], *shape), _NO_HEAD)
            for (n, (rows, columns)), crop in zip(batch, logits):
                result[n, :, rows, columns] = crop
        return result.movedim(0, -1)

    def _boxes(self, slices: torch.Tensor) -> dict[int, tuple[slice, slice]]:
        """Rows and columns of the head in each of the slices ``(D, H, W)`` that shows it."""
        means = avg_pool2d(slices[:, None].float(), _BLOCK, ceil_mode=True)[:, 0].cpu().numpy()
        low, high = np.percentile(means, (0.5, 99.5))  # faster than torch.quantile, which sorts
        head = means > low + self.threshold * (high - low)
        numbers = head.any((1, 2)).nonzero()[0].tolist()
        sides = [self._extents(head[numbers].any(axis), size) for axis, size in zip((2, 1), slices.shape[1:])]
        return dict(zip(numbers, zip(*sides)))

    def _extents(self, blocks: np.ndarray, size: int) -> list[slice]:
        """Range of pixels of each head ``(heads, blocks)``, with margin, widened to multiples."""
        first = blocks.argmax(1) * _BLOCK - self.margin
        last = (blocks.shape[1] - blocks[:, ::-1].argmax(1)) * _BLOCK + self.margin
        starts = (first // self.multiple * self.multiple).clip(0)
        stops = (-(-last // self.multiple) * self.multiple).clip(max=size)
        return list(map(slice, starts.tolist(), stops.tolist()))


def class_logits(logits: torch.Tensor) -> torch.Tensor:
    """Logits of each class against all others and background, from those of a softmax.

    Args:
        logits: of background and of each class ``(B, 1 + classes, *spatial)``.

    Returns:
        logits ``(B, classes, *spatial)``, whose sigmoid is the softmax.
    """
    others = [torch.cat([logits[:, :k], logits[:, k + 1 :]], dim=1) for k in range(1, logits.shape[1])]
    return torch.stack([logits[:, k] - other.logsumexp(1) for k, other in enumerate(others, start=1)], dim=1)


def as_module(network: Callable[..., torch.Tensor]) -> torch.nn.Module:
    """The same network, known to be one with weights: inferers take any function.

    Args:
        network: what an inferer was called with.

    Raises:
        TypeError: when it is a function without weights.
    """
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"found {network!r}, expected a network with weights.")
    return network


def bfloat16_is_fast(device: str | torch.device) -> bool:
    """Whether a device has native bfloat16, so that autocast saves time.

    Args:
        device: device of the network.

    Returns:
        True on CUDA devices of compute capability 8 or higher, on x86 CPUs with AVX-512 BF16 or AMX, and on Arm CPUs
        whose bfloat16 instructions oneDNN uses.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has_bfloat16(platform.machine())


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Set PyTorch's number of threads temporarily; None keeps it."""
    if number is None:  # setting the number again would clear oneDNN's cache
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(
    boxes: Mapping[int, tuple[slice, slice]], shape: Sequence[int], largest: int
) -> Iterator[list[tuple[int, tuple[slice, slice]]]]:
    """Group slices with similar boxes into batches, and widen the boxes of a batch to the same size.

    Args:
        boxes: box of each slice, by its number.
        shape: rows and columns of a slice.
        largest: maximum number of slices in a batch.
    """
    numbers = sorted(boxes, key=lambda number: [side.stop - side.start for side in boxes[number]])
    for begin in range(0, len(numbers), largest):
        batch = numbers[begin : begin + largest]
        size = [max(boxes[number][axis].stop - boxes[number][axis].start for number in batch) for axis in (0, 1)]
        yield [(number, _widened_box(boxes[number], size, shape)) for number in batch]


def _widened_box(box: tuple[slice, slice], size: Sequence[int], shape: Sequence[int]) -> tuple[slice, slice]:
    rows, columns = map(_widened, box, size, shape)
    return rows, columns


def _widened(side: slice, size: int, available: int) -> slice:
    start = min(side.start, available - size)
    return slice(start, start + size)
