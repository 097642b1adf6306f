"""Precision and recall over thresholds, and calibration, from counts of voxels by probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mri_seg.report.archive import ArchivedCase
from mri_seg.utils.threshold_counts import level_counts, positives

__all__ = ["calibration", "precision_recall", "probability_counts"]

_LEVELS = 256


def probability_counts(case: ArchivedCase) -> np.ndarray:
    """Count voxels by probability. Counts of several cases can be added: ``sum(map(probability_counts, cases))``.

    The probability is the network's, before small lesions are removed and holes are filled.

    Args:
        case: case with reference and probability ``(H, W, D)``; if it has no probability, nothing is counted.

    Returns:
        counts ``(2, 256)``, int64: number of voxels at each probability level from 0 to 255; row 0 counts the voxels
        that are healthy in the reference, row 1 those that are tumour.
    """
    if not case.probability.size:  # a mask alone
        return np.zeros((2, _LEVELS), dtype=np.int64)
    return level_counts(torch.as_tensor(case.probability), torch.as_tensor(case.label), _LEVELS).numpy()


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute precision and recall at every threshold, over all voxels together.

    A voxel counts as tumour if its probability is at or above the threshold. Thresholds lie halfway between the levels
    of probability (0.5 is one of them), so that rounding the probability to a level does not change the result.

    Args:
        counts: counts ``(2, 256)`` from :py:func:`probability_counts`, of one case or the sum of several.

    Returns:
        thresholds from 0 to 1, precision and recall, each ``(256,)``. Precision is 1 where nothing counts as tumour;
        recall is NaN if the reference has no tumour.

    Raises:
        ValueError: when counts are not ``(2, 256)``.
    """
    counts = _checked(counts)
    tumor = counts[1].sum()
    thresholds = np.maximum(np.arange(_LEVELS) - 0.5, 0) / (_LEVELS - 1)
    true, false = (each.numpy() for each in positives(torch.as_tensor(counts)))
    precision = np.divide(true, true + false, out=np.ones(_LEVELS), where=true + false > 0)
    recall = np.divide(true, tumor, out=np.full(_LEVELS, np.nan), where=tumor > 0)
    return thresholds, precision, recall


def calibration(counts: np.ndarray, bins: int = 10, *, floor: float = 0.05) -> dict[str, Any]:
    """Compare the probability with the observed fraction of tumour, in bins of equal width.

    The expected calibration error is the difference between the mean probability of a bin and the fraction of tumour
    in it, averaged over voxels (Guo, Pleiss, Sun and Weinberger, ICML 2017). Nearly all voxels of a volume are air or
    clearly healthy, with a probability near 0. They make the error small, whatever the other voxels are like. So the
    error is reported twice: over all voxels, and only over voxels with a probability of at least ``floor``. (MONAI's
    ``CalibrationErrorMetric`` takes volumes; counts add up over cases that do not fit into memory together.)

    Args:
        counts: counts ``(2, 256)`` from :py:func:`probability_counts`, of one case or the sum of several.
        bins: number of bins between 0 and 1.
        floor: lowest probability that counts in the second error.

    Returns:
        ``bins``: for each bin its ``lower`` and ``upper`` end (the upper end belongs to the next bin, 1 to the last
        bin), the number of ``voxels``, their mean ``probability`` and the ``observed`` fraction of tumour (both None
        without voxels); ``expected_error`` over all voxels and ``expected_error_above_floor`` (None without voxels);
        ``floor``.

    Raises:
        ValueError: when counts are not ``(2, 256)``, or ``bins`` is below 1.
    """
    counts = _checked(counts)
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}.")
    levels = np.arange(_LEVELS)
    places = np.minimum(levels * bins // (_LEVELS - 1), bins - 1)
    above = np.where(levels / (_LEVELS - 1) >= floor, counts, 0)
    rows = []
    for n, (voxels, probability, observed) in enumerate(zip(*_binned(counts, places, bins))):
        known = voxels > 0
        rows.append(
            {
                "lower": n / bins,
                "upper": (n + 1) / bins,
                "voxels": int(voxels),
                "probability": float(probability) if known else None,
                "observed": float(observed) if known else None,
            }
        )
    return {
        "bins": rows,
        "expected_error": _expected_error(*_binned(counts, places, bins)),
        "expected_error_above_floor": _expected_error(*_binned(above, places, bins)),
        "floor": floor,
    }


def _checked(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.shape != (2, _LEVELS):
        raise ValueError(
            f"counts must have shape (2, {_LEVELS}): healthy and tumour voxels by probability; got {counts.shape}. "
            "Make them with probability_counts."
        )
    return counts


def _binned(counts: np.ndarray, places: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of voxels, mean probability and fraction of tumour in each bin; all 0 for a bin without voxels."""
    both = counts.sum(axis=0)
    probability = np.arange(_LEVELS) / (_LEVELS - 1)
    voxels, sums, tumor = (
        np.bincount(places, weights=weights, minlength=bins) for weights in (both, both * probability, counts[1])
    )
    return voxels, sums / np.maximum(voxels, 1), tumor / np.maximum(voxels, 1)


def _expected_error(voxels: np.ndarray, probability: np.ndarray, observed: np.ndarray) -> float | None:
    return float((voxels * np.abs(probability - observed)).sum() / voxels.sum()) if voxels.sum() else None
