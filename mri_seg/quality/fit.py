"""Fit what ``quality.json`` holds to cases with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from mri_seg.measurements.lesions import label_lesions
from mri_seg.quality.calibration import fit_calibration, near_masks, voxel_counts
from mri_seg.quality.expected_dice import fit_expected_dice, threshold_spread
from mri_seg.quality.interval import fit_volume_interval
from mri_seg.quality.lesion_checks import is_doubtful

__all__ = ["case_record", "fit_quality"]

_FALSE = 0.1  # a lesion of which less than this fraction lies in the reference is false


def case_record(probability: np.ndarray, mask: np.ndarray, label: np.ndarray, **about: Any) -> dict[str, Any]:
    """Describe a case by the few numbers that a fit needs, so that volumes need not be kept.

    Args:
        probability: the network's probability ``(H, W, D)``, axial slices along the last axis.
        mask: the predicted mask.
        label: the reference.
        about: further entries, such as ``case`` and ``group``.

    Returns:
        ready for JSON: Dice, voxels of prediction and reference, the spread, lesions with the fraction ``inside`` that
        lies in the reference, and the counts of voxels by probability: those ``near`` the masks, and ``all``.
    """
    mask, label = np.asarray(mask) > 0, np.asarray(label) > 0
    labels, count = label_lesions(mask)
    sizes, inside = (np.bincount(values, minlength=count + 1)[1:] for values in (labels.ravel(), labels[label]))
    means = ndimage.mean(probability, labels, np.arange(1, count + 1)) if count else []
    total = int(mask.sum() + label.sum())
    return {
        **about,
        "dice": float(2 * (mask & label).sum() / total) if total else 1.0,
        "pred_voxels": int(mask.sum()),
        "label_voxels": int(label.sum()),
        "spread": threshold_spread(probability),
        "lesions": [
            {"voxels": int(size), "mean_probability": float(mean), "inside": float(part / size)}
            for size, mean, part in zip(sizes, means, inside)
        ],
        "near": voxel_counts(probability, label, near_masks(label, mask)).tolist(),
        "all": voxel_counts(probability, label, np.ones_like(label)).tolist(),
    }


def fit_quality(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Fit all estimates to cases.

    Args:
        records: results of :py:func:`case_record`.

    Returns:
        ``calibration``, ``expected_dice``, ``volume`` and ``lesion``, ready for JSON.

    Raises:
        ValueError: when there are too few cases.
    """
    found = [record for record in records if record["pred_voxels"]]
    columns = {name: [record[name] for record in found] for name in ("pred_voxels", "label_voxels", "spread", "dice")}
    groups = [str(record.get("group") or "") for record in found]
    spreads = columns["spread"]
    near, everything = ([record[name] for record in found] for name in ("near", "all"))
    return {
        "calibration": fit_calibration(near, everything, spreads).as_json(),
        "expected_dice": fit_expected_dice(spreads, columns["dice"], groups)._asdict(),
        "volume": fit_volume_interval(columns["pred_voxels"], columns["label_voxels"], spreads, groups)._asdict(),
        "lesion": _fit_lesions([record["lesions"] for record in found]),
    }


def _fit_lesions(cases: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float | None]:
    """How many lesions were false, of those that are in doubt and of the others."""
    false: dict[bool, list[bool]] = {True: [], False: []}
    for lesions in cases:
        largest = max((lesion["voxels"] for lesion in lesions), default=0)
        for lesion in lesions:
            false[is_doubtful(lesion["voxels"], largest)].append(lesion["inside"] < _FALSE)
    return {
        f"false_{name}": float(np.mean(false[doubtful])) if false[doubtful] else None
        for name, doubtful in (("in_doubt", True), ("others", False))
    }
