"""A head in tissue fractions: the ICBM 152 average brain with a synthetic skull, scalp and face around it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

__all__ = ["ATLAS_NOTICE", "BLOCK", "TISSUES", "Head", "load_head"]

ATLAS_NOTICE = """\
ICBM 152 nonlinear symmetric average brain 2009a, as carried by nilearn.
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
Reference: Fonov et al., Unbiased nonlinear average age-appropriate brain templates from birth to adulthood, NeuroImage
47 (2009) S102.
"""

TISSUES = ("gray", "white", "fluid", "rim", "marrow", "muscle", "fat")

BLOCK = 8
_EXTRA = "pip install 'mri_seg[phantom]'"
_MAP_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# First and last voxel center in mm along x (left to right), y (posterior to anterior), z (inferior to superior).
_LOW, _HIGH = np.array([-90, -126, -116]), np.array([89, 117, 97])
_COARSE = 2  # mm; what is drawn around the brain is smooth, and distance maps are slow on a finer grid


@dataclass(frozen=True)
class Head:
    """Tissue fractions of one head on a grid of 1 mm voxels.

    Attributes:
        tissues: for each name in ``TISSUES`` the fraction ``(X, Y, Z)`` uint8, 0 to 255. What is missing to 255 is air
            or dense bone, which give no signal; "rim" is the layer of white matter that lines the lateral ventricles,
            and comes on top of the others.
        bed: ``(X, Y, Z)`` uint8: where a tumour may grow, the brain with its narrow sulci but not its ventricles.
        origin: ``(3,)`` position of voxel (0, 0, 0) in mm. Axes: left to right, posterior to anterior, inferior to
            superior.
    """

    tissues: dict[str, np.ndarray]
    bed: np.ndarray
    origin: np.ndarray

    def mix(self, brightness: Mapping[str, float]) -> np.ndarray:
        """A picture of the head, ``(X, Y, Z)`` float32, in which each tissue has its brightness."""
        picture, part = np.zeros(self.bed.shape, dtype=np.float32), np.empty(self.bed.shape, dtype=np.float32)
        for name, fraction in self.tissues.items():
            picture += np.multiply(fraction, np.float32(brightness[name] / 255), out=part)
        return picture

    @cached_property
    def occupied(self) -> np.ndarray:
        """Which blocks of ``BLOCK`` voxels hold any tissue: bool, one value a block."""
        picture = np.maximum.reduce(list(self.tissues.values()))
        picture = np.pad(picture, [(0, -n % BLOCK) for n in picture.shape]) > 0
        for axis in range(3):
            picture = np.logical_or.reduceat(picture, np.arange(0, picture.shape[axis], BLOCK), axis=axis)
        return picture


@cache
def load_head() -> Head:
    """Build the head from the tissue maps in nilearn's wheel; nothing is downloaded.

    Raises:
        ImportError: when nilearn is not installed.
        FileNotFoundError: when this nilearn does not carry the maps.
    """
    t1, gray, white = (_read_map(name) for name in ("t1", "gm", "wm"))
    brain = t1 > 0
    fluid, gray, white = _sharpen_sulci(brain, gray, white)

    coarse = (slice(None, None, _COARSE),) * 3
    depth_in_hull = _signed_depth(_close(brain[coarse], radius=10))
    bed = np.clip(ndimage.gaussian_filter((gray + white.astype(np.float32))[coarse] / 255, 2.0) * 4 - 1.5, 0, 1)
    # Only the ventricles are fluid that deep inside the brain.
    ventricles = ndimage.gaussian_filter(fluid[coarse] / 255.0 * (depth_in_hull > 24), 1.5)
    near_ventricles = np.clip(ventricles * 4, 0, 1)

    outside = {name: _refine(fraction, brain.shape) for name, fraction in _draw_outside(depth_in_hull).items()}
    for fraction in outside.values():
        fraction[brain] = 0
    # The cranial fluid between the brain and the skull, which the template's mask leaves out.
    fluid = np.maximum(fluid, outside.pop("fluid"))
    rim = (_refine(near_ventricles, brain.shape).astype(np.uint16) * white // 255).astype(np.uint8)
    return Head(
        tissues={"gray": gray, "white": white, "fluid": fluid, "rim": rim, **outside},
        bed=_refine(bed, brain.shape),
        origin=_LOW.astype(float),
    )


def _read_map(name: str) -> np.ndarray:
    """One of nilearn's maps as uint8, padded to the grid of the head."""
    path = _find_maps() / _MAP_FILE.format(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not found; the phantom needs the ICBM 152 maps of nilearn 0.8.1 or later: {_EXTRA} --upgrade"
        )
    image = nibabel.Nifti1Image.from_filename(path)
    values = np.asarray(image.dataobj)
    first = image.affine[:3, 3].round().astype(int)  # 1 mm voxels in RAS: the affine is a shift
    last = first + values.shape - 1
    # A face needs more room than the brain; the parts of the template outside the head's grid are empty.
    values = values[tuple(slice(max(0, a), s - max(0, b)) for a, b, s in zip(_LOW - first, last - _HIGH, values.shape))]
    return np.pad(values, [(max(0, a), max(0, b)) for a, b in zip(first - _LOW, _HIGH - last)]).astype(np.uint8)


def _sharpen_sulci(brain: np.ndarray, gray: np.ndarray, white: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fractions of fluid, gray and white matter, uint8, with the fluid of sulci that averaging many brains removed."""
    fraction = np.arange(256) / 255
    kept = np.clip(1.35 - 0.35 / np.sqrt(np.maximum(fraction, 1e-3)), 0, 1).astype(
        np.float32
    )  # a table over 8-bit values
    kept = kept[np.minimum(gray, 255 - white) + white]
    gray, white = (gray * kept).astype(np.uint8), (white * kept).astype(np.uint8)
    return np.where(brain, 255 - gray - white, 0).astype(np.uint8), gray, white


def _find_maps() -> Path:
    """Folder of nilearn's data files, found without importing nilearn, which takes seconds."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"The phantom takes its anatomy from nilearn, which is not installed. Install the extra: {_EXTRA}"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _draw_outside(depth_in_hull: np.ndarray) -> dict[str, np.ndarray]:
    """Fractions (0 to 1, coarse grid) of the tissues around a brain, from the depth map in mm of its hull.

    The template ends at the brain, so skull, scalp, face and neck are drawn: shells of typical thickness around the
    hull, and a face and neck of fat and muscle with globes, airways and sinuses at their usual places.
    """
    x, y, z = (np.arange(a, b + 1, _COARSE, dtype=np.float32) for a, b in zip(_LOW, _HIGH))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    height = -depth_in_hull  # mm above the brain's hull

    def ball(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        """Nearly the depth in mm inside an ellipsoid: exact for a sphere."""
        offset = [(a - c) / r for a, c, r in zip((np.abs(x) if center[0] else x, y, z), center, radii)]
        return (1 - np.sqrt(sum(o**2 for o in offset))) * min(radii)

    face = ball((0, 24, -60), (72, 74, 76))
    nose = ball((0, 96, -50), (13, 19, 24))
    neck = np.minimum(ball((0, -36, -110), (76, 74, 110)), -30 - z)
    ears = ball((77, -22, -40), (7, 14, 26))
    shape = np.maximum.reduce([12 - height, face, nose, neck, ears])
    head = ndimage.gaussian_filter((shape > 0).astype(np.float32), 2.0) > 0.5
    depth = ndimage.gaussian_filter(_signed_depth(head), 0.8)  # no stairs on the skin

    # Skull: dark tables with marrow between them, on a cushion of fluid. Only where a scalp lies right above it; the
    # base of the skull is bone with air cells and shows nothing.
    fluid = _band(height, -30, 1)
    bone = _band(height, 1, 7)
    marrow = _band(height, 2.5, 5) * 0.6
    skin = _band(depth, 0, 5)
    air = np.maximum.reduce(
        [
            _ramp(ball((0, 52, -62), (15, 34, 20))),  # nasal cavity
            _ramp(ball((32, 52, -62), (13, 16, 17))),  # maxillary sinuses
            _ramp(ball((14, 70, -14), (12, 7, 14))),  # frontal sinuses
            _ramp(ball((0, 22, -38), (13, 13, 11))),  # sphenoid sinus
            _ramp(ball((0, 10, -100), (13, 8, 30))),  # pharynx
            _ramp(ball((52, -28, -46), (13, 15, 15))),  # mastoid cells
            _ramp(ball((46, 8, -64), (7, 9, 16))),  # jaw
        ]
    )
    globe = ball((33, 62, -36), (13, 13, 13))
    orbit = _ramp(ball((29, 52, -36), (19, 26, 18))) * (height > 4)
    cord = np.where(z < -66, np.hypot(x, y + 44), 99.0)  # the spinal cord goes on where the template ends

    mixture = 0.75 * _ramp(_texture(head.shape) - 0.5, width=2)
    soft = _ramp(depth) * (1 - skin) * (1 - air) * (1 - orbit) * (height > 7) * (cord > 18)
    fat = soft * mixture + np.where(height > 1, skin * (1 - bone), 0) + orbit * (globe < -1) * 0.8
    muscle = soft * (1 - mixture) + orbit * _band(globe, -1, 1.5) * 0.8 + _ramp(7 - cord)
    canal = _band(cord, 7, 12)
    fluid = np.maximum.reduce([fluid, _ramp(globe - 1.5), canal])
    return {"fluid": fluid, "marrow": marrow * _ramp(z + 45, width=20), "muscle": muscle, "fat": fat}


def _ramp(depth: np.ndarray, width: float = _COARSE) -> np.ndarray:
    """Soft step from 0 to 1 where a depth in mm passes 0."""
    return np.clip(depth / width + 0.5, 0, 1)


def _band(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Soft-edged 1 between two depths in mm."""
    return np.minimum(_ramp(depth - low), _ramp(high - depth))


def _texture(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed coarse noise of unit variance: how fat and muscle interleave."""
    rng = np.random.default_rng(152)
    scales = [ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), s) for s in ((1, 1, 3), (3, 3, 5))]
    return sum(noise / noise.std() for noise in scales) / np.sqrt(2)


def _close(mask: np.ndarray, *, radius: float) -> np.ndarray:
    """Morphological closing of a coarse mask with a ball of ``radius`` mm."""
    grown = ndimage.distance_transform_edt(~mask, sampling=_COARSE) < radius
    return ndimage.distance_transform_edt(grown, sampling=_COARSE) >= radius


def _signed_depth(mask: np.ndarray) -> np.ndarray:
    """Depth in mm inside a coarse mask, negative outside it."""
    inside, outside = (ndimage.distance_transform_edt(m, sampling=_COARSE) for m in (mask, ~mask))
    return (inside - outside - np.where(mask, 1, -1) * _COARSE / 2).astype(np.float32)


def _refine(fraction: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A coarse fraction (0 to 1) on the 1 mm grid as uint8, linearly interpolated."""
    fraction = np.asarray(fraction, dtype=np.float32) * 255
    for axis, size in enumerate(shape):
        fraction = np.moveaxis(fraction, axis, 0)
        fine = np.empty((size, *fraction.shape[1:]), dtype=np.float32)
        fine[::2] = fraction[: (size + 1) // 2]
        fine[1::2] = fine[::2][: size // 2]
        fine[1:-1:2] = (fine[:-2:2] + fine[2::2]) / 2
        fraction = np.moveaxis(fine, 0, axis)
    return np.clip(fraction + 0.5, 0, 255).astype(np.uint8)
