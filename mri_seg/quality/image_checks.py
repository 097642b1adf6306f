"""Check a volume before it is segmented: whether it looks like the FLAIR volumes that the network was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from scipy import ndimage

from mri_seg.quality.frame import head_frame
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.case_flags import add_flag

__all__ = ["IMAGE_FLAGS", "ImageChecksd", "ImageLimits", "ImageMeasures", "Spacing", "image_flags", "image_measures"]

IMAGE_FLAGS = ("not_flair", "skull_stripped", "thin_slices", "head_cut", "noisy_or_moved", "resampled_far")
"""Names of the flags of :py:class:`ImageChecksd`."""

_THINNEST = 1.6  # mm between slices
_MOST_SLICES = 100  # slices with brain; the patients trained on have up to 70
_PIXEL = (0.3, 1.5)  # mm
_STRETCHED = 1.5  # length of a pixel's longer side, of the shorter

_SLICES = 14  # slices that are looked at; with 8, cortex and white matter are told apart less surely
_UPPER = 0.35  # where they begin, as a fraction of the brain's height: above the skull base
_TISSUE = (0.6, 1.4)  # of the brain's most frequent value
_SIGNAL = 0.12  # of the brain's most frequent value; less is air or bone
_FEWEST = 200  # pixels that a median is taken of
_LAPLACIAN = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])  # its norm is 6
_MAD_OF_NORMAL = 0.6745


class ImageMeasures(NamedTuple):
    """What a volume looks like; NaN if it cannot be measured. Brightness is from air, 0, to that of the brain, 1.

    Attributes:
        cortex: brightness of tissue 3 to 4.5 pixels from fluid, mostly cortex, as a fraction of that 7 or more pixels
            from fluid, mostly white matter.
        fluid: fraction of the brain that is dark.
        around: fraction of what lies 4 to 28 pixels from the brain that has signal.
        noise: standard deviation of the noise (Immerkaer, Computer Vision and Image Understanding 1996).
        jump: pixels by which the middle of the brain lies off the line between those of the slices before and after.
        top: area of the brain in its highest slice, as a fraction of its largest area.
        at_edge: pixels of the brain at the edge of the picture, in a slice.
        length: pixels from the front to the back of the brain.
        slices: slices with brain.
    """

    cortex: float
    fluid: float
    around: float
    noise: float
    jump: float
    top: float
    at_edge: float
    length: float
    slices: int


class ImageLimits(NamedTuple):
    """What a volume is measured against, in the units of :py:class:`ImageMeasures`.

    The values come from a rule: halfway between the last ordinary patient of TCGA-LGG and the first volume in which a
    flag holds. ``benchmarks/checks.py image`` prints them, and tries the rule on patients that it leaves out.

    Attributes:
        cortex: FLAIR volumes have more; T1-weighted ones have less.
        fluid: FLAIR volumes have more: half of what the patient with least has.
        around: heads with a skull have more.
        noise: ordinary volumes have less.
        jump: likewise.
        top: whole heads have less.
        at_edge: likewise.
        shortest: brains are longer unless pixels are large.
        longest: brains are shorter unless pixels are small.
    """

    cortex: float = 0.949
    fluid: float = 0.008
    around: float = 0.21
    noise: float = 0.073
    jump: float = 2.25
    top: float = 0.686
    at_edge: float = 39.0
    shortest: float = 145.0
    longest: float = 288.0


_LIMITS = ImageLimits()


class Spacing(NamedTuple):
    """Spacing in mm of a volume as read, in axial orientation; None if it is not known."""

    plane: tuple[float, float] | None
    slices: float | None


def image_measures(volume: np.ndarray, brain: np.ndarray) -> ImageMeasures | None:
    """Measure a volume in a few slices above the skull base.

    Args:
        volume: intensities ``(H, W, D)`` in axial orientation.
        brain: its brain, from :py:func:`mri_seg.transforms.brain.brain_mask`.

    Returns:
        the measures; None if the brain is empty or does not vary.
    """
    areas = brain.sum((0, 1))
    numbers = np.flatnonzero(areas)
    if not numbers.size:
        return None
    bottom = numbers[0] + _UPPER * (numbers[-1] - numbers[0])
    large = numbers[(numbers >= bottom) & (areas[numbers] > 0.5 * areas.max())]
    large = large if large.size else numbers
    chosen = large[np.unique(np.linspace(0, large.size - 1, _SLICES).round().astype(int))]
    inside = np.ascontiguousarray(brain[..., chosen].transpose(2, 0, 1))
    mode, air = _mode(volume, brain)
    if not mode > air:
        return None
    slices = (np.nan_to_num(volume[..., chosen].transpose(2, 0, 1).astype(np.float32), nan=air) - air) / (mode - air)
    depth = np.stack([ndimage.distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1] for one in inside])
    outside = np.stack([ndimage.distance_transform_edt(~one) for one in inside])
    core = depth > 3
    return ImageMeasures(
        cortex=_cortex(slices, inside, core),
        fluid=float((slices[core] < _TISSUE[0]).mean()) if core.any() else np.nan,
        around=_mean(slices[(outside > 4) & (outside <= 28)] > _SIGNAL),
        noise=_noise(slices, core),
        jump=_jump(brain[..., large[0] : large[-1] + 1]),
        top=float(areas[numbers[-1]] / areas.max()),
        at_edge=_at_edge(inside),
        length=float(max(np.ptp(np.flatnonzero(one.any(1))) + 1 for one in inside)),
        slices=int(numbers.size),
    )


def _mode(volume: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """Most frequent value of the brain, and that of air."""
    values, air = volume[brain], float(np.nanpercentile(volume[::4, ::4], 0.5))
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (1, 99)) if values.size else (air, air)
    if not high > low:
        return air, air
    counts, edges = np.histogram(values, bins=256, range=(low, high))
    return float(edges[ndimage.gaussian_filter1d(counts.astype(float), 8).argmax()]), air


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size >= _FEWEST else np.nan


def _cortex(slices: np.ndarray, brain: np.ndarray, core: np.ndarray) -> float:
    tissue = (slices > _TISSUE[0]) & brain
    from_fluid = np.stack([ndimage.distance_transform_edt(one) for one in tissue])
    usual = tissue & core & (slices < _TISSUE[1])
    cortex = slices[usual & (from_fluid > 3) & (from_fluid <= 4.5)]
    white = slices[usual & (from_fluid > 7)]
    if min(cortex.size, white.size) < _FEWEST:
        return np.nan
    return float(np.median(cortex) / np.median(white))


def _noise(slices: np.ndarray, core: np.ndarray) -> float:
    found = np.concatenate([ndimage.convolve(one, _LAPLACIAN)[at] for one, at in zip(slices, core)])
    return float(np.median(np.abs(found)) / _MAD_OF_NORMAL / 6) if found.size >= _FEWEST else np.nan


def _jump(brain: np.ndarray) -> float:
    """Median distance of the brain's middle in a slice from the mean of those in the slices before and after."""
    areas = brain.sum((0, 1))
    if len(areas) < 5 or not areas.all():
        return np.nan
    middles = [np.tensordot(np.arange(n), brain.sum(1 - axis), 1) / areas for axis, n in enumerate(brain.shape[:2])]
    between = [(middle[:-2] + middle[2:]) / 2 for middle in middles]
    return float(np.median(np.hypot(*(middle[1:-1] - mean for middle, mean in zip(middles, between)))))


def _at_edge(brain: np.ndarray) -> float:
    sides = (brain[:, 0], brain[:, -1], brain[:, :, 0], brain[:, :, -1])
    return float(sum(np.count_nonzero(side) for side in sides) / len(brain))


def image_flags(
    found: ImageMeasures | None, spacing: Spacing, limits: ImageLimits = _LIMITS
) -> Iterator[tuple[str, str]]:
    """Names and messages of the flags that a volume deserves.

    Args:
        found: its measures; None if no brain was found.
        spacing: its spacing as read.
        limits: what it is measured against.
    """
    plane, between = spacing
    if found is None:
        yield "not_flair", "no brain was found in it. Check that it is an axial FLAIR volume of a head."
    elif found.cortex < limits.cortex:
        yield (
            "not_flair",
            f"its cortex has {100 * found.cortex:.0f} % of the brightness of its white matter, as in T1-weighted "
            "images; in FLAIR it is at least as bright. Check the contrast, and give the FLAIR series.",
        )
    elif found.fluid < limits.fluid:
        yield (
            "not_flair",
            "there is no dark fluid in its brain, as there is in FLAIR. Check the contrast, and give the FLAIR series.",
        )
    if found is not None and found.around < limits.around:
        yield (
            "skull_stripped",
            "there is hardly any signal around its brain, so its skull was removed. Few training images were like "
            "that; give the image with its skull if you have it, or check the mask.",
        )
    if between is not None and between < _THINNEST:
        yield (
            "thin_slices",
            f"its slices are {between:.2g} mm apart; those of the training images are 2 to 7 mm apart. Average "
            "neighbouring slices to 3 to 5 mm, or check the mask.",
        )
    elif between is None and found is not None and found.slices > _MOST_SLICES:
        yield (
            "thin_slices",
            f"it has {found.slices} slices with brain; the training images have 20 to 70. Average neighbouring slices "
            "to 3 to 5 mm, or check the mask.",
        )
    cut = found is not None and found.slices > 1 and found.top > limits.top  # a single slice is not the whole head
    if cut or (found is not None and found.at_edge > limits.at_edge):
        where = "in its highest slice" if cut else "at the edge of its slices"
        yield "head_cut", f"the brain is cut off {where}, so tumour may be missing. Give the whole volume."
    if found is not None and (found.noise > limits.noise or found.jump > limits.jump):
        what = (
            f"its noise is {100 * found.noise:.0f} % of the brain's brightness"
            if found.noise > limits.noise
            else f"the head jumps by {found.jump:.1f} pixels from slice to slice, as when a patient moves"
        )
        yield "noisy_or_moved", f"{what}, more than in the training images. Check the mask in every slice."
    yield from _resampled(found, plane, limits)


def _resampled(
    found: ImageMeasures | None, plane: tuple[float, float] | None, limits: ImageLimits
) -> Iterator[tuple[str, str]]:
    smallest, largest = _PIXEL
    advice = "Give the images as they were acquired, or check the mask."
    if plane is not None and (min(plane) < smallest or max(plane) > largest):
        yield (
            "resampled_far",
            f"its pixels measure {plane[0]:.2g} x {plane[1]:.2g} mm, so it is resampled far to the size that the "
            f"network was trained on. {advice}",
        )
    elif plane is not None and max(plane) > _STRETCHED * min(plane):
        yield "resampled_far", f"its pixels measure {plane[0]:.2g} x {plane[1]:.2g} mm, far from square. {advice}"
    elif found is not None and not limits.shortest <= found.length <= limits.longest:
        yield (
            "resampled_far",
            f"its brain is {found.length:.0f} pixels long; in the training images it is 160 to 260. "
            "Give the spacing of its pixels, or images with pixels of about 0.9 mm.",
        )


class ImageChecksd(MapTransform):
    """Raise a flag for each check that a volume fails, and find the frame of its head.

    The frame is kept as text in the metadata of the volume, under ``head_frame``; see
    :py:class:`mri_seg.quality.frame.HeadFrame`.

    Args:
        keys: keys of the volumes ``(1, H, W, D)``, in axial orientation and resampled in plane, before normalization.
        brain: key of the brain mask; it is computed if there is none.
        original: key of the volume as read, which has the spacing before resampling.
    """

    def __init__(self, keys: KeysCollection, *, brain: str = "brain", original: str = "flair") -> None:
        super().__init__(keys)
        self.brain = brain
        self.original = original

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each volume ``(1, H, W, D)``; it stays as it is."""
        d = dict(data)
        for key in self.key_iterator(d):
            volume, meta = d[key].numpy()[0], d[key].meta
            brain = d[self.brain].numpy()[0] > 0 if self.brain in d else brain_mask(volume)
            affine = d[key].affine.numpy()
            for name, message in image_flags(image_measures(volume, brain), _spacing(d.get(self.original, d[key]))):
                add_flag(meta, name, message)
            frame = head_frame(volume, brain, affine)
            meta["head_frame"] = "" if frame is None else frame.to_text()
        return d


def _spacing(volume: Any) -> Spacing:
    """Spacing of a volume ``(1, H, W, D)`` in axial orientation, as far as it is known."""
    affine = np.asarray(volume.affine, dtype=float)
    axes = io_orientation(affine)[:, 0].astype(int)  # 0: left to right, 1: front to back, 2: low to high
    by_axis = dict(zip(axes.tolist(), voxel_sizes(affine).tolist()))
    known = bool(volume.meta.get("spacing_known", True))
    between = known and bool(volume.meta.get("slice_spacing_known", True)) and volume.shape[-3:][_slice_axis(axes)] > 1
    return Spacing((by_axis[1], by_axis[0]) if known else None, by_axis[2] if between else None)


def _slice_axis(axes: np.ndarray) -> int:
    return int(np.flatnonzero(axes == 2)[0])
