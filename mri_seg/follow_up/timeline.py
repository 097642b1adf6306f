"""What is known of a patient over time: scans, lesions, changes and the velocity of growth."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mri_seg.utils.case_flags import add_flag, case_flags

__all__ = [
    "DAYS_PER_YEAR",
    "QUANTITIES",
    "WITHIN",
    "Change",
    "Estimate",
    "Lesion",
    "Scan",
    "TimePoint",
    "Timeline",
    "Velocity",
]

DAYS_PER_YEAR = 365.25

QUANTITIES = {"volume": "mL", "mean_diameter": "mm", "product": "mm2"}
"""What is followed, with its unit: the volume, the mean tumour diameter, and the sum of bidimensional products."""

WITHIN = "within measurement error"
"""What is said of a change that repeated measurements of the same head would also show."""


@dataclass
class Scan:
    """A scan with its mask, before it is compared with others.

    Attributes:
        case: name of the case.
        image: FLAIR intensities ``(H, W, D)``.
        mask: the segmented tumour, bool ``(H, W, D)``.
        affine: ``(4, 4)``, from voxels to RAS in mm.
        date: date of the scan; None if unknown.
        event: what happened since the scan before, such as ``surgery``; empty if nothing is known.
        files: the files of the scan.
        source: ``dicom``, ``volume``, ``tiff`` or ``picture``.
        expected_dice: Dice that the network expects of its mask; None if unknown.
        flags: warnings about the case, each with ``name`` and ``message``.
    """

    case: str
    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    date: datetime.date | None = None
    event: str = ""
    files: list[str] = field(default_factory=list)
    source: str = "volume"
    expected_dice: float | None = None
    flags: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The scan's first file and its case, for messages."""
        return f"{self.files[0]} ({self.case})" if self.files else self.case

    def flag(self, name: str, message: str) -> None:
        """Raise a flag for the scan."""
        about = {"case": self.case, "flags": json.dumps(self.flags)}
        add_flag(about, name, message)
        self.flags = case_flags(about)


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class TimePoint:
    """A scan of a timeline, in its own grid and in that of the first scan.

    Attributes:
        scan: the scan, in its own grid.
        years: years since the first scan; None without dates.
        epoch: number of events before it, from 0: growth is measured within an epoch.
        values: ``volume`` in mL, ``mean_diameter`` in mm and ``product`` in mm2, each with its 95 % interval, measured
            in the scan's own grid.
        measurements: result of :py:func:`mri_seg.measurements.lesions.measure`.
        from_first: ``(4, 4)``, from RAS in mm of the first scan to RAS in mm of this one.
        quality: how well the scan was brought to the first; see :py:class:`~mri_seg.follow_up.registration.Quality`.
        image: the intensities in the grid of the first scan.
        mask: the mask in the grid of the first scan.
    """

    scan: Scan
    years: float | None
    epoch: int
    values: dict[str, Estimate]
    measurements: Mapping[str, Any]
    from_first: np.ndarray
    quality: Mapping[str, float]
    image: np.ndarray
    mask: np.ndarray

    @property
    def case(self) -> str:
        """Name of the case."""
        return self.scan.case

    @property
    def date(self) -> datetime.date | None:
        """Date of the scan."""
        return self.scan.date


@dataclass
class Lesion:
    """A lesion over time; lesions that merge or split are one.

    Attributes:
        number: from 1, the largest first.
        values: for each time point, ``volume`` in mL, ``mean_diameter`` in mm and ``product`` in mm2, each with its
            95 % interval; None where the lesion is not found.
        parts: number of separate parts at each time point.
        new_at: index of the time point at which it appears, if that is not the first of its epoch; else None.
        measurable: whether, at that time point, both its diameters are at least 10 mm and its volume is beyond
            measurement error.
        velocity: velocity of its mean diameter in the last epoch.
    """

    number: int
    values: list[dict[str, Estimate] | None]
    parts: list[int]
    new_at: int | None = None
    measurable: bool = True
    velocity: Velocity | None = None


@dataclass
class Change:
    """The change from one scan to a later one of the same epoch.

    Attributes:
        first: index of the earlier time point.
        last: index of the later one.
        against: ``baseline``, ``previous`` or ``smallest``.
        difference: change of each quantity in its unit.
        percent: change of each quantity in percent of the earlier value; a quantity that was 0 is left out.
        within_error: whether each quantity's change is within measurement error.
        voxels_ml: mL of voxels ``gained``, ``lost`` and ``stable`` in the grid of the later scan.
    """

    first: int
    last: int
    against: str
    difference: dict[str, Estimate]
    percent: dict[str, Estimate]
    within_error: dict[str, bool]
    voxels_ml: dict[str, float]


class Velocity(NamedTuple):
    """Slope of a quantity over time, by least squares.

    Attributes:
        estimate: change a year, with its 95 % interval.
        at_start: the fitted value at the first of the scans.
        scans: number of scans.
        years: time from the first to the last of them.
        error: where the interval comes from: ``repeatability`` or ``residuals``.
    """

    estimate: Estimate
    at_start: float
    scans: int
    years: float
    error: str

    @property
    def within_error(self) -> bool:
        """Whether the interval holds 0."""
        return self.estimate.low <= 0 <= self.estimate.high


@dataclass
class Timeline:
    """A patient over time.

    Attributes:
        patient: name of the patient.
        points: the scans, from the earliest to the latest.
        lesions: lesions over time.
        changes: changes against the baseline, the previous scan and the smallest so far, of every later scan.
        velocities: by epoch, the velocity of ``mean_diameter`` (mm a year) and of ``volume`` (mL a year); empty without
            dates, or with a single scan.
        responses: by scan, the RANO category of T2/FLAIR, with the reason; None for a baseline.
        repeatability: the known measurement error, see :py:mod:`mri_seg.follow_up.repeatability`.
        settings: version, weights and options by which the masks were made, if the masks are ours.
        about: the patient's name under ``case``, and flags of the timeline as a whole.
    """

    patient: str
    points: list[TimePoint]
    lesions: list[Lesion] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    velocities: list[dict[str, Velocity]] = field(default_factory=list)
    responses: list[Response | None] = field(default_factory=list)
    repeatability: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.about.setdefault("case", self.patient)

    def flag(self, name: str, message: str) -> None:
        """Raise a flag for the patient."""
        add_flag(self.about, name, message)

    @property
    def flags(self) -> list[dict[str, str]]:
        """Flags of the patient, then those of the scans with their names; what several share is said once."""
        found = [{**flag, "message": _sentence(flag["message"])} for flag in case_flags(self.about)]
        cases: dict[tuple[str, str], list[str]] = {}
        for point in self.points:
            for flag in point.scan.flags:
                cases.setdefault((flag["name"], flag["message"]), []).append(point.case)
        found += [{"name": name, "message": f"{', '.join(own)}: {message}"} for (name, message), own in cases.items()]
        return found

    @property
    def has_dates(self) -> bool:
        """Whether all scans have dates, so that there are rates."""
        return all(point.years is not None for point in self.points)

    @property
    def velocity(self) -> Velocity | None:
        """Velocity of diametric expansion in the last epoch, in mm a year."""
        return self.velocities[-1].get("mean_diameter") if self.velocities else None

    def epoch(self, number: int) -> Sequence[int]:
        """Indices of the time points of an epoch."""
        return [n for n, point in enumerate(self.points) if point.epoch == number]


def _sentence(message: str) -> str:
    """A message with a capital letter; logs show it after a name. Paths stay as they are."""
    return message if message.startswith(("/", ".")) else message[:1].upper() + message[1:]


class Response(NamedTuple):
    """A category of the T2/FLAIR part of RANO-LGG.

    Attributes:
        category: such as ``stable disease``.
        reason: the figures behind it.
    """

    category: str
    reason: str
