"""Random augmentation of whole batches, on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch

__all__ = ["AugmentBatch", "RandomAugment"]

Range = tuple[float, float]


class AugmentBatch(PrepareBatch):
    """Move a batch to the device and augment it there: ``prepare_batch`` of a ``SupervisedTrainer``.

    Args:
        augment: called with image and label, returns both; None for no augmentation.
    """

    def __init__(self, augment: Callable | None = None) -> None:
        self.augment = augment

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image ``(B, C, h, w)`` and label ``(B, 1, h, w)``, both float32 on the device.

        ``kwargs`` go to ``Tensor.to`` for the image, such as ``memory_format``.
        """
        image = batchdata["image"].to(device, non_blocking=non_blocking).float()
        label = batchdata["label"].to(device, non_blocking=non_blocking).float()
        if self.augment is not None:
            image, label = self.augment(image, label)
        return image.to(**kwargs) if kwargs else image, label


class RandomAugment:
    """Random crop, geometry and contrast of a batch of normalised slices, each slice with its own draw.

    Crop, rotation, scale, flip and elastic deformation are one resampling. What follows imitates what changes from
    scanner to scanner: low resolution, gamma, contrast, shift, bias field and noise. Neighbouring slices, the channels,
    are changed alike; noise alone is drawn for each. Draws come from torch's global generator of the device.

    Args:
        size: rows and columns of the result.
        flip: probability of a left-right flip.
        rotation: largest rotation either way, in degrees.
        scale: range of the magnification, rows and columns apart.
        elastic: largest standard deviation of the elastic displacement, in pixels, and distance of its control
            points, in pixels.
        low_resolution: range of the factor by which the resolution falls in either direction.
        gamma: range of the exponent applied to intensities as a share of the slice's own range.
        contrast: range of the factor on the distance from the median, which is 0 after normalisation.
        shift: largest shift of all intensities either way, in spreads.
        bias: largest strength of the bias field, as the log of its factor.
        noise: largest standard deviation of the noise, in spreads.
        probability: probability of each of these for a slice, apart from crop and flip.

    Example::

        >>> image, label = RandomAugment((32, 32))(torch.randn(2, 1, 64, 64), torch.zeros(2, 1, 64, 64))
        >>> image.shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        flip: float = 0.5,
        rotation: float = 20.0,
        scale: Range = (0.8, 1.25),
        elastic: Range = (4.0, 48.0),
        low_resolution: Range = (1.0, 2.5),
        gamma: Range = (0.75, 1.35),
        contrast: Range = (0.8, 1.25),
        shift: float = 0.25,
        bias: float = 0.25,
        noise: float = 0.25,
        probability: float = 0.35,
    ) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.flip = flip
        self.rotation = rotation
        self.scale = scale
        self.elastic = elastic
        self.low_resolution = low_resolution
        self.gamma = gamma
        self.contrast = contrast
        self.shift = shift
        self.bias = bias
        self.noise = noise
        self.probability = probability

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            image: normalised slices ``(B, C, H, W)``.
            label: binary labels ``(B, 1, H, W)``.

        Returns:
            image ``(B, C, *size)`` and binary label ``(B, 1, *size)``.
        """
        image, label = self._resample(image, label)
        image = self._on_some(image, self._lower_resolution)
        image = self._on_some(image, self._change_gamma)
        image = self._on_some(image, self._add_bias_field)
        image = self._on_some(image, self._add_noise)
        one = image.new_ones(len(image), 1, 1, 1)
        factor = self._chosen(one, self._log_uniform(one, self.contrast), one)
        shift = self._chosen(one, self._uniform(one, -self.shift, self.shift), 0 * one)
        return torch.addcmul(shift, image, factor), label

    def _resample(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Crop, rotate, scale, flip and deform by one bilinear interpolation."""
        batch, _, *source = image.shape
        one = image.new_ones(batch)
        angle = self._chosen(one, self._uniform(one, -self.rotation, self.rotation) * math.pi / 180, 0 * one)
        scales = [self._chosen(one, self._log_uniform(one, self.scale), one) for _ in range(2)]
        mirror = torch.where(torch.rand_like(one) < self.flip, -one, one)

        # Pixel offsets from the centre of the crop, (h, w) each, become offsets from the centre of the source.
        rows, columns = (torch.arange(n, device=image.device, dtype=image.dtype) - (n - 1) / 2 for n in self.size)
        rows, columns = (rows[None, :, None] / scales[0][:, None, None], columns[None, None] / scales[1][:, None, None])
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        slack = [max(n - m, 0) / 2 for n, m in zip(source, self.size)]
        grid = torch.stack(
            [
                mirror[:, None, None] * (cos * columns - sin * rows) + self._uniform(cos, -slack[1], slack[1]),
                sin * columns + cos * rows + self._uniform(cos, -slack[0], slack[0]),
            ],
            dim=1,
        )  # (B, 2, h, w), x then y as grid_sample has it
        grid = self._on_some(grid, self._displace)
        half = grid.new_tensor([source[1] / 2, source[0] / 2])[:, None, None]
        grid = (grid / half).movedim(1, -1)
        image, label = (
            F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
            for values in (image, label)
        )
        return image, (label > 0.5).to(label.dtype)

    def _displace(self, grid: torch.Tensor) -> torch.Tensor:
        """Add a smooth random displacement to positions ``(B, 2, h, w)``, in pixels."""
        largest, distance = self.elastic
        strength = self._uniform(grid.new_ones(len(grid), 1, 1, 1), 0, largest)
        points = [max(round(n / distance), 1) + 2 for n in self.size]
        field = torch.randn(len(grid), 2, *points, device=grid.device) * strength
        return grid + F.interpolate(field, size=self.size, mode="bicubic", align_corners=True)

    def _on_some(self, image: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Change the slices that are drawn, and spend no time on the others."""
        chosen = torch.rand(len(image), device=image.device) < self.probability
        if chosen.any():
            image[chosen] = change(image[chosen])
        return image

    def _lower_resolution(self, image: torch.Tensor) -> torch.Tensor:
        """Average down and interpolate back, with one pair of factors for all."""
        factors = torch.empty(2).uniform_(*map(math.log, self.low_resolution)).exp().tolist()
        small = [max(round(n / f), 1) for n, f in zip(self.size, factors)]
        low = F.interpolate(image, size=small, mode="bilinear", antialias=True)
        return F.interpolate(low, size=self.size, mode="bilinear")

    def _change_gamma(self, image: torch.Tensor) -> torch.Tensor:
        """Raise intensities, as a share of the slice's range, to a power."""
        low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
        span = (high - low).clamp_min(1e-6)
        share = ((image - low) / span).clamp_min(1e-6)
        return share.pow(self._log_uniform(low, self.gamma)) * span + low

    def _add_bias_field(self, image: torch.Tensor) -> torch.Tensor:
        """Multiply by a smooth field around 1, counted from air, which no receiver coil brightens."""
        air = image.amin(dim=(1, 2, 3), keepdim=True)
        field = torch.empty(len(image), 1, 4, 4, device=image.device).uniform_(-1, 1)
        field = F.interpolate(field * self._uniform(air, 0, self.bias), size=self.size, mode="bicubic")
        return torch.addcmul(air, image - air, field.exp())

    def _add_noise(self, image: torch.Tensor) -> torch.Tensor:
        """Add white noise."""
        strength = self._uniform(image.new_ones(len(image), 1, 1, 1), 0, self.noise)
        return torch.addcmul(image, torch.randn_like(image), strength)

    def _chosen(self, like: torch.Tensor, drawn: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand_like(like) < self.probability, drawn, otherwise)

    @staticmethod
    def _uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand_like(like) * (high - low) + low

    @classmethod
    def _log_uniform(cls, like: torch.Tensor, bounds: Range) -> torch.Tensor:
        return cls._uniform(like, *map(math.log, bounds)).exp()
