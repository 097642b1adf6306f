"""Estimate the Dice of a case without a reference, from how much its volume depends on the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["COVERAGE", "ExpectedDice", "conformal_quantiles", "fit_expected_dice", "threshold_spread"]

COVERAGE = 0.9
"""Fraction of new cases that ranges and intervals are to hold."""

_LOOSE, _STRICT = 0.2, 0.8
_LEAST = 0.02  # least spread, so that no range shrinks to a point
_FEWEST = 10  # cases of a fit, and of a group that counts by itself


def threshold_spread(probability: np.ndarray) -> float:
    """Logarithm of the ratio of the volumes at thresholds 0.2 and 0.8: 0 if all borders are sharp.

    Args:
        probability: the network's probability.
    """
    return math.log((1 + np.count_nonzero(probability >= _LOOSE)) / (1 + np.count_nonzero(probability >= _STRICT)))


class ExpectedDice(NamedTuple):
    """An estimate of Dice that falls in proportion to the spread, with a range that grows with it.

    Attributes:
        slope: what Dice loses per unit of spread.
        least: loss per unit of spread at the upper end of the 90 % range.
        most: that at the lower end.
        base: spread that every case has besides its own, for the range.
    """

    slope: float
    least: float
    most: float
    base: float = _LEAST

    def __call__(self, spread: float) -> tuple[float, float, float]:
        """Expected Dice and the lower and upper end of its range, all from 0 to 1.

        Args:
            spread: result of :py:func:`threshold_spread`.
        """
        expected = 1 - self.slope * spread
        low, high = (1 - loss * (spread + self.base) for loss in (self.most, self.least))
        expected, low, high = (min(max(dice, 0.0), 1.0) for dice in (expected, low, high))
        return expected, min(low, expected), max(high, expected)


def fit_expected_dice(
    spreads: Sequence[float], dice: Sequence[float], groups: Sequence[str] | None = None
) -> ExpectedDice:
    """Fit the estimate by least squares, and its range by conformal prediction.

    Args:
        spreads: result of :py:func:`threshold_spread` of each case.
        dice: its Dice with the reference.
        groups: as in :py:func:`conformal_quantiles`.

    Raises:
        ValueError: when there are fewer than 10 cases.
    """
    if len(spreads) < _FEWEST:
        raise ValueError(f"expected at least {_FEWEST} cases in which something was found, got {len(spreads)}.")
    x, loss = np.asarray(spreads, dtype=float), 1 - np.asarray(dice, dtype=float)
    slope = float(x @ loss / (x @ x)) if x.any() else 0.0
    return ExpectedDice(slope, *conformal_quantiles(loss / (x + _LEAST), groups), _LEAST)


def conformal_quantiles(
    scores: Sequence[float] | np.ndarray, groups: Sequence[str] | None = None, *, coverage: float = COVERAGE
) -> tuple[float, float]:
    """Ends of an interval that holds the score of a new case with a probability of at least ``coverage``.

    Half of the misses are on each side, as in split-conformal prediction (Lei et al. 2018, doi.org/10.1080/
    01621459.2017.1307116). With too few cases for that, the ends are the lowest and the highest score. A new case is
    often of an institution of its own, so the interval holds for each group by itself if there are several.

    Args:
        scores: scores of cases that were not used to train.
        groups: the group of each case, such as its institution; those with fewer than 10 cases count together.
        coverage: from 0 to 1.
    """
    scores = np.asarray(scores, dtype=float)
    ends = [_quantiles(np.sort(scores[rows]), coverage) for rows in group_rows(groups, len(scores))]
    return min(low for low, _ in ends), max(high for _, high in ends)


def group_rows(groups: Sequence[str] | None, count: int) -> list[np.ndarray]:
    """Which rows are of each group with at least 10 cases, and which are of none of these; all rows if none is."""
    names = np.array(groups if groups is not None else [""] * count)
    large = [name for name in sorted(set(names.tolist())) if (names == name).sum() >= _FEWEST]
    rows = [names == name for name in large]
    rest = ~np.isin(names, large)
    return [*rows, rest] if rest.sum() >= _FEWEST else rows or [np.ones(count, dtype=bool)]


def _quantiles(ordered: np.ndarray, coverage: float) -> tuple[float, float]:
    outside = int((1 - coverage) / 2 * (len(ordered) + 1))
    return float(ordered[max(outside - 1, 0)]), float(ordered[min(len(ordered) - outside, len(ordered) - 1)])
