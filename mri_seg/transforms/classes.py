"""Several classes of a prediction: their union, which all outputs know, and the class of each of its voxels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from mri_seg.utils.label_classes import LabelClasses

__all__ = ["AssignClassesd", "UniteClassesd", "class_numbers"]


def class_numbers(label: np.ndarray, classes: LabelClasses) -> np.ndarray:
    """Number of the class of each voxel, from 1, as uint8: of nested regions the smallest; 0 for no class.

    Args:
        label: values, whole numbers.
        classes: the classes.
    """
    numbers = np.zeros(label.shape, np.uint8)
    for number, values in enumerate(classes.members, start=1):
        numbers[np.isin(label, values)] = number
    return numbers


class UniteClassesd(MapTransform):
    """Turn probabilities of several classes into that of tumour: their sum if they exclude each other, or the largest.

    Those of the classes stay under the key ``<key>_class_probability`` for :py:class:`AssignClassesd`. Nothing changes
    if there is tumour alone.

    Args:
        keys: keys of probabilities ``(classes, H, W, D)``.
        classes: the classes.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(self, keys: KeysCollection, classes: LabelClasses, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Leave the probability of tumour ``(1, H, W, D)``, with its metadata."""
        d = dict(data)
        if self.classes.several:
            for key in self.key_iterator(d):
                of_classes = d[key]
                d[f"{key}_class_probability"] = of_classes
                if self.classes.exclusive:
                    d[key] = of_classes.sum(dim=0, keepdim=True).clamp(max=1)
                else:
                    d[key] = of_classes.amax(dim=0, keepdim=True)
        return d


class AssignClassesd(MapTransform):
    """Give each voxel of a binary mask its class: a map of label values under the key ``<key>_classes``.

    If classes exclude each other, it is the most probable one. Of nested regions, it is the smallest whose probability
    reaches the threshold, and the most probable one for voxels that no region reaches, such as filled holes. So the
    union of all classes is the mask, and classes outside it, such as small lesions that were removed, are gone. Nothing
    changes if there is tumour alone.

    Args:
        keys: keys of masks ``(1, H, W, D)``, whose probabilities :py:class:`UniteClassesd` kept.
        classes: the classes.
        threshold: probability from which a voxel belongs to a region.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: LabelClasses,
        *,
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = classes
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the map of label values ``(1, H, W, D)``."""
        d = dict(data)
        if self.classes.several:
            for key in self.key_iterator(d):
                of_classes = torch.as_tensor(d.pop(f"{key}_class_probability"))
                likeliest = of_classes.argmax(dim=0, keepdim=True) + 1
                if not self.classes.exclusive:
                    places = torch.arange(1, len(of_classes) + 1, device=of_classes.device)[:, None, None, None]
                    smallest = ((of_classes >= self.threshold) * places).amax(dim=0, keepdim=True)
                    likeliest = torch.where(smallest > 0, smallest, likeliest)
                numbers = torch.where(torch.as_tensor(d[key]) > 0, likeliest, 0)
                values = torch.tensor([0, *self.classes.written], device=of_classes.device)[numbers]
                d[f"{key}_classes"] = convert_to_dst_type(values, d[key], dtype=torch.int32)[0]
        return d
