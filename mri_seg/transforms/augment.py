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
    are changed alike; noise alone is drawn for each. MONAI's random transforms change one item at a time, and resample
    once for each kind of geometry. Draws come from torch's global generator of the device.

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

        # Places, x then y, are -1 to 1 from edge to edge of crop and source, as grid_sample has them.
        size, whole = self.size[::-1], source[::-1]
        cos, sin = angle.cos(), angle.sin()
        turn = [mirror * cos / scales[1], -mirror * sin / scales[0], sin / scales[1], cos / scales[0]]
        turns = torch.stack(turn, 1).view(-1, 2, 2) * image.new_tensor([[m / n for m in size] for n in whole])
        slacks = [max(n - m, 0) / n for m, n in zip(size, whole)]
        move = torch.stack([self._uniform(one, -slack, slack) for slack in slacks], 1)[..., None, None]
        columns, rows = ((2 * torch.arange(m, device=image.device) + 1) / m - 1 for m in size)
        across, down = turns[..., None, None].unbind(2)
        grid = (across * columns + move) + down * rows[:, None]  # (B, 2, h, w)
        half = grid.new_tensor(whole)[:, None, None] / 2
        grid = self._on_some(grid, lambda grid: grid + self._displacement(grid) / half).movedim(1, -1)
        image, label = (
            F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
            for values in (image, label)
        )
        return image, (label > 0.5).to(label.dtype)

    def _displacement(self, grid: torch.Tensor) -> torch.Tensor:
        """Smooth random displacements for places ``(B, 2, h, w)``, in pixels."""
        largest, distance = self.elastic
        strength = self._uniform(grid.new_ones(len(grid), 1, 1, 1), 0, largest)
        points = [max(round(n / distance), 1) + 2 for n in self.size]
        field = torch.randn(len(grid), 2, *points, device=grid.device) * strength
        return _bicubic(field, self.size, align_corners=True)

    def _on_some(self, image: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Change the slices that are drawn, in place if need be, and spend no time on the others."""
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
        share = image.sub_(low).div_(span).clamp_min_(1e-6)
        return share.pow_(self._log_uniform(low, self.gamma)).mul_(span).add_(low)

    def _add_bias_field(self, image: torch.Tensor) -> torch.Tensor:
        """Multiply by a smooth field around 1, counted from air, which no receiver coil brightens."""
        air = image.amin(dim=(1, 2, 3), keepdim=True)
        field = torch.empty(len(image), 1, 4, 4, device=image.device).uniform_(-1, 1)
        field = _bicubic(field * self._uniform(air, 0, self.bias), self.size)
        return image.sub_(air).mul_(field.exp_()).add_(air)

    def _add_noise(self, image: torch.Tensor) -> torch.Tensor:
        """Add white noise."""
        strength = self._uniform(image.new_ones(len(image), 1, 1, 1), 0, self.noise)
        return torch.randn_like(image).mul_(strength).add_(image)

    def _chosen(self, like: torch.Tensor, drawn: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand_like(like) < self.probability, drawn, otherwise)

    @staticmethod
    def _uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand_like(like) * (high - low) + low

    @classmethod
    def _log_uniform(cls, like: torch.Tensor, bounds: Range) -> torch.Tensor:
        return cls._uniform(like, *map(math.log, bounds)).exp()


def _bicubic(field: torch.Tensor, size: Sequence[int], *, align_corners: bool = False) -> torch.Tensor:
    """Interpolate a coarse field ``(B, C, h, w)`` bicubically, by products of matrices: faster than a kernel."""
    rows, columns = (
        F.interpolate(
            torch.eye(n, device=field.device)[None, None], (m, n), mode="bicubic", align_corners=align_corners
        )
        for m, n in zip(size, field.shape[2:])
    )
    return rows @ field @ columns.mT
