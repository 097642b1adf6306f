"""Measurement error: how much a value differs if the same head is imaged and segmented again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from os import PathLike
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from mri_seg.follow_up.timeline import QUANTITIES, Estimate
from mri_seg.utils.files import read_json

__all__ = ["Z", "critical_difference", "interval", "load_repeatability", "repeatability_of", "standard_deviation"]

Z = float(norm.ppf(0.975))
"""Half the width of a 95 % interval in standard deviations."""


def load_repeatability(file: PathLike | str | None = None) -> dict[str, Any]:
    """Read the measurement error of each quantity.

    Args:
        file: JSON with, for ``volume``, ``mean_diameter`` and ``product``, ``absolute_sd`` (in the quantity's unit) and
            ``relative_sd`` (as a fraction of its value): the standard deviation of a single measurement is the root
            of the sum of their squares. ``by_expected_dice`` may list the same of heads by their expected Dice, with
            the lowest one of each, ``from``, falling to 0. By default the file that comes with the package.

    Raises:
        ValueError: when the file lacks a number, or holds a negative one, or its list does not fall to 0.
    """
    path = resources.files("mri_seg.follow_up").joinpath("repeatability.json") if file is None else file
    found: dict[str, Any] = read_json(str(path))
    levels = found.get("by_expected_dice", [])
    for one in (found, *levels):
        for name in QUANTITIES:
            for part in ("absolute_sd", "relative_sd"):
                value = one.get(name, {}).get(part) if isinstance(one.get(name), Mapping) else None
                if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                    raise ValueError(f"{path}: {name} has {part} {value!r}, expected a number, 0 or more.")
    limits = [level.get("from") for level in levels]
    if levels and (limits[-1] != 0 or limits != sorted(set(limits), reverse=True)):
        raise ValueError(f"{path}: by_expected_dice begins at {limits}, expected numbers that fall to 0.")
    return found


def repeatability_of(repeatability: Mapping[str, Any], expected_dice: Sequence[float | None]) -> dict[str, Any]:
    """The measurement error of a patient, by how sure the network is of the scans.

    A tumour with unclear borders is segmented differently in every image of the same head; one with clear borders is
    not. The scan with the lowest expected Dice decides.

    Args:
        repeatability: result of :py:func:`load_repeatability`.
        expected_dice: that of each scan; None if unknown.

    Returns:
        the same, with the error of such heads in place of that of all; that of all if the expected Dice of a scan is
        unknown or errors are not known by it.
    """
    levels = repeatability.get("by_expected_dice", [])
    known = [dice for dice in expected_dice if dice is not None]
    if not levels or len(known) < len(expected_dice):
        return dict(repeatability)
    level = next(level for level in levels if min(known) >= level["from"])
    return {**repeatability, **level}


def standard_deviation(repeatability: Mapping[str, Any], quantity: str, value: float) -> float:
    """Standard deviation of a measured value.

    Args:
        repeatability: result of :py:func:`load_repeatability`.
        quantity: one of :py:data:`~mri_seg.follow_up.timeline.QUANTITIES`.
        value: the measured value.
    """
    error = repeatability[quantity]
    return math.hypot(error["absolute_sd"], error["relative_sd"] * value)


def interval(repeatability: Mapping[str, Any], quantity: str, value: float) -> Estimate:
    """A measured value with its 95 % interval, which does not go below 0."""
    half = Z * standard_deviation(repeatability, quantity, value)
    return Estimate(value, max(value - half, 0.0), value + half)


@lru_cache(maxsize=256)
def critical_difference(earlier: int) -> float:
    """By how many standard deviations a value must be above the smallest of some earlier ones to be larger than it.

    With a single earlier value it is the repeatability coefficient, 2.77: without change, 2.5 % of differences are
    above it. The smallest of several is small by chance as well, so the difference must be larger for the same 2.5 %.

    Source: Bland and Altman, Measuring agreement in method comparison studies, Statistical Methods in Medical Research
    8 (1999), for the coefficient.

    Args:
        earlier: number of earlier values, 1 or more.

    Example::

        >>> round(critical_difference(1), 2), round(critical_difference(4), 2)
        (2.77, 3.45)
    """
    if earlier == 1:
        return Z * math.sqrt(2)

    def excess(difference: float) -> float:
        def density(x: float) -> float:
            all_within = norm.cdf(difference - x) ** earlier  # all earlier values are above x - difference
            return float(norm.pdf(x) * (1 - all_within))

        return float(quad(density, -10, 10)[0]) - 0.025

    return float(brentq(excess, 1, 10))


def weighted_line(times: np.ndarray, values: np.ndarray, deviations: np.ndarray) -> tuple[float, float, float, float]:
    """Fit a line by least squares with known standard deviations.

    Args:
        times: ``(N,)``, two different ones at least.
        values: ``(N,)``.
        deviations: standard deviation of each value ``(N,)``.

    Returns:
        the value at time 0, the slope, the standard deviation of the slope, and the sum of squared residuals, each
        divided by its standard deviation.
    """
    weights = 1 / np.maximum(deviations, 1e-9) ** 2
    middle = float((weights * times).sum() / weights.sum())
    spread = float((weights * (times - middle) ** 2).sum())
    slope = float((weights * (times - middle) * values).sum() / spread)
    at_start = float((weights * values).sum() / weights.sum()) - slope * middle
    residuals = values - at_start - slope * times
    return at_start, slope, 1 / math.sqrt(spread), float((weights * residuals**2).sum())
