"""What is said of a timeline in words, on pages and in the log."""

from __future__ import annotations

from mri_seg.follow_up.timeline import Estimate, Timeline, Velocity

__all__ = ["WITHIN", "change_text", "scan_label", "span_text", "speed_text", "summary"]

WITHIN = "within measurement error"


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
    value, low, high = velocity.estimate
    error = f", {WITHIN}" if velocity.within_error else ""
    return f"{value:+.1f} {unit} a year (95 % interval {low:+.1f} to {high:+.1f}{error})"


def span_text(velocity: Velocity) -> str:
    """How long, and by how many scans, a velocity was measured."""
    return f"{velocity.years:.1f} years, {velocity.scans} scans"


def change_text(percent: Estimate | None, within: bool) -> str:
    """A change in percent with its interval; empty if the earlier value was 0."""
    if percent is None:
        return ""
    return f"{percent.value:+.0f} % ({percent.low:+.0f} to {percent.high:+.0f}{', ' + WITHIN if within else ''})"
