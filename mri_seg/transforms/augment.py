"""Random augmentation of whole batches on the training device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch

from mri_seg.transforms.transplant import transplant_lesions
from mri_seg.utils.flags import flag

__all__ = ["AugmentBatch", "RandomAugment"]

Range = tuple[float, float]

_AROUND_BRAIN = 5  # pixels across: the mask of the brain may end short of its edge by two


class AugmentBatch(PrepareBatch):
    """Move a batch to the device and augment it there; for ``prepare_batch`` of a ``SupervisedTrainer``.

    Args:
        augment: function that takes image and label and returns both; None for no augmentation.
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
        image, label, *brain = (
            batchdata[key].to(device, non_blocking=non_blocking).float()
            for key in ("image", "label", "brain")
            if key in batchdata
        )
        if self.augment is not None:
            image, label = self.augment(image, label, *brain)
        return image.to(**kwargs) if kwargs else image, label


class RandomAugment:
    """Change crop, geometry and contrast of a batch of normalized slices at random, differently for each slice.

    Crop, rotation, scale, flip and elastic deformation are done by one resampling. The other changes imitate the
    differences between scanners: low resolution, gamma, contrast, shift, bias field and noise. The channels of a slice
    (its adjacent slices) all change in the same way, except that each gets its own noise. Random numbers come from
    torch's global generator of the device.

    MONAI's ``Rand*d`` transforms are not used, because they change one sample at a time. This class changes a whole
    batch on the training device, and does all geometric changes, elastic deformation included, in one interpolation.

    Args:
        size: rows and columns of the result.
        flip: probability of a left-right flip.
        rotation: maximum rotation in either direction, in degrees.
        scale: range of the magnification, drawn separately for rows and columns.
        elastic: maximum standard deviation of the elastic displacement, and distance between its control points, both
            in pixels.
        low_resolution: range of the factor by which the resolution is reduced, drawn separately for rows and columns.
        gamma: range of the exponent, which is applied to intensities scaled to 0 to 1 within the slice.
        contrast: range of the factor on the difference from the median, which is 0 after normalization.
        shift: maximum shift of all intensities in either direction, in spreads (see ``NormalizeForeground``).
        bias: maximum strength of the bias field, as the logarithm of its factor.
        noise: maximum standard deviation of the noise, in spreads.
        probability: probability of each of these changes for a slice, except crop and flip.
        scalp: range of the factor by which everything outside the brain is scaled, relative to air.
        scalp_probability: probability of that for a slice; it needs the mask of the brain.
        strip_probability: probability that everything outside the brain is removed; it needs the mask of the brain.
        fade: range of the fraction of a lesion's excess over the tissue around it that is removed in a part of the
            lesion, so that only its texture shows this part.
        fade_probability: probability of that for a slice with tumour.
        transplant_probability: probability that a slice gets a lesion of another slice of the batch
            (:py:func:`mri_seg.transforms.transplant.transplant_lesions`); it needs the mask of the brain.
        mirror: whether the last channel is the slice mirrored about the midline.
        classes: number of classes; labels hold their numbers, from 1.

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
        scalp: Range = (0.05, 1.6),
        scalp_probability: float = 0.0,
        strip_probability: float = 0.0,
        fade: Range = (0.5, 1.2),
        fade_probability: float = 0.0,
        transplant_probability: float = 0.0,
        mirror: bool | str = False,
        classes: int = 1,
    ) -> None:
        self.classes = classes
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
        self.scalp = scalp
        self.scalp_probability = scalp_probability
        self.strip_probability = strip_probability
        self.fade = fade
        self.fade_probability = fade_probability
        self.transplant_probability = transplant_probability
        self.mirror = flag(mirror, "mirror")

    @torch.no_grad()
    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, brain: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            image: normalized slices ``(B, C, H, W)``.
            label: labels ``(B, 1, H, W)``: 0 and 1, or numbers of classes.
            brain: masks of the brain ``(B, 1, H, W)``; without them scalps stay as they are.

        Returns:
            image ``(B, C, *size)`` and label ``(B, 1, *size)``.
        """
        if self.transplant_probability > 0 and brain is not None:
            image, label = transplant_lesions(image, label, brain, self.transplant_probability, mirror=self.mirror)
        if self.classes > 1:
            # One mask for each number and all above it, so that interpolation leaves no gap between two classes.
            label = torch.cat([(label >= number).to(label.dtype) for number in range(1, self.classes + 1)], dim=1)
        masks = label if brain is None else torch.cat([label, brain], dim=1)
        image, masks = self._resample(image, masks)
        tumor = masks[:, :1]
        label = tumor if self.classes == 1 else masks[:, : self.classes].sum(dim=1, keepdim=True)
        if self.fade_probability > 0:
            image = self._fade_lesions(image, tumor)
        if brain is not None:
            image = self._change_scalp(image, masks[:, self.classes :])
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

        # Coordinates (x, then y) run from -1 to 1 between the edges of crop and source, as grid_sample expects.
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

    def _change_scalp(self, image: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """Scale what lies outside the brain, or take it away, with a draw for each slice."""
        draw = torch.rand(len(image), device=image.device)
        stripped, changed = draw < self.strip_probability, draw < self.strip_probability + self.scalp_probability
        if not changed.any():
            return image
        factor = self._log_uniform(image.new_ones(len(image), 1, 1, 1), self.scalp)
        factor[stripped] = 0
        near = F.max_pool2d(brain[changed], _AROUND_BRAIN, 1, _AROUND_BRAIN // 2)
        air = image[changed].amin(dim=(1, 2, 3), keepdim=True)
        image[changed] = (image[changed] - air) * (near + (1 - near) * factor[changed]) + air
        return image

    def _fade_lesions(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Take away a part of the lesions' smooth excess over the tissue around them; their texture stays."""
        chosen = torch.rand(len(image), device=image.device) < self.fade_probability
        chosen &= label.flatten(1).any(dim=1)
        if not chosen.any():
            return image
        own = image.shape[1] - self.mirror  # the other side of the head stays as it is
        slices, lesion = image[chosen, :own], label[chosen]
        center = slices[:, own // 2 : own // 2 + 1]
        ring = F.max_pool2d(lesion, 31, 1, 15) - F.max_pool2d(lesion, 7, 1, 3)
        ring = ring * (center.abs() < 1.5)  # tissue, neither air nor scalp
        tissue = (center * ring).sum((1, 2, 3), keepdim=True) / ring.sum((1, 2, 3), keepdim=True).clamp_min(1)
        smooth = slices
        for _ in range(2):
            smooth = F.avg_pool2d(smooth, 9, 1, 4, count_include_pad=False)
        part = _bicubic(torch.randn(len(slices), 1, 5, 5, device=image.device), self.size)
        part = torch.sigmoid(4 * (part + self._uniform(tissue, -0.7, 1.0)))
        weight = F.avg_pool2d(lesion, 5, 1, 2) * lesion * part * self._uniform(tissue, *self.fade)
        image[chosen, :own] = slices - weight * (smooth - tissue)
        return image

    def _displacement(self, grid: torch.Tensor) -> torch.Tensor:
        """Smooth random displacements for coordinates ``(B, 2, h, w)``, in pixels."""
        largest, distance = self.elastic
        strength = self._uniform(grid.new_ones(len(grid), 1, 1, 1), 0, largest)
        points = [max(round(n / distance), 1) + 2 for n in self.size]
        field = torch.randn(len(grid), 2, *points, device=grid.device) * strength
        return _bicubic(field, self.size, align_corners=True)

    def _on_some(self, image: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Apply a change to randomly drawn slices, possibly in place, and skip the others."""
        chosen = torch.rand(len(image), device=image.device) < self.probability
        if chosen.any():
            image[chosen] = change(image[chosen])
        return image

    def _lower_resolution(self, image: torch.Tensor) -> torch.Tensor:
        """Downsample and interpolate back to the old size, with the same two factors for all slices."""
        factors = torch.empty(2).uniform_(*map(math.log, self.low_resolution)).exp().tolist()
        small = [max(round(n / f), 1) for n, f in zip(self.size, factors)]
        low = F.interpolate(image, size=small, mode="bilinear", antialias=True)
        return F.interpolate(low, size=self.size, mode="bilinear")

    def _change_gamma(self, image: torch.Tensor) -> torch.Tensor:
        """Scale intensities to 0 to 1 within the slice, raise them to a power, and scale them back."""
        low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
        span = (high - low).clamp_min(1e-6)
        scaled = image.sub_(low).div_(span).clamp_min_(1e-6)
        return scaled.pow_(self._log_uniform(low, self.gamma)).mul_(span).add_(low)

    def _add_bias_field(self, image: torch.Tensor) -> torch.Tensor:
        """Multiply intensities by a smooth field around 1, with air as 0, since no receiver coil brightens air."""
        air = image.amin(dim=(1, 2, 3), keepdim=True)
        field = torch.empty(len(image), 1, 4, 4, device=image.device).uniform_(-1, 1)
        field = _bicubic(field * self._uniform(air, 0, self.bias), self.size)
        if self.mirror:
            field = torch.cat([field.expand(-1, image.shape[1] - 1, -1, -1), field.flip(-1)], dim=1)
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
    """Interpolate a coarse field ``(B, C, h, w)`` bicubically, by matrix products, which are faster than a kernel."""
    rows, columns = (
        F.interpolate(
            torch.eye(n, device=field.device)[None, None], (m, n), mode="bicubic", align_corners=align_corners
        )
        for m, n in zip(size, field.shape[2:])
    )
    return rows @ field @ columns.mT
