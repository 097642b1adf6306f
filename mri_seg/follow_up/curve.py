"""The curve of a quantity over time as SVG: values with their intervals, and the line of each epoch."""

from __future__ import annotations

import math
from html import escape

from mri_seg.follow_up.timeline import QUANTITIES, Timeline

__all__ = ["growth_curve"]

_WIDTH, _HEIGHT = 360, 230  # pixels; the width of a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 40


def growth_curve(timeline: Timeline, quantity: str, title: str) -> str:
    """Draw the values of a quantity over time, with their 95 % intervals, and the fitted lines.

    Without dates, scans are at even distances and there are no lines.

    Args:
        timeline: the patient over time.
        quantity: one of :py:data:`~mri_seg.follow_up.timeline.QUANTITIES`.
        title: what it is called.

    Returns:
        one ``<svg>`` element; its text is its description too.
    """
    dated = timeline.has_dates
    times = [float(n if point.years is None or not dated else point.years) for n, point in enumerate(timeline.points)]
    values = [point.values[quantity] for point in timeline.points]
    unit = QUANTITIES[quantity]
    highest, step = _ceiling(max(value.high for value in values))
    last = max(times[-1], 1e-6)
    margin = 0.04 * last

    def x(time: float) -> float:
        return _LEFT + (time + margin) / (last + 2 * margin) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / highest * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for n in range(round(highest / step) + 1):
        level = y(n * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{n * step:g}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="12" text-anchor="end">{unit}</text>')
    for time, text in _marks(times, dated=dated):
        parts.append(f'<line class="grid" x1="{x(time):.1f}" x2="{x(time):.1f}" y1="{y(0):.1f}" y2="{y(0) + 4:.1f}"/>')
        parts.append(f'<text x="{x(time):.1f}" y="{y(0) + 17:.1f}" text-anchor="middle">{text}</text>')
    axis = "years since the first scan" if dated else "scans in order; no dates"
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{axis}</text>')
    for epoch, found in enumerate(timeline.velocities):
        if (velocity := found.get(quantity)) is not None:
            start = times[timeline.epoch(epoch)[0]]
            end = start + velocity.years
            ends = [(start, velocity.at_start), (end, velocity.at_start + velocity.estimate.value * velocity.years)]
            (x1, y1), (x2, y2) = ((x(time), y(max(value, 0))) for time, value in ends)
            parts.append(f'<line class="slope" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    spoken = []
    for n, (time, value) in enumerate(zip(times, values, strict=True)):
        point = timeline.points[n]
        name = f"scan {n + 1}" if point.date is None else point.date.isoformat()
        said = f"{name}: {value.value:.1f} {unit} ({value.low:.1f} to {value.high:.1f})"
        spoken.append(said)
        at = x(time)
        if point.scan.event and n:
            parts.append(f'<line class="event" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{y(0):.1f}"/>')
        parts.append(
            f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" y1="{y(value.low):.1f}" y2="{y(value.high):.1f}"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{y(value.value):.1f}" r="4"><title>{escape(said)}</title></circle>')
    label = escape(f"{title} over time. {'; '.join(spoken)}.", quote=True)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return f'<svg class="curve" viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _ceiling(largest: float) -> tuple[float, float]:
    """A round number above the highest value, and a round step that divides it into 3 to 6 parts."""
    rough = max(largest, 1e-3) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
    return step * math.ceil(max(largest, 1e-3) / step), step


def _marks(times: list[float], *, dated: bool) -> list[tuple[float, str]]:
    """Where the time axis has numbers: round years, or every scan."""
    if not dated:
        return [(time, str(n + 1)) for n, time in enumerate(times)]
    last = times[-1]
    step = next((step for step in (0.1, 0.25, 0.5, 1, 2, 5, 10) if last / step <= 6), 20)
    return [(n * step, f"{n * step:g}") for n in range(int(last / step + 1e-9) + 1)]
