"""Make the timeline of a patient from scans with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_seg.follow_up.change_mask import change_labels
from mri_seg.follow_up.coverage import CUT, share_outside
from mri_seg.follow_up.dated_cases import TIMELINE_FORM
from mri_seg.follow_up.growth import change_between, velocity_of
from mri_seg.follow_up.rano import response_of
from mri_seg.follow_up.registration import MIN_OVERLAP, MIN_SIMILARITY, Registration, register, resample
from mri_seg.follow_up.repeatability import load_repeatability, repeatability_of
from mri_seg.follow_up.timeline import DAYS_PER_YEAR, Change, Lesion, Response, Scan, Timeline, TimePoint, Velocity
from mri_seg.follow_up.tracking import track_lesions, values_of
from mri_seg.measurements.lesions import measure

__all__ = ["make_timeline"]

FALL = -50.0
"""Change of the volume in percent from one scan to the next beyond which something must have happened."""

SHOWN_CUT = 0.01
"""Share of a tumour outside a scan's field of view that is flagged."""

_SURGERY = ("surg", "resect", "biops", "craniotom", "operat", "debulk", "excis", "remov", "ablat", "gtr", "litt")


def make_timeline(patient: str, scans: Sequence[Scan], *, repeatability: Mapping[str, Any] | None = None) -> Timeline:
    """Compare the scans of a patient.

    Every later scan is registered to the first; masks are compared in the grid of the first and measured in their own.

    Args:
        patient: name of the patient.
        scans: the scans, from the earliest to the latest.
        repeatability: the measurement error, by default that of
            :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.

    Returns:
        the timeline, with flags.

    Raises:
        ValueError: when there is no scan, the dates fall, or a scan cannot be brought to the first, so that it is
            perhaps not the same person.
    """
    if not scans:
        raise ValueError(f"{patient}: has no scan, expected one at least.")
    repeatability = load_repeatability() if repeatability is None else repeatability
    repeatability = repeatability_of(repeatability, [scan.expected_dice for scan in scans])
    dated = all(scan.date is not None for scan in scans)
    timeline = Timeline(patient, [], repeatability=repeatability)
    epoch = 0
    for number, scan in enumerate(scans):
        epoch += bool(number and scan.event)
        years = _years(scans, number) if dated else None
        timeline.points.append(_point(scans[0], scan, years, epoch, repeatability))
    timeline.lesions = track_lesions(timeline.points, repeatability)
    for number in range(epoch + 1):
        timeline.velocities.append(_velocities(timeline, number))
        _compare(timeline, number)
    for lesion in timeline.lesions:
        lesion.velocity = _velocity_of_lesion(timeline, lesion)
    _flag(timeline)
    return timeline


def _years(scans: Sequence[Scan], number: int) -> float:
    """Years from the first scan to another."""
    days = [scan.date.toordinal() for scan in (scans[0], *scans[max(number - 1, 0) : number + 1]) if scan.date]
    if days[-1] < days[-2]:
        raise ValueError(
            f"{scans[number].name}: its date {scans[number].date} is before that of {scans[number - 1].name}, "
            f"{scans[number - 1].date}. Give the scans in order."
        )
    return (days[-1] - days[0]) / DAYS_PER_YEAR


def _point(first: Scan, scan: Scan, years: float | None, epoch: int, repeatability: Mapping[str, Any]) -> TimePoint:
    """A scan in the grid of the first."""
    mask = np.asarray(scan.mask) > 0
    measurements = measure(mask, scan.affine, case=scan.case)
    values = values_of(measurements, repeatability)
    if scan is first:
        image = np.asarray(scan.image, dtype=np.float32)
        return TimePoint(scan, years, epoch, values, measurements, np.eye(4), {}, image, mask)
    found = register(
        first.image, first.affine, scan.image, scan.affine, fixed_lesion=first.mask, moving_lesion=scan.mask
    )
    if found.quality.failed:
        raise ValueError(_failure(first, scan, found))
    grid = (scan.affine, found.matrix, first.mask.shape, first.affine)
    image = resample(scan.image, *grid)[0]
    moved = resample(mask.astype(np.float32), *grid)[0] >= 0.5
    quality = found.quality._asdict()
    if found.quality.doubtful:
        scan.flag(
            "registration_doubtful",
            f"it fits the first scan, {first.case}, only loosely (similarity {found.quality.similarity:.2f}). Look at "
            "the overlay before you use gained and lost voxels.",
        )
    return TimePoint(scan, years, epoch, values, measurements, found.matrix, quality, image, moved)


def _failure(first: Scan, scan: Scan, found: Registration) -> str:
    quality = found.quality
    return (
        f"{scan.name}: cannot be brought to the place of {first.name}: {quality.overlap:.0%} of the head overlap "
        f"(expected {MIN_OVERLAP:.0%} or more), with similarity {quality.similarity:.2f} (expected {MIN_SIMILARITY} or "
        "more). Check that both are of the same person and show most of the head; leave a scan out with --timeline."
    )


def _velocities(timeline: Timeline, epoch: int) -> dict[str, Velocity]:
    if not timeline.has_dates:
        return {}
    points = [timeline.points[n] for n in timeline.epoch(epoch)]
    found = {}
    for name in ("mean_diameter", "volume"):
        velocity = velocity_of(
            [point.years or 0.0 for point in points],
            [point.values[name].value for point in points],
            name,
            timeline.repeatability,
        )
        if velocity is not None:
            found[name] = velocity
    return found


def _velocity_of_lesion(timeline: Timeline, lesion: Lesion) -> Velocity | None:
    """Velocity of a lesion's mean diameter in the last epoch, over the scans in which it is found."""
    last = timeline.points[-1].epoch
    found = [
        (timeline.points[n].years, value["mean_diameter"].value)
        for n in timeline.epoch(last)
        if (value := lesion.values[n]) is not None
    ]
    if not timeline.has_dates or not found:
        return None
    years, values = zip(*found, strict=True)
    return velocity_of([year or 0.0 for year in years], values, "mean_diameter", timeline.repeatability)


def _compare(timeline: Timeline, epoch: int) -> None:
    """Add the changes and categories of the scans of an epoch."""
    numbers = timeline.epoch(epoch)
    products = {n: timeline.points[n].values["product"].value for n in numbers}
    cut = {n: _cut(timeline, n)[0] >= CUT for n in numbers}
    timeline.responses.append(None)
    for place, n in enumerate(numbers[1:], start=1):
        whole = [m for m in numbers[:place] if not cut[m]]
        smallest = min(whole or numbers[:place], key=lambda m: products[m])
        compared = {"baseline": numbers[0], "previous": numbers[place - 1], "smallest": smallest}
        labels = {other: change_labels(timeline.points[other], timeline.points[n]) for other in set(compared.values())}
        for against, other in compared.items():
            timeline.changes.append(_change(timeline, other, n, against, labels[other]))
        new = [
            f"lesion {lesion.number}, {lesion.values[n]['volume'].value:.1f} mL"  # type: ignore[index]
            for lesion in timeline.lesions
            if lesion.new_at is not None
            and lesion.new_at <= n
            and lesion.measurable
            and lesion.values[n]
            and timeline.points[lesion.new_at].epoch == epoch
        ]
        lacking = next((m for m in (n, numbers[0]) if cut[m]), None)
        if lacking is not None and not new:
            outside, other = _cut(timeline, lacking)
            timeline.responses.append(Response("not evaluable", _cut_text(timeline, lacking, outside, other)))
            continue
        visible = bool(timeline.points[n].scan.mask.any())
        of_whole = [products[m] for m in (*(whole or numbers[:1]), n)]
        timeline.responses.append(response_of(of_whole, new, timeline.repeatability, visible=visible))


def _cut(timeline: Timeline, number: int) -> tuple[float, int]:
    """How much of a tumour of its epoch lies outside a scan's field of view at most, and in which scan that is."""
    point = timeline.points[number]
    others = [n for n in timeline.epoch(point.epoch) if n != number]
    shares = [(share_outside(timeline.points[n].scan.mask, timeline.points[n], point), n) for n in others]
    return max(shares, default=(0.0, number))


def _cut_text(timeline: Timeline, number: int, outside: float, other: int) -> str:
    return (
        f"{outside:.0%} of the tumour in {timeline.points[other].case} lies outside the field of view of "
        f"{timeline.points[number].case}"
    )


def _change(timeline: Timeline, first: int, last: int, against: str, labels: np.ndarray) -> Change:
    one, other = timeline.points[first], timeline.points[last]
    voxel_ml = abs(float(np.linalg.det(other.scan.affine[:3, :3]))) / 1000
    return change_between(first, last, against, one.values, other.values, labels, voxel_ml, timeline.repeatability)


def _flag(timeline: Timeline) -> None:
    """Raise the flags of a timeline."""
    if len(timeline.points) == 1:
        timeline.flag(
            "single_scan",
            f"only one scan, {timeline.points[0].scan.name}: nothing to compare it with. If there are more of this "
            f"patient, their names or headers say another one. {TIMELINE_FORM}",
        )
    elif not timeline.has_dates:
        timeline.flag(
            "no_dates",
            "not all scans have dates: they are compared in the order of their names, and no rates are given. Give "
            "dates with --timeline.",
        )
    if timeline.repeatability.get("provisional"):
        timeline.flag(
            "provisional_error",
            "the measurement error behind the intervals is provisional: of the size that the literature gives, not "
            "measured with this network.",
        )
    _flag_error(timeline)
    _flag_days(timeline)
    for lesion in timeline.lesions:
        if lesion.new_at is not None:
            size = (
                ""
                if lesion.measurable
                else ", below 10 x 10 mm or within measurement error, which does not count as progression"
            )
            point = timeline.points[lesion.new_at]
            point.scan.flag("new_lesion", f"lesion {lesion.number} is new{size}. Compare with the earlier scans.")
    surgery = False
    for number, point in enumerate(timeline.points):
        surgery |= any(word in point.scan.event.lower() for word in _SURGERY)
        if surgery:
            point.scan.flag(
                "after_surgery",
                "it is after surgery. The network has seen no scan after surgery in training: check the mask.",
            )
        if point.scan.event and number:
            point.scan.flag("new_baseline", f"it is a new baseline, after: {point.scan.event}.")
    for change in timeline.changes:
        fall = change.percent.get("volume")
        if change.against == "previous" and fall and fall.value < FALL and not change.within_error["volume"]:
            timeline.points[change.last].scan.flag(
                "large_fall",
                f"the volume fell by {-fall.value:.0f} % since {timeline.points[change.first].case}, and no event is "
                "given. If the patient was treated, say so with --timeline.",
            )
    for number, point in enumerate(timeline.points):
        outside, other = _cut(timeline, number)
        if outside >= SHOWN_CUT:
            point.scan.flag(
                "tumour_outside",
                f"{_cut_text(timeline, number, outside, other)}. Its volume may be too small, and changes that start "
                "or end with it are wrong then.",
            )


def _flag_error(timeline: Timeline) -> None:
    """Flag the scan because of which the measurement error is that of the least sure heads, and errors of all heads."""
    levels, used = timeline.repeatability.get("by_expected_dice", []), timeline.repeatability.get("from")
    unknown = [p.case for p in timeline.points if p.scan.expected_dice is None and p.scan.mask.any()]
    if levels and unknown:
        timeline.flag(
            "error_of_all_heads",
            f"no expected Dice is known for {unknown[0]}, so the measurement error is that of all heads, by the "
            "weights of the package. For weights of your own, fit quality.json by python -m mri_seg.quality fit.",
        )
    if len(levels) > 1 and used == levels[-1]["from"]:
        lowest = min(timeline.points, key=lambda point: point.scan.expected_dice or 0)
        lowest.scan.flag(
            "large_error",
            f"its expected Dice is {lowest.scan.expected_dice:.2f}. Masks of such heads differ more from image to "
            "image, so all intervals are wide. Look at the borders in every scan.",
        )


def _flag_days(timeline: Timeline) -> None:
    for one, other in zip(timeline.points, timeline.points[1:]):
        if one.date is not None and one.date == other.date:
            other.scan.flag(
                "same_day",
                f"{other.scan.name} and {one.scan.name} have the same date, {one.date}. If one of them is a "
                "repetition, leave it out with --timeline.",
            )
