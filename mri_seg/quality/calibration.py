"""Calibrate probabilities by a temperature that grows with a case's spread, and measure the calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, optimize, special

from mri_seg.quality.expected_dice import threshold_spread

__all__ = [
    "LOGITS",
    "NEAR",
    "UNSURE",
    "Calibration",
    "expected_calibration_error",
    "fit_calibration",
    "near_masks",
    "reliability",
    "unsure_counts",
    "voxel_counts",
]

NEAR = 11
"""Pixels in plane around reference or prediction within which calibration is measured."""

UNSURE = (0.05, 0.95)
"""Probabilities between which a voxel is unsure."""

LOGITS = np.linspace(-12, 12, 241)
"""The levels of the network's logits by which voxels are counted; more extreme ones count with the last."""

_LEAST = 0.02  # least spread
_BINS = 15  # of probability, all of the same width, in the expected calibration error


class Calibration(NamedTuple):
    """Temperature scaling: logits are divided by a temperature (Guo et al. 2017, arxiv.org/abs/1706.04599).

    0.5 stays 0.5 and voxels keep their order, so a mask at threshold 0.5 is the same before and after. The temperature
    grows with the spread of the case: where the volume depends much on the threshold, the network is surer than it may
    be. An offset, as in Platt scaling, does not carry over from one institution to another: it says how large its
    readers draw a tumour.

    Attributes:
        temperature: that of a case whose spread and ``base`` together are 1; more makes probabilities less extreme.
        growth: power of the spread with which the temperature grows; 0 for the same temperature in all cases.
        base: spread that every case has besides its own.
    """

    temperature: float
    growth: float = 0.0
    base: float = _LEAST

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated probability of a case, float32, of the same shape."""
        with np.errstate(divide="ignore"):
            logits = special.logit(np.asarray(probability, dtype=np.float32))
        return special.expit(logits / np.float32(self.of_spread(threshold_spread(probability))))

    def of_spread(self, spread: float) -> float:
        """Temperature of a case.

        Args:
            spread: result of :py:func:`mri_seg.quality.expected_dice.threshold_spread`.
        """
        return self.temperature * (spread + self.base) ** self.growth

    def levels(self, spread: float) -> np.ndarray:
        """Calibrated probability of a case at each of :py:data:`LOGITS`.

        Args:
            spread: as in :py:meth:`of_spread`.
        """
        return special.expit(LOGITS / self.of_spread(spread))

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
        whole numbers ``(2, levels)``: voxels outside and inside the reference at each of :py:data:`LOGITS`.
    """
    with np.errstate(divide="ignore"):
        logits = special.logit(np.asarray(probability)[where].astype(np.float64)).clip(LOGITS[0], LOGITS[-1])
    levels = np.rint((logits - LOGITS[0]) / (LOGITS[1] - LOGITS[0])).astype(int)
    inside = np.asarray(label)[where] > 0
    return np.stack([np.bincount(levels[inside == value], minlength=len(LOGITS)) for value in (False, True)])


def fit_calibration(
    near: Sequence[np.ndarray],
    everything: Sequence[np.ndarray] | None = None,
    spreads: Sequence[float] | None = None,
) -> Calibration:
    """Fit the temperature: the least sum of the calibration errors near the masks and of unsure voxels, over cases.

    The likelihood of the voxels would be ruled by the few cases in which a large part of a tumour was missed surely.

    Args:
        near: results of :py:func:`voxel_counts` near the masks of each case.
        everything: those of all its voxels; None for the same.
        spreads: result of :py:func:`mri_seg.quality.expected_dice.threshold_spread` of each case; None for the same
            temperature in all cases.

    Raises:
        ValueError: when there are no voxels.
    """
    sizes = [1.0 - _LEAST] * len(near) if spreads is None else spreads
    counted = [one for one in zip(near, near if everything is None else everything, sizes) if np.sum(one[0])]
    if not counted:
        raise ValueError("calibration needs voxels near a tumour. Give cases with tumour.")

    def loss(found: np.ndarray) -> float:
        calibration = Calibration(float(np.exp(found[0])), float(found[1]))
        errors: tuple[list[float], list[float]] = ([], [])
        for close, whole, spread in counted:
            values = calibration.levels(spread)
            for kind, counts in zip(errors, (close, unsure_counts(whole, values))):
                if np.sum(counts):
                    kind.append(expected_calibration_error(reliability(counts, values)))
        return float(sum(np.mean(kind) for kind in errors if kind))

    growth = slice(0.0, 0.01, 0.1) if spreads is None else slice(0.0, 0.81, 0.1)
    found = optimize.brute(loss, (slice(-0.7, 2.61, 0.1), growth), finish=None)
    return Calibration(float(np.exp(found[0])), float(found[1]))


def unsure_counts(counts: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Those voxels whose probability is within :py:data:`UNSURE`.

    Args:
        counts: result of :py:func:`voxel_counts`.
        values: probability at each level, from :py:meth:`Calibration.levels`; None for the network's.

    Returns:
        counts of the same shape.
    """
    values = special.expit(LOGITS) if values is None else values
    return np.asarray(counts) * ((values >= UNSURE[0]) & (values <= UNSURE[1]))


def reliability(counts: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Probability and fraction of tumour in bins of probability, of one case.

    Args:
        counts: result of :py:func:`voxel_counts`.
        values: probability at each level, from :py:meth:`Calibration.levels`; None for the network's.

    Returns:
        ``(15, 3)``: voxels, sum of their probabilities, and voxels in the reference, for each bin. Those of several
        cases can be added.
    """
    values, counts = special.expit(LOGITS) if values is None else values, np.asarray(counts, dtype=float)
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    columns = (counts.sum(0), counts.sum(0) * values, counts[1])
    return np.stack([np.bincount(bins, weights, _BINS) for weights in columns], axis=1)


def expected_calibration_error(bins: np.ndarray) -> float:
    """Mean difference between probability and fraction of tumour, over voxels; NaN without voxels.

    Args:
        bins: result of :py:func:`reliability`, or a sum of several.
    """
    voxels, probability, tumor = bins.T
    return float(np.abs(probability - tumor).sum() / voxels.sum()) if voxels.any() else float("nan")
