"""An interval for the volume of the reference, as a factor of the predicted volume, by conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mri_seg.quality.expected_dice import COVERAGE, group_rows

__all__ = ["VolumeInterval", "fit_volume_interval"]

_LEAST = 0.02  # least spread, so that no interval shrinks to a point
_POWER = 1.5  # errors grow faster than the spread: where much is unsure, more is missed


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
    power: float = _POWER,
) -> VolumeInterval:
    """Fit the interval by normalized split-conformal prediction (Lei et al. 2018, section 5.2).

    The error is taken without its sign: one institution's tumours may be drawn larger and another's smaller. The
    interval covers the model's error on cases like these, and not the difference between two readers.

    Args:
        predicted: volume of each predicted mask.
        reference: volume of each reference; cases in which either is 0 do not count, since no ratio exists.
        spreads: result of :py:func:`mri_seg.quality.expected_dice.threshold_spread` of each case.
        groups: group of each case, such as its institution. The interval holds 90 % of all cases, with the correction
            for few cases, and 90 % of each group of at least 10, without it.
        base: see :py:class:`VolumeInterval`.
        power: likewise.

    Raises:
        ValueError: when fewer than 10 cases have both volumes.
    """
    volumes = np.array([predicted, reference, spreads], dtype=float)
    counted = (volumes[:2] > 0).all(0)
    if counted.sum() < 10:
        raise ValueError(f"expected at least 10 cases with a tumour that was found, got {counted.sum()}.")
    volumes = volumes[:, counted]
    scores = np.abs(np.log(volumes[1] / volumes[0])) / (volumes[2] + base) ** power
    names = None if groups is None else np.array(groups)[counted].tolist()
    widths = [
        _quantile(scores, len(scores) + 1),
        *(_quantile(scores[rows], rows.sum()) for rows in group_rows(names, len(scores))),
    ]
    return VolumeInterval(max(widths), base, power)


def _quantile(scores: np.ndarray, count: int) -> float:
    """The score that 90 % of so many cases do not exceed; the highest if there are too few."""
    return float(np.sort(scores)[min(math.ceil(count * COVERAGE), len(scores)) - 1])
