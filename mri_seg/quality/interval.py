"""An interval for the volume of the reference, as a factor of the predicted volume, by conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mri_seg.quality.expected_dice import COVERAGE, group_rows

__all__ = ["VolumeInterval", "fit_volume_interval"]

_LEAST = 0.02  # least spread and least error, so that no interval shrinks to a point
_STEEPEST = 2.0  # largest power; few cases could ask for more


class VolumeInterval(NamedTuple):
    """A 90 % interval of volume: from the predicted volume divided by a factor to the volume times that factor.

    Attributes:
        width: logarithm of the factor where spread and ``base`` together are 1.
        base: spread that every case has besides its own.
        power: the logarithm of the factor grows with this power of the spread; with 1 in proportion to it.
    """

    width: float
    base: float = _LEAST
    power: float = 1.0

    def __call__(self, volume: float, spread: float) -> tuple[float, float]:
        """Ends of the interval, in the unit of the volume.

        Args:
            volume: the predicted volume, more than 0.
            spread: result of :py:func:`mri_seg.quality.expected_dice.threshold_spread`.
        """
        factor = math.exp(self.width * (spread + self.base) ** self.power)
        return volume / factor, volume * factor


def fit_volume_interval(
    predicted: Sequence[float],
    reference: Sequence[float],
    spreads: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    base: float = _LEAST,
    power: float | None = None,
) -> VolumeInterval:
    """Fit the interval by normalized split-conformal prediction (Lei et al. 2018, section 5.2).

    How errors grow with the spread is a line through their logarithms, by least squares. The error is taken without its
    sign: one institution's tumours may be drawn larger and another's smaller. The interval covers the model's error on
    cases like these, and not the difference between two readers.

    Args:
        predicted: volume of each predicted mask.
        reference: volume of each reference; cases in which either is 0 do not count, since no ratio exists.
        spreads: result of :py:func:`mri_seg.quality.expected_dice.threshold_spread` of each case.
        groups: group of each case, such as its institution. The interval holds for each that has at least 10 cases.
        base: see :py:class:`VolumeInterval`.
        power: likewise; None to fit it.

    Raises:
        ValueError: when fewer than 10 cases have both volumes.
    """
    volumes = np.array([predicted, reference, spreads], dtype=float)
    counted = (volumes[:2] > 0).all(0)
    if counted.sum() < 10:
        raise ValueError(f"expected at least 10 cases with a tumour that was found, got {counted.sum()}.")
    volumes = volumes[:, counted]
    errors, spread = np.abs(np.log(volumes[1] / volumes[0])), volumes[2] + base
    power = _slope(np.log(spread), np.log(errors + _LEAST)) if power is None else power
    scores = errors / spread**power
    names = None if groups is None else np.array(groups)[counted].tolist()
    widths = []
    for rows in group_rows(names, len(scores)):
        ordered = np.sort(scores[rows])
        widths.append(float(ordered[min(math.ceil((len(ordered) + 1) * COVERAGE) - 1, len(ordered) - 1)]))
    return VolumeInterval(max(widths), base, power)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the line through the points, from 0 to 2; 1 if all are at one place."""
    apart = x - x.mean()
    if not (apart @ apart) > 1e-9:
        return 1.0
    return float(np.clip(apart @ y / (apart @ apart), 0.0, _STEEPEST))
