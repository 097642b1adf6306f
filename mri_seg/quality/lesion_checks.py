"""Check the lesions of a mask: whether they are cut off, lie where training has none, or are doubtful."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from mri_seg.measurements.lesions import PLAIN_SPACING, label_lesions
from mri_seg.quality.frame import HeadFrame
from mri_seg.quality.image_checks import IMAGE_FLAGS
from mri_seg.quality.place import PlaceMap, shipped_place_map
from mri_seg.utils.case_flags import add_flag

__all__ = [
    "BESIDE",
    "CHECKS",
    "LESION_FLAGS",
    "RARE",
    "LesionChecksd",
    "LesionMeasures",
    "doubt",
    "is_doubtful",
    "left_out_flag",
    "lesion_flags",
    "lesion_measures",
    "outside_brain_flag",
    "why_look",
]

LESION_FLAGS = (
    "head_cut",
    "lesion_where_training_has_none",
    "lesion_doubtful",
    "lesion_left_out",
    "lesion_outside_brain",
    "nothing_found",
)
"""Names of the flags of :py:class:`LesionChecksd`."""

CHECKS = tuple(dict.fromkeys((*IMAGE_FLAGS, *LESION_FLAGS)))
"""Names of the flags of all checks of the image and the lesions."""

RARE = 0.02
"""Fraction of the training patients with tumour about a place below which the place counts as one without."""

BESIDE = 0.05
"""Fraction of the volume of the largest lesion below which another one is in doubt: that below which inference leaves
it out by default (``min_lesion_fraction``), chosen by ``benchmarks/postprocessing.py``."""

_EDGE = 10  # voxels of a lesion at an end of the volume
_PLAIN_VOXEL = math.prod(PLAIN_SPACING)  # mm3, if the size is not known


class LesionMeasures(NamedTuple):
    """What the checks know of a lesion.

    Attributes:
        volume: in mm3; voxels of unknown size count as 0.94 x 0.94 x 5 mm.
        probability: mean probability of its voxels.
        rare: fraction of its voxels that lie where few training patients have tumour; NaN without a head-aligned frame.
        at_edge: voxels at an end or side of the volume.
    """

    volume: float
    probability: float
    rare: float
    at_edge: int


def lesion_measures(
    mask: np.ndarray,
    probability: np.ndarray,
    affine: np.ndarray,
    frame: HeadFrame | None,
    *,
    voxel: float = _PLAIN_VOXEL,
    places: PlaceMap | None = None,
) -> list[LesionMeasures]:
    """Measure the lesions of a mask, the largest first.

    Args:
        mask: binary mask ``(H, W, D)``.
        probability: probability of tumour of the same shape.
        affine: matrix ``(4, 4)`` from voxels to RAS coordinates.
        frame: frame of the head, in the same space.
        voxel: volume of a voxel in mm3.
        places: where tumours of training patients lie; by default the shipped map.
    """
    labels, _ = label_lesions(mask)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        voxels = np.argwhere(inside) + [side.start for side in box]
        rare = np.nan
        if frame is not None:
            frequency = (places or shipped_place_map()).frequency(frame.coordinates(voxels, affine))
            rare = float((frequency < RARE).mean())
        ends = ((voxels == 0) | (voxels == np.array(mask.shape) - 1)) & (np.array(mask.shape) > 1)
        mean = float(probability[box][inside].mean())
        found.append(LesionMeasures(len(voxels) * voxel, mean, rare, int(ends.any(1).sum())))
    return sorted(found, key=lambda lesion: -lesion.volume)


def lesion_flags(lesions: list[LesionMeasures]) -> Iterator[tuple[str, str]]:
    """Names and messages of the flags that the lesions of a case deserve; the largest lesion is lesion 1.

    Args:
        lesions: measures of all lesions, the largest first.
    """
    if not lesions:
        yield (
            "nothing_found",
            "no tumour was found. The model also finds nothing in some patients with a tumour, so look at the image.",
        )
        return
    if cut := _numbers(map(_is_cut, lesions)):
        yield (
            "head_cut",
            f"{cut} at the end of the volume, so a part of it may be missing. Give the whole volume, or take its "
            "measurements as lower limits.",
        )
    if rare := _numbers(map(_is_rare, lesions)):
        yield (
            "lesion_where_training_has_none",
            f"{rare} where almost no training patient has tumour, such as the cerebellum or the brain stem. Check "
            "whether that is tumour.",
        )
    if doubtful := _numbers(is_doubtful(lesion.volume, lesions[0].volume) for lesion in lesions):
        yield (
            "lesion_doubtful",
            f"{doubtful} in doubt, with less than {100 * BESIDE:.0f} % of the volume of the largest lesion: most such "
            "lesions are false. Check whether that is tumour.",
        )


def left_out_flag(fractions: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Name and message of the flag for lesions that are not in the mask, because they are small or in one slice.

    Args:
        fractions: of the volume of the largest lesion, the largest first; without any there is no flag.
    """
    if fractions:
        subject, them = ("lesion is", "it") if len(fractions) == 1 else ("lesions are", "them")
        parts = _listed(f"{100 * one:.1f}" for one in fractions)
        yield (
            "lesion_left_out",
            f"{len(fractions)} small {subject} left out, with {parts} % of the volume of the largest: most lesions "
            "that are under a twentieth of it, or in one slice alone, are false. --min_lesion_fraction 0 "
            f"--min_lesion_slices 1 keeps {them}.",
        )


def outside_brain_flag(volumes: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Name and message of the flag for lesions that are not in the mask, because they lie outside the brain.

    Args:
        volumes: in mm3, the largest first; without any there is no flag.
    """
    if volumes:
        lies, left, them = ("lesion lies", "is", "it") if len(volumes) == 1 else ("lesions lie", "are", "them")
        parts = _listed(f"{one / 1000:.1f}" for one in volumes)
        yield (
            "lesion_outside_brain",
            f"{len(volumes)} {lies} outside the brain and {left} left out, with {parts} mL: bright fat of the orbit, "
            f"the face or the scalp can look like tumour. --min_brain_fraction 0 keeps {them}.",
        )


def why_look(lesions: list[LesionMeasures]) -> list[str]:
    """Why each lesion is worth a look; empty for those that are not.

    Args:
        lesions: measures of all lesions, the largest first.
    """
    found = []
    for lesion in lesions:
        reasons = {
            "it ends with the volume": _is_cut(lesion),
            "almost no training patient has tumour there": _is_rare(lesion),
            doubt(lesion.volume / lesions[0].volume): is_doubtful(lesion.volume, lesions[0].volume),
        }
        found.append("; ".join(reason for reason, holds in reasons.items() if holds))
    return found


def doubt(part: float) -> str:
    """Why a lesion of a part of the volume of the largest is in doubt."""
    return f"it has {100 * part:.1f} % of the volume of the largest lesion"


def _is_cut(lesion: LesionMeasures) -> bool:
    return lesion.at_edge >= _EDGE


def _is_rare(lesion: LesionMeasures) -> bool:
    return lesion.rare > 0.5


def is_doubtful(volume: float, largest: float) -> bool:
    """Whether a lesion is small beside the largest of its case; volumes in the same unit."""
    return volume < BESIDE * largest


def _numbers(chosen: Any) -> str:
    """Subject and verb of a sentence on the chosen lesions, such as "lesion 2 is"; empty if there is none."""
    numbers = [str(number) for number, one in enumerate(chosen, start=1) if one]
    if len(numbers) < 2:
        return f"lesion {numbers[0]} is" if numbers else ""
    return f"lesions {_listed(numbers)} are"


def _listed(words: Iterable[str]) -> str:
    """Words with commas, and "and" before the last."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


class LesionChecksd(MapTransform):
    """Raise a flag for each check that the lesions of a mask fail, and for lesions that were left out.

    The flags are kept in the metadata of the mask, and so are the frame of the head, under ``head_frame``, and why each
    lesion is worth a look, under ``looks``: a JSON list of text, the largest lesion first.

    Args:
        keys: keys of the binary masks ``(1, H, W, D)``, in the grid of the input.
        probability: key of the probability.
        image: key of the volume that :py:class:`mri_seg.quality.image_checks.ImageChecksd` has checked.
    """

    def __init__(self, keys: KeysCollection, *, probability: str = "probability", image: str = "image") -> None:
        super().__init__(keys)
        self.probability = probability
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each mask; it stays as it is."""
        d = dict(data)
        for key in self.key_iterator(d):
            mask = d[key]
            text = d[self.image].meta.get("head_frame", "") if self.image in d else ""
            found = lesion_measures(
                mask.cpu().numpy()[0] > 0,
                d[self.probability].cpu().numpy()[0],
                np.asarray(mask.affine, dtype=float),
                HeadFrame.from_text(text),
                voxel=_voxel_volume(mask),
            )
            mask.meta["head_frame"] = text  # now, since cpu() replaces the metadata
            mask.meta["looks"] = json.dumps(why_look(found))
            left_out = json.loads(mask.meta.get("left_out") or "[]")
            outside = json.loads(mask.meta.get("outside_brain") or "[]")
            for name, message in (*lesion_flags(found), *left_out_flag(left_out), *outside_brain_flag(outside)):
                add_flag(mask.meta, name, message)
        return d


def _voxel_volume(mask: MetaTensor) -> float:
    known = mask.meta.get("spacing_known", True) and mask.meta.get("slice_spacing_known", True)
    return abs(float(np.linalg.det(np.asarray(mask.affine)[:3, :3]))) if known else _PLAIN_VOXEL
