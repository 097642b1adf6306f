"""Transforms of whole volumes that MONAI does not have: geometry, normalization, adjacent slices as channels (2.5D)."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Spacingd, Transform
from monai.utils import convert_to_numpy, convert_to_tensor
from scipy.ndimage import gaussian_filter1d

from mri_seg.transforms.brain import brain_mask
from mri_seg.transforms.midline import mirrored
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.flags import flag
from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit

__all__ = [
    "NeighboringSlicesd",
    "NormalizeForeground",
    "NormalizeForegroundd",
    "PlaneSpacingd",
    "RequireAxiald",
    "RequireImaged",
    "foreground_mask",
    "median_and_spread",
]

logger = logging.getLogger(__name__)

_SAMPLE = 10_000  # voxels
_SMALLEST_BRAIN = 1000  # voxels; fewer tell too little of its intensities
_BRAIN_SPREAD = 0.36  # of the way from air to the brain's most frequent value; about the spread of a head's foreground
_IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution of standard deviation 1


def foreground_mask(
    volume: np.ndarray, *, threshold: float = 0.12, percentiles: tuple[float, float] = (0.5, 99.5)
) -> np.ndarray:
    """Find the foreground of a volume: voxels that are bright relative to the range of the volume.

    Args:
        volume: intensities of any unit and shape.
        threshold: where the foreground begins between the two percentiles, 0 to 1.
        percentiles: percentiles of the volume that count as its darkest and its brightest value.

    Returns:
        mask of the same shape, bool. Values that are not finite are outside; they count as air, as dark as the darkest
        value, so that the foreground of a skull-stripped brain is what it is with dark air around it.
    """
    finite = np.isfinite(volume)
    if not finite.any():
        return finite
    values = np.where(finite, volume, volume[finite].min())
    low, high = np.percentile(values, percentiles)
    return values > low + threshold * (high - low)


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Median, and interquartile range in standard deviations of a normal distribution: they ignore outliers.

    Args:
        values: intensities of any shape.

    Returns:
        both, of the finite values; 0 and 0 if there is none.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    lower, median, upper = np.percentile(finite, (25, 50, 75))
    return float(median), float((upper - lower) / _IQR_OF_NORMAL)


class NormalizeForeground(Transform):
    """Normalize a volume by the median and spread of its own foreground.

    MR intensities have no unit, and some volumes use only a tenth of their range, so the threshold of the foreground is
    relative to the volume: ``threshold`` is 0 at the lower of the two ``percentiles`` and 1 at the upper. The median of
    the foreground becomes 0, and its spread becomes 1 (interquartile range / 1.349, which is the standard deviation of
    a normal distribution). Values beyond ``limits`` are clipped. The result does not depend on scale and offset of the
    input.

    Args:
        threshold: where the foreground begins between the two percentiles, 0 to 1.
        percentiles: percentiles of the volume that count as its darkest and its brightest value.
        limits: lowest and highest value of the result, in spreads.
        region: ``head``: as above; ``brain``: the most frequent value of the brain becomes 0, and 0.36 times its
            distance from air, the lower of the two percentiles, becomes 1, so that scalp, tumour, noise and bias field
            hardly matter; if :py:func:`mri_seg.transforms.brain.brain_mask` finds no brain, as with ``head``.

    Raises:
        ValueError: when ``region`` is another.

    Example::

        >>> bool(NormalizeForeground()(torch.rand(1, 64, 64, 8)).median().abs() < 1)
        True
    """

    def __init__(
        self,
        *,
        threshold: float = 0.12,
        percentiles: tuple[float, float] = (0.5, 99.5),
        limits: tuple[float, float] = (-5.0, 10.0),
        region: str = "head",
    ) -> None:
        if region not in ("head", "brain"):
            raise ValueError(f"region is {region!r}, expected head or brain.")
        self.region = region
        self.threshold = threshold
        self.percentiles = percentiles
        self.limits = limits

    def __call__(self, img: NdarrayOrTensor, brain: NdarrayOrTensor | None = None) -> torch.Tensor:
        """Normalize the volume ``(C, H, W, D)``; a constant volume becomes all 0, with a warning.

        NaN, which marks the outside of a skull-stripped brain, becomes the lowest value. Channels are normalized each
        on its own, with the brain of the first.

        Args:
            img: the volume.
            brain: mask ``(1, H, W, D)`` of its brain; found if it is needed and not given.
        """
        volume = convert_to_tensor(img, track_meta=get_track_meta(), dtype=torch.float32)
        values = convert_to_numpy(volume)
        if values.ndim == 4 and len(values) > 1:
            if brain is None and self.region == "brain":
                brain = brain_mask(values[0])[None]
            return torch.cat([self(volume[[channel]], brain) for channel in range(len(values))])
        median, spread = self._median_and_spread(values, None if brain is None else convert_to_numpy(brain)[0] > 0)
        if spread <= 0:
            name = volume.meta.get("filename_or_obj", "volume") if isinstance(volume, MetaTensor) else "volume"
            logger.warning("%s: the intensities of the foreground do not vary, so they are not scaled.", name)
            spread = 1.0
        lowest, highest = self.limits
        normalized = (volume - median) / spread
        return normalized.nan_to_num(nan=lowest, posinf=highest, neginf=lowest).clip(lowest, highest)

    def _median_and_spread(self, values: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
        if self.region == "brain" and values.ndim == 4:
            mask = brain_mask(values[0]) if mask is None else mask
            brain = values[0][mask & np.isfinite(values[0])]
            mode, air = _mode(brain), np.nanpercentile(values, self.percentiles[0])
            if brain.size >= _SMALLEST_BRAIN and mode > air:
                return mode, _BRAIN_SPREAD * float(mode - air)
        foreground = foreground_mask(values, threshold=self.threshold, percentiles=self.percentiles)
        return median_and_spread(values[foreground] if foreground.any() else values)


def _mode(values: np.ndarray) -> float:
    """Most frequent value, of a smoothed histogram; 0 if there is no value."""
    if not values.size:
        return 0.0
    counts, edges = np.histogram(values, bins=256, range=tuple(np.percentile(values, (1, 99))))
    return float(edges[gaussian_filter1d(counts.astype(float), 8).argmax()] + (edges[1] - edges[0]) / 2)


class NormalizeForegroundd(MapTransform):
    """Dictionary-based version of :py:class:`NormalizeForeground`.

    Args:
        keys: keys of the volumes.
        brain: key of a mask of the brain; if there is none, it is found where it is needed.
        allow_missing_keys: whether to skip missing keys.
        kwargs: arguments of :py:class:`NormalizeForeground`.
    """

    def __init__(
        self, keys: KeysCollection, *, brain: str = "brain", allow_missing_keys: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.brain = brain
        self.normalize = NormalizeForeground(**kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalize each volume ``(1, H, W, D)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.normalize(d[key], d.get(self.brain))
        return d


class PlaneSpacingd(Spacingd):
    """Resample volumes within the plane to a pixel size; slices stay, and so do volumes with unknown pixel size.

    Args:
        keys: keys of the volumes.
        pixdim: new spacing of rows and columns, in mm.
        max_voxels: maximum number of voxels of the result.
        kwargs: further arguments of MONAI's ``Spacingd``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float],
        *,
        max_voxels: int = MAX_VOXELS,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, pixdim=(*pixdim, -1.0), **kwargs)
        self.pixdim = pixdim
        self.max_voxels = max_voxels

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample each volume ``(C, H, W, D)`` in its first two spatial axes.

        Raises:
            ValueError: when the result would be larger than ``max_voxels``.
        """
        if not self._spacing_known(data):
            return dict(data)
        for key in self.key_iterator(data):
            spacing = affine_to_spacing(data[key].affine).tolist()
            sizes = data[key].shape[1:]
            planes = (size * step / wanted for size, step, wanted in zip(sizes, spacing, self.pixdim))
            shape = [*(math.ceil(size) for size in planes), *sizes[2:]]
            SizeLimit(self.max_voxels).add(
                f"{data[key].meta.get('filename_or_obj', key)} resampled from {spacing[0]:g} x {spacing[1]:g} mm to "
                f"{self.pixdim[0]:g} x {self.pixdim[1]:g} mm",
                shape,
            )
        # Spacingd takes every entry whose name begins with a key as metadata, also the text image_path of MONAI Label.
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(data)}, lazy)}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample back to the grid before this transform."""
        return super().inverse(data) if self._spacing_known(data) else dict(data)

    def _spacing_known(self, data: Mapping[Hashable, Any]) -> bool:
        return all(data[key].meta.get("spacing_known", True) for key in self.key_iterator(data) if key in data)


class RequireImaged(MapTransform):
    """Refuse volumes that are not images, such as binary masks, and flag volumes that may not be.

    A volume with only one or two distinct finite values is refused. The flag ``few_values`` means that it has at most
    ``few`` of them, like a mask with several labels. The flag ``orientation_unknown`` means that the file does not say
    which side is left.

    Args:
        keys: keys of the volumes, as read.
        few: a volume with at most this number of distinct values is flagged.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(self, keys: KeysCollection, *, few: int = 16, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.few = few

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each volume ``(C, H, W, D)``.

        Raises:
            ValueError: when a volume has one or two distinct finite values.
        """
        for key in self.key_iterator(data):
            meta = data[key].meta
            found = _distinct_values(data[key].as_tensor(), self.few)
            if found is not None and len(found) <= 2:
                file = str(meta.get("files") or meta.get("filename_or_obj", key)).partition("\n")[0]
                values = " and ".join(f"{value:g}" for value in found.tolist()) or "none that is a number"
                raise ValueError(
                    f"{file}: its only {'value is' if len(found) == 1 else 'values are'} {values}, expected an image. "
                    "It is empty or a mask: give the image instead, or leave it out."
                )
            if found is not None:
                message = f"it has only {len(found)} distinct values, like a mask with several labels. Check the image."
                add_flag(meta, "few_values", message)
            if not meta.get("orientation_known", True):
                message = (
                    "its file does not say which side is left, so nibabel's default is used. If the side matters, "
                    "convert the original data to NIfTI again."
                )
                add_flag(meta, "orientation_unknown", message)
        return dict(data)


def _distinct_values(volume: torch.Tensor, most: int) -> torch.Tensor | None:
    """Find the distinct finite values of a volume; None if there are more than ``most``."""
    flat = volume.flatten()
    for values in (flat[:: max(len(flat) // _SAMPLE, 1)], flat):  # for an image, a sample of its voxels is enough
        distinct = values[torch.isfinite(values)].unique()
        if len(distinct) > most:
            return None
    return distinct


class RequireAxiald(MapTransform):
    """Refuse volumes with thick slices that are not axial, since the network works on axial slices.

    Slices are thick if the distance between them is more than ``ratio`` times the pixel size. If voxels are nearly
    cubic, the volume can be cut into axial slices however it was acquired. Volumes with unknown spacing are accepted.

    Args:
        keys: keys of the volumes, already in axial orientation: slices along the last axis.
        allow: whether to accept such volumes.
        ratio: maximum ratio of slice distance to pixel size at which voxels count as nearly cubic.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        allow: bool | str = False,
        ratio: float = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.allow = flag(allow, "allow_non_axial")
        self.ratio = ratio

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each volume ``(C, H, W, D)``.

        Raises:
            ValueError: when a volume has thick slices that are not axial.
        """
        for key in self.key_iterator(data):
            meta = data[key].meta
            rows, columns, slices = (float(step) for step in affine_to_spacing(data[key].affine))
            thick, thin = max(rows, columns), min(rows, columns, slices)
            if self.allow or not meta.get("spacing_known", True) or thick <= max(self.ratio * thin, slices):
                continue
            raise ValueError(
                f"{meta.get('filename_or_obj', key)}: acquired in {'coronal' if rows > columns else 'sagittal'} slices "
                f"{thick:.1f} mm apart, expected axial slices or voxels that are nearly cubic. Give the axial series, "
                "or set allow_non_axial to true and treat the result with caution."
            )
        return dict(data)


class NeighboringSlicesd(MapTransform):
    """Add the adjacent slices of every slice as channels (2.5D): ``(S, H, W, D)`` becomes ``(S * number, H, W, D)``.

    Of each of the S sequences, the middle channel is the slice itself, and lower slices come before it. At the ends of
    the volume, the last slice is repeated. Channels of adjacent slices of a single sequence share their memory, so do
    not write to them; :py:func:`mri_seg.io.collate.case_batch` keeps it shared.

    Args:
        keys: keys of the volumes.
        number: number of slices that the network sees at once, odd; 1 changes nothing.
        mirror: whether the slice of the first sequence, mirrored about the midline, follows as one more channel, which
            shows the network asymmetry; this copies the volume.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``number`` is not odd.
    """

    def __init__(
        self, keys: KeysCollection, number: int = 3, *, mirror: bool | str = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mirror = flag(mirror, "mirror")
        self.offsets = neighbor_offsets(number)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Stack the adjacent slices of each volume ``(S, H, W, D)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            stacks = [self._stacked(sequence) for sequence in d[key]]
            channels = stacks[0] if len(stacks) == 1 else torch.cat(stacks)
            if self.mirror:
                other_side = torch.from_numpy(mirrored(d[key].numpy()[0])).to(channels.dtype)
                channels = torch.cat([channels, other_side[None]])
            d[key] = channels
        return d

    def _stacked(self, volume: torch.Tensor) -> torch.Tensor:
        """The adjacent slices of each slice of a volume ``(H, W, D)``, as a view in which each slice is kept once."""
        slices, ends = volume.movedim(-1, 0), len(self.offsets) // 2
        stack = torch.cat([slices[:1]] * ends + [slices] + [slices[-1:]] * ends)  # (D + 2 ends, H, W)
        return stack.unfold(0, len(self.offsets), 1).permute(3, 1, 2, 0)


def neighbor_offsets(number: int) -> range:
    """Offsets of the adjacent slices of a slice, itself included: -1, 0, 1 for three slices.

    Raises:
        ValueError: when ``number`` is not a positive odd number.
    """
    if number < 1 or number % 2 == 0:
        raise ValueError(f"the number of slices must be odd, with the slice itself in the middle, got {number}.")
    return range(-(number // 2), number // 2 + 1)
