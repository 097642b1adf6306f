"""Calibrate probabilities by a temperature, fitted on counts of voxels, and measure the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, optimize, special

__all__ = [
    "NEAR",
    "UNSURE",
    "Calibration",
    "expected_calibration_error",
    "fit_calibration",
    "near_masks",
    "reliability",
    "voxel_counts",
]

NEAR = 11
"""Pixels in plane around reference or prediction within which calibration is measured."""

UNSURE = (0.05, 0.95)
"""Probabilities between which a voxel is unsure."""

_LIMIT = 6.0  # probabilities of 0.0025 and of less count together, and so do those near 1
_LEVELS = 121
_LOGITS = np.linspace(-_LIMIT, _LIMIT, _LEVELS)
_BINS = 15  # of probability, all of the same width, in the expected calibration error


class Calibration(NamedTuple):
    """Temperature scaling: logits are divided by a temperature (Guo et al. 2017, arxiv.org/abs/1706.04599).

    0.5 stays 0.5 and voxels keep their order, so a mask at threshold 0.5 is the same before and after. An offset, as in
    Platt scaling, does not carry over from one institution to another: it says how large its readers draw a tumour.

    Attributes:
        temperature: more than 1 makes probabilities less extreme.
    """

    temperature: float

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated probability, float32, of the same shape."""
        with np.errstate(divide="ignore"):
            logits = special.logit(np.asarray(probability, dtype=np.float32))
        return special.expit(logits / np.float32(self.temperature))

    def as_json(self) -> dict[str, Any]:
        """Its attributes by name."""
        return self._asdict()


def near_masks(label: np.ndarray, mask: np.ndarray, pixels: int = NEAR) -> np.ndarray:
    """Voxels within so many pixels, in plane, of one of two masks.

    Args:
        label: reference ``(H, W, D)``, slices along the last axis.
        mask: prediction of the same shape.
        pixels: Euclidean distance.

    Returns:
        bool of the same shape.
    """
    either = (np.asarray(label) > 0) | (np.asarray(mask) > 0)
    near = np.zeros_like(either)
    for n in range(either.shape[-1]):
        if either[..., n].any():
            near[..., n] = ndimage.distance_transform_edt(~either[..., n]) <= pixels
    return near


def voxel_counts(probability: np.ndarray, label: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Count voxels by probability and reference.

    Args:
        probability: the network's probability.
        label: the reference, of the same shape.
        where: the voxels that count.

    Returns:
        whole numbers ``(2, levels)``: voxels outside and inside the reference at logits from -6 to 6.
    """
    with np.errstate(divide="ignore"):
        logits = special.logit(np.asarray(probability)[where].astype(np.float64)).clip(-_LIMIT, _LIMIT)
    levels = np.rint((logits + _LIMIT) / (2 * _LIMIT) * (_LEVELS - 1)).astype(int)
    inside = np.asarray(label)[where] > 0
    return np.stack([np.bincount(levels[inside == value], minlength=_LEVELS) for value in (False, True)])


def fit_calibration(counts: Sequence[np.ndarray]) -> Calibration:
    """Fit the temperature by maximum likelihood, every case with the same weight.

    Args:
        counts: results of :py:func:`voxel_counts`.

    Raises:
        ValueError: when there are no voxels.
    """
    shares = np.zeros((2, _LEVELS))
    for one in counts:
        shares += np.asarray(one) / max(np.sum(one), 1)
    if not shares.any():
        raise ValueError("calibration needs voxels near a tumour. Give cases with tumour.")

    def loss(logarithm: float) -> float:
        logits = _LOGITS * np.exp(-logarithm)
        return float((shares[0] * np.logaddexp(0, logits) + shares[1] * np.logaddexp(0, -logits)).sum())

    found = optimize.minimize_scalar(loss, bounds=(-2.3, 2.3), method="bounded")
    return Calibration(float(np.exp(found.x)))


def reliability(counts: np.ndarray, calibration: Calibration | None = None, *, unsure: bool = False) -> np.ndarray:
    """Mean probability and observed fraction of tumour in bins of probability.

    Args:
        counts: result of :py:func:`voxel_counts`, or a sum of several.
        calibration: None for the network's probability.
        unsure: whether only voxels count whose network's probability is within :py:data:`UNSURE`.

    Returns:
        ``(bins, 3)``: voxels, mean probability and fraction of tumour; empty bins are left out.
    """
    before = special.expit(_LOGITS)
    values = before if calibration is None else calibration(before).astype(float)
    counts = np.asarray(counts, dtype=float)
    if unsure:
        counts = counts * ((before >= UNSURE[0]) & (before <= UNSURE[1]))
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    voxels = np.bincount(bins, counts.sum(0), _BINS)
    means, tumor = (np.bincount(bins, weights, _BINS) for weights in (counts.sum(0) * values, counts[1]))
    filled = voxels > 0
    return np.stack([voxels[filled], means[filled] / voxels[filled], tumor[filled] / voxels[filled]], axis=1)


def expected_calibration_error(bins: np.ndarray) -> float:
    """Mean difference between probability and fraction of tumour, over voxels; NaN without voxels.

    Args:
        bins: result of :py:func:`reliability`.
    """
    voxels, probability, fraction = bins.T
    return float((voxels * np.abs(probability - fraction)).sum() / voxels.sum()) if len(bins) else float("nan")
