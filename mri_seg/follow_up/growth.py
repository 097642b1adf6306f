"""Change and velocity of growth, with intervals that follow from the known measurement error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from mri_seg.follow_up.change_mask import GAINED, LOST, STABLE
from mri_seg.follow_up.repeatability import Z, standard_deviation, weighted_line
from mri_seg.follow_up.timeline import QUANTITIES, Change, Estimate, Velocity

__all__ = ["change_between", "velocity_of"]

RESIDUALS_FROM = 6
"""Number of scans from which the interval of a velocity comes from the residuals of the line."""


def velocity_of(
    years: Sequence[float], values: Sequence[float], quantity: str, repeatability: Mapping[str, Any]
) -> Velocity | None:
    """Change a year of a quantity, by least squares over all scans, with its 95 % interval.

    The measurement error is known, so that two scans have an interval too. From six scans on, the residuals of the line
    give it instead (Student's t), since they hold what repeatability does not: growth that is not even.

    Args:
        years: time of each scan in years.
        values: the quantity at each scan.
        quantity: one of :py:data:`~mri_seg.follow_up.timeline.QUANTITIES`; ``mean_diameter`` gives the velocity of
            diametric expansion.
        repeatability: result of :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.

    Returns:
        the velocity; None if there are no two scans at different times.
    """
    times, measured = np.asarray(years, dtype=float), np.asarray(values, dtype=float)
    if len(times) < 2 or np.ptp(times) <= 0:
        return None
    # At the level of all scans: a scan that is small by chance would otherwise weigh more.
    deviation = standard_deviation(repeatability, quantity, float(measured.mean()))
    at_start, slope, slope_sd, squares = weighted_line(
        times - times.min(), measured, np.full(len(times), max(deviation, 1e-9))
    )
    half, error = Z * slope_sd, "repeatability"
    if len(times) >= RESIDUALS_FROM:
        degrees = len(times) - 2
        half, error = float(student.ppf(0.975, degrees)) * slope_sd * math.sqrt(squares / degrees), "residuals"
    return Velocity(Estimate(slope, slope - half, slope + half), at_start, len(times), float(np.ptp(times)), error)


def change_between(
    first: int,
    last: int,
    against: str,
    earlier: Mapping[str, Estimate],
    later: Mapping[str, Estimate],
    labels: np.ndarray,
    voxel_ml: float,
    repeatability: Mapping[str, Any],
) -> Change:
    """The change from one scan to a later one.

    Args:
        first: index of the earlier scan.
        last: index of the later one.
        against: ``baseline``, ``previous`` or ``smallest``.
        earlier: values of the earlier scan.
        later: values of the later one.
        labels: result of :py:func:`~mri_seg.follow_up.change_mask.change_labels`.
        voxel_ml: volume of a voxel of that grid in mL.
        repeatability: result of :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.

    Returns:
        the change; percentages have intervals on the scale of ratios.
    """
    difference, percent, within = {}, {}, {}
    for name in QUANTITIES:
        one, other = earlier[name].value, later[name].value
        sds = [standard_deviation(repeatability, name, value) for value in (one, other)]
        half = Z * math.hypot(*sds)
        difference[name] = Estimate(other - one, other - one - half, other - one + half)
        within[name] = abs(other - one) <= half
        if one > 0:
            percent[name] = _percent(one, other, sds)
    parts = {"gained": GAINED, "lost": LOST, "stable": STABLE}
    voxels_ml = {name: float(np.count_nonzero(labels == label)) * voxel_ml for name, label in parts.items()}
    return Change(first, last, against, difference, percent, within, voxels_ml)


def _percent(one: float, other: float, sds: Sequence[float]) -> Estimate:
    """Change in percent, with the interval of the logarithm of the ratio; a value of 0 has no logarithm."""
    ratio = other / one
    if other <= 0:
        return Estimate(-100.0, -100.0, 100 * (Z * sds[1] / one - 1))
    half = Z * math.hypot(sds[0] / one, sds[1] / other)
    return Estimate(*(100 * (value - 1) for value in (ratio, ratio * math.exp(-half), ratio * math.exp(half))))
