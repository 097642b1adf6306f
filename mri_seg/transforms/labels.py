"""Bring the labels of cases to the grid of their image, and make them binary or classes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Orientation, ResampleToMatch
from monai.utils import ImageMetaKey, MetaKeys, convert_to_dst_type, convert_to_numpy, ensure_tuple
from nibabel.affines import apply_affine

from mri_seg.transforms.classes import class_numbers
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.label_classes import LabelClasses
from mri_seg.utils.meta_tensors import as_meta_tensor

__all__ = ["BinaryLabeld", "LabelToImageGridd", "same_grid"]

logger = logging.getLogger(__name__)

_SAME_GRID = 0.1  # tolerance in voxels of the image for corners of the same grid
_MIN_OVERLAP = 0.5  # fraction of the smaller field of view that must lie in the other
_MAX_FRACTION_OUTSIDE = 0.01  # of the labeled voxels
_SAMPLES = 17  # number of points per axis with which the overlap is estimated
_VALUES_NAMED = 8  # maximum number of values listed in a message


class LabelToImageGridd(MapTransform):
    """Bring a label to the grid of its image, so that both can be compared voxel by voxel.

    If the label is in the image's grid (corners within a tenth of a voxel), it stays as it is. If the grids differ only
    in flips and the order of axes, the label is reoriented without resampling. If the grids differ but cover the same
    space, the label is resampled by nearest neighbor, and the log says so; voxels outside the label's field of view
    become background. If image or label has no geometry of its own (TIFF, PNG and JPEG; NIfTI with both codes 0; an
    identity matrix) and both have the same shape, voxels are matched one to one. The case then gets the flag
    ``label_without_geometry``, unless both were read in the same way, such as two folders of slices.

    Args:
        keys: keys of the labels ``(1, H, W, D)``, read by :py:class:`mri_seg.io.load.LoadVolumed`.
        key_dst: key of the image ``(1, H, W, D)``, before any other transform.
        threshold: a voxel counts as labelled if its value is at least this.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        key_dst: str = "image",
        *,
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.key_dst = key_dst
        self.threshold = threshold
        self._orient = Orientation(axcodes="RAS", labels=None)
        self._resample = ResampleToMatch(mode="nearest", padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring each label to the image's grid and give it the image's affine.

        Raises:
            ValueError: when a label without geometry has another shape than the image, when label and image do not
                cover the same space, or when more than 1 % of the labelled voxels lie outside the image.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            image, label = d[self.key_dst], d[key]
            moved = self._moved(image, label)
            meta = {k: v for k, v in label.meta.items() if k != MetaKeys.AFFINE}
            # The label now has the grid of the image, so the image says whether the spacing is known.
            meta |= {k: image.meta[k] for k in ("spacing_known", "slice_spacing_known") if k in image.meta}
            d[key] = MetaTensor(moved.as_tensor(), affine=image.affine, meta=meta)
        return d

    def _moved(self, image: MetaTensor, label: MetaTensor) -> MetaTensor:
        # From voxels of the label to voxels of the image, in double precision.
        to_image = np.linalg.inv(_affine(image)) @ _affine(label)
        if same_grid(to_image, label.shape[1:], image.shape[1:]):
            return label
        if _has_geometry(label) and not _is_identity(label):
            # In voxel coordinates of the image, whose axes are its rows, columns and slices.
            oriented = as_meta_tensor(self._orient(MetaTensor(label.as_tensor(), affine=to_image)))
            if same_grid(_affine(oriented), oriented.shape[1:], image.shape[1:]):
                return oriented
            if _has_geometry(image):
                return self._resampled(image, label, to_image)
        if label.shape != image.shape:
            raise ValueError(
                _mismatch(image, label, "Their shapes differ, and at least one does not say where in space it lies")
            )
        if not _read_alike(image, label):
            add_flag(
                image.meta,
                "label_without_geometry",
                f"the image or its label {_file(label)} does not say where in space it lies, so their voxels are "
                "matched one to one. Check that the label lies on the image.",
            )
        return label

    def _resampled(self, image: MetaTensor, label: MetaTensor, to_image: np.ndarray) -> MetaTensor:
        image_shape, label_shape = image.shape[1:], label.shape[1:]
        overlap = max(
            _fraction_inside(apply_affine(to_image, _samples(label_shape)), image_shape),
            _fraction_inside(apply_affine(np.linalg.inv(to_image), _samples(image_shape)), label_shape),
        )
        if overlap < _MIN_OVERLAP:
            raise ValueError(
                _mismatch(image, label, f"Only {100 * overlap:.0f} % of the smaller of the two overlaps the other")
            )
        labeled = np.argwhere((label.as_tensor()[0] >= self.threshold).numpy())
        outside = 1 - _fraction_inside(apply_affine(to_image, labeled), image_shape) if len(labeled) else 0.0
        if outside > _MAX_FRACTION_OUTSIDE:
            raise ValueError(
                _mismatch(image, label, f"{100 * outside:.1f} % of the labelled voxels lie outside the image")
            )
        resampled = as_meta_tensor(self._resample(MetaTensor(label.as_tensor(), affine=label.affine), img_dst=image))
        logger.info(
            "%s: this label has another grid (%s) than its image (%s). It was resampled to the grid of the image by "
            "nearest neighbor.",
            _file(label),
            _grid(label),
            _grid(image),
        )
        if len(labeled) and not (resampled >= self.threshold).any():
            add_flag(
                image.meta,
                "label_lost",
                f"its label {_file(label)} is in a finer grid and is empty after resampling to the image's voxels. "
                "Resample the label yourself, or leave the case out.",
            )
        return resampled


class BinaryLabeld(MapTransform):
    """Make labels binary: every value of at least ``threshold`` is tumour, or every value of a list.

    If a label holds several such values, such as 1, 2 and 4 for parts of a tumour, the log lists them with their
    numbers of voxels, once for all labels with the same values.

    With several classes, tumour is what belongs to any of them, and the label itself stays under the key
    ``<key>_classes``. The log lists values that belong to none.

    Args:
        keys: keys of the labels.
        threshold: lowest value that counts as tumour, if ``values`` is None.
        values: values that count as tumour, rounded to whole numbers; one number, or several.
        classes: the classes, if they are told apart; ``values`` is then not used.
        numbered: whether the label becomes the number of the class, from 1, in place of 0 and 1; for training.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float = 0.5,
        *,
        values: Sequence[int] | int | None = None,
        classes: LabelClasses | None = None,
        numbered: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold
        self.classes = classes if classes is not None and classes.several else None
        self.numbered = numbered
        if self.classes is not None:
            values = None
        self.values = None if values is None else torch.tensor([int(value) for value in ensure_tuple(values)])
        self._logged: set[tuple[float, ...]] = set()
        self._lock = threading.Lock()  # CacheDataset prepares cases in threads

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make each label 0 and 1; its data type stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            if self.classes is not None:
                self._divide(d, key, self.classes)
                continue
            tumor = self._tumor(d[key])
            self._log_values(d[key], tumor)
            d[key] = tumor.to(d[key].dtype)
        return d

    def _divide(self, data: dict[Hashable, Any], key: Hashable, classes: LabelClasses) -> None:
        """Tell the classes of a label apart."""
        label = data[key]
        values = label.round().to(torch.int32)
        numbers = torch.from_numpy(class_numbers(convert_to_numpy(values), classes)).to(label.device)
        self._log_other_values(label, values, torch.as_tensor(numbers == 0))
        kept = numbers if self.numbered else numbers > 0
        data[key] = convert_to_dst_type(kept, label)[0]
        if not self.numbered:
            data[f"{key}_classes"] = values

    def _log_other_values(self, label: torch.Tensor, values: torch.Tensor, outside: torch.Tensor) -> None:
        others = torch.as_tensor(values)[outside].unique()
        kind = tuple(others[others != 0].tolist())
        with self._lock:
            if not kind or kind in self._logged:
                return
            self._logged.add(kind)
        logger.warning(
            "%s: the values %s of this label are in no class of --label_values, so they are background. Further labels "
            "with these values are not listed.",
            _file(label),
            ", ".join(map(str, kind[:_VALUES_NAMED])) + (" ..." if len(kind) > _VALUES_NAMED else ""),
        )

    def _tumor(self, label: torch.Tensor) -> torch.Tensor:
        if self.values is None:
            return label >= self.threshold
        return torch.isin(label.round().to(torch.int64), self.values.to(label.device))

    def _log_values(self, label: torch.Tensor, tumor: torch.Tensor) -> None:
        marked = torch.as_tensor(label)[torch.as_tensor(tumor)]
        if not len(marked) or marked.min() == marked.max():
            return
        values, voxels = (found.tolist() for found in marked.unique(return_counts=True))
        # The gray levels of pictures differ from label to label, so all labels with many values share one line.
        kind = tuple(values) if len(values) <= _VALUES_NAMED else ()
        with self._lock:
            if kind in self._logged:
                return
            self._logged.add(kind)
        listed = ", ".join(f"{value:g} ({count} voxels)" for value, count in zip(values[:_VALUES_NAMED], voxels))
        more = f" and {len(values) - _VALUES_NAMED} more" if len(values) > _VALUES_NAMED else ""
        logger.info(
            "%s: this label holds %d values, and all of them count as tumour: %s%s. Further labels with %s are not "
            "listed."
            if self.values is None
            else "%s: %d values of this label count as tumour together: %s%s. Further labels with %s are not listed.",
            _file(label),
            len(values),
            listed,
            more,
            "these values" if kind else "that many",
        )


def _affine(volume: MetaTensor) -> np.ndarray:
    return np.asarray(volume.affine, dtype=np.float64)


def same_grid(affine: np.ndarray, shape: Sequence[int], other_shape: Sequence[int]) -> bool:
    """Whether the corners of two grids coincide, within a tenth of a voxel.

    Args:
        affine: maps voxels of the first to voxels of the second.
        shape: voxels of the first along each axis.
        other_shape: those of the second.
    """
    corners = np.array(list(product(*((-0.5, size - 0.5) for size in shape))))
    return tuple(shape) == tuple(other_shape) and bool(
        np.abs(apply_affine(affine, corners) - corners).max() <= _SAME_GRID
    )


def _has_geometry(volume: MetaTensor) -> bool:
    """Whether a volume's file says where in space its voxels lie; slices and NIfTI with both codes 0 do not."""
    meta = volume.meta
    codes = [int(meta[key]) for key in ("qform_code", "sform_code") if key in meta]
    return (any(codes) or not codes) and all(
        meta.get(key, True) for key in ("has_geometry", "spacing_known", "slice_spacing_known")
    )


def _is_identity(volume: MetaTensor) -> bool:
    """Whether an affine is the identity, which programs write if they know no geometry; ITK's has two axes flipped."""
    return any(np.allclose(_affine(volume), np.diag([sign, sign, 1, 1])) for sign in (1, -1))


def _read_alike(image: MetaTensor, label: MetaTensor) -> bool:
    """Whether neither file says where it lies and both were read with the same order of axes, as slices are."""
    if _has_geometry(image) or _has_geometry(label):
        return False
    axes, sizes = zip(
        *((_affine(volume)[:3, :3], affine_to_spacing(volume.affine).numpy()) for volume in (image, label))
    )
    both_known = all(volume.meta.get("spacing_known", True) for volume in (image, label))
    return np.allclose(axes[0] / sizes[0], axes[1] / sizes[1]) and (not both_known or np.allclose(*sizes))


def _samples(shape: Sequence[int]) -> np.ndarray:
    """Points spread evenly over a grid, as voxels ``(points, 3)``."""
    axes = (np.linspace(0, size - 1, min(size, _SAMPLES)) for size in shape)
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _fraction_inside(points: np.ndarray, shape: Sequence[int]) -> float:
    """Fraction of points, as voxels ``(points, 3)``, that lie in a grid."""
    edge = 0.5 + _SAME_GRID
    return float(((points >= -edge) & (points <= np.array(shape) - 1 + edge)).all(axis=1).mean())


def _mismatch(image: MetaTensor, label: MetaTensor, why: str) -> str:
    """Message that says why a label does not fit its image."""
    affines = [_affine(volume)[:3].round(3).tolist() for volume in (label, image)]
    return (
        f"{_file(label)}: this label does not fit its image {_file(image)}. {why}. The label has {_grid(label)} and the"
        f" affine {affines[0]}, the image {_grid(image)} and the affine {affines[1]}. Save the label again in the grid"
        " of its image."
    )


def _grid(volume: MetaTensor) -> str:
    sizes = " x ".join(f"{size:.3g}" for size in affine_to_spacing(volume.affine).tolist())
    return f"{' x '.join(map(str, volume.shape[1:]))} voxels of {sizes} mm"


def _file(volume: torch.Tensor) -> str:
    """Name of the volume's file, or of the first file if there are several."""
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    return str(meta.get("files") or meta.get(ImageMetaKey.FILENAME_OR_OBJ) or "label").partition("\n")[0]
