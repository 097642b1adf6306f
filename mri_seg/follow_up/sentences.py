"""What is said of a timeline in words, on pages and in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mri_seg.follow_up.timeline import DAYS_PER_YEAR, WITHIN, Change, Timeline, Velocity

__all__ = ["change_text", "error_text", "registration_text", "scan_label", "span_text", "speed_text", "summary"]


def scan_label(timeline: Timeline, number: int) -> str:
    """What a scan is called: its date, with its place in the order if another has the same; or that place alone."""
    date = timeline.points[number].date
    if date is None:
        return f"Scan {number + 1}"
    same = sum(point.date == date for point in timeline.points) > 1
    return f"{date.isoformat()} (scan {number + 1})" if same else date.isoformat()


def summary(timeline: Timeline) -> list[str]:
    """Sentences on the growth and on the latest scan."""
    found = []
    velocity, response = timeline.velocity, timeline.responses[-1]
    if velocity is not None:
        found.append(f"Mean diameter: {speed_text(velocity, 'mm')} over {span_text(velocity)}.")
    if response is not None:
        found.append(f"T2/FLAIR category of the latest scan: {response.category} ({response.reason}).")
    if not found:
        event = timeline.points[-1].scan.event
        several = f"the latest scan is a new baseline (after: {event})"
        found.append(f"No change is measured: {several if len(timeline.points) > 1 else 'there is one scan alone'}.")
    return found


def speed_text(velocity: Velocity, unit: str) -> str:
    """A velocity with its interval."""
    value, low, high = (round(part, 1) + 0.0 for part in velocity.estimate)  # no -0.0
    error = f", {WITHIN}" if velocity.within_error else ""
    return f"{value:+.1f} {unit} a year (95 % interval {low:+.1f} to {high:+.1f}{error})"


def error_text(repeatability: Mapping[str, Any]) -> str:
    """Of which heads the measurement error is that is used, and how large it is."""
    lowest, volume = repeatability.get("from"), repeatability["volume"]
    heads = "all heads"
    if lowest is not None:
        above = [level["from"] for level in repeatability["by_expected_dice"] if level["from"] > lowest]
        heads = f"heads with an expected Dice from {lowest:g} to {min(above, default=1):g}"
    return (
        f"One standard deviation of the volume is {volume['absolute_sd']:.1f} mL and "
        f"{100 * volume['relative_sd']:.0f} % of it, the error of {heads}."
    )


def span_text(velocity: Velocity) -> str:
    """How long, and by how many scans, a velocity was measured."""
    if velocity.years < 1:
        days = round(velocity.years * DAYS_PER_YEAR)
        return f"{days} day{'' if days == 1 else 's'}, {velocity.scans} scans"
    return f"{velocity.years:.1f} years, {velocity.scans} scans"


def registration_text(quality: Mapping[str, float]) -> str:
    """How well a scan was brought to the first one, and how far it lay from it."""
    moved = f"turned by {quality['angle']:.0f}° and moved by {quality['shift']:.0f} mm"
    return f"{moved}, similarity {quality['similarity']:.2f}"


def change_text(change: Change) -> str:
    """A change of the volume in mL, and in percent with its interval if the earlier volume was not 0."""
    found = f"{change.difference['volume'].value:+.1f} mL"
    within = f", {WITHIN}" if change.within_error["volume"] else ""
    percent = change.percent.get("volume")
    if percent is None:
        return found + within
    return f"{found}, {percent.value:+.0f} % ({percent.low:+.0f} to {percent.high:+.0f}{within})"
