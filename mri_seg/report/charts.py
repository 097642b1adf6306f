"""Draw the charts of the report as SVG for an HTML page.

Every function returns one ``<svg>`` element as text, or None if there is nothing to draw. Text in it stays text. Axes
and text have the page's own color (``currentColor``) and the background is transparent, so that a chart is readable on
light and dark pages. Data have the colors of Okabe and Ito's palette, which color-blind people can tell apart; a page
can replace them by setting ``--chart-first`` and ``--chart-second``. The point of a case is a group
``<g class="point" data-case="...">`` whose tooltip starts with the case's name. Ids differ between charts, and the same
data always give the same text.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, SymmetricalLogLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent

from mri_seg.report.curves import precision_recall
from mri_seg.report.error_analysis import KINDS

__all__ = [
    "bland_altman",
    "calibration_curve",
    "comparison_scatter",
    "dice_against_volume",
    "dice_by_group",
    "errors_bar",
    "expected_dice",
    "learning_curves",
    "precision_recall_curve",
    "tumor_volumes",
]

Row = Mapping[str, Any]
Volumes = Mapping[str, tuple[float, float]]
"""Volume of the reference and of the prediction of each case."""

Tips = dict[str, tuple[str | None, str]]
"""Case (None if the group shows no single case) and tooltip of each group of a chart, by the group's id."""

# Okabe and Ito's blue and vermillion: the two with enough contrast on white and on black.
_BLUE, _RED = "#0072b2", "#d55e00"
_PAGE = "#010203"  # placeholder for the color of the page's text, which matplotlib cannot express
_WIDTH = 360  # pixels, the width of a phone
_SHOWN = {  # replacements in the text that matplotlib writes
    _PAGE: "currentColor",
    _BLUE: f"var(--chart-first, {_BLUE})",
    _RED: f"var(--chart-second, {_RED})",
    "'DejaVu Sans', sans-serif": "system-ui, sans-serif",
    "'DejaVu Sans'": "system-ui, sans-serif",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mri_seg",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # wider than most fonts, so text that fits in it also fits in the page's font
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "lines.linewidth": 1.8,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _PAGE),
    "grid.color": _PAGE,
}
_LOG_TICKS = (1.0, 2.0, 5.0)


def tumor_volumes(patients: Sequence[Row], voxel_volumes: Mapping[str, float | None]) -> tuple[Volumes, str]:
    """Volumes of reference and prediction: in mL if every patient's voxel size is known, otherwise in voxels.

    Args:
        patients: rows of ``patients.csv`` with ``case``, ``label_voxels`` and ``pred_voxels``.
        voxel_volumes: volume of a voxel of each case in mm3; None or absent if it is not known.

    Returns:
        volumes of each case, and their unit: ``"mL"`` or ``"voxels"``.
    """
    known = all(voxel_volumes.get(str(row["case"])) for row in patients)
    volumes = {}
    for row in patients:
        scale = float(voxel_volumes[str(row["case"])] or 0) / 1000 if known else 1.0
        volumes[str(row["case"])] = (float(row["label_voxels"]) * scale, float(row["pred_voxels"]) * scale)
    return volumes, "mL" if known else "voxels"


def dice_by_group(patients: Sequence[Row]) -> str | None:
    """Draw the Dice of each patient, by group, with the median of each.

    Args:
        patients: rows of ``patients.csv`` with ``case``, ``dice`` and perhaps ``group``, such as the institution;
            patients without a group stand together.
    """
    if not patients:
        return None
    groups = _by_group(patients)
    with _chart(height=290) as (figure, axes, tips):
        for place, rows in enumerate(groups.values()):
            values = [dice for _, dice in rows]
            for (case, dice), shift in zip(rows, _spread(values)):
                _point(axes, tips, case, place + shift, dice, f"{case}: Dice {dice:.3f}")
            median = float(np.median(values))
            axes.plot([place - 0.32, place + 0.32], [median, median], color=_RED, linewidth=2.5, zorder=4)
        axes.plot([], [], color=_RED, linewidth=2.5, label="median")
        crowded = len(groups) > 6
        axes.set_xticks(range(len(groups)), [f"{name}\n{len(rows)}" for name, rows in groups.items()])
        axes.tick_params(axis="x", length=0, labelsize=8 if crowded else 10)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="x")
        _dice_axis(axes.yaxis, [dice for rows in groups.values() for _, dice in rows])
        axes.set_ylabel("Dice of the patient")
        axes.set_xlabel("group, number of patients" if len(groups) > 1 else "number of patients")
        _legend_above(axes)
        described = "; ".join(
            f"{name}: {len(rows)} patients, median {np.median([dice for _, dice in rows]):.3f}"
            for name, rows in groups.items()
        )
        return _svg(figure, tips, "dice-by-group", "Dice of each patient by group", described)


def expected_dice(cases: Sequence[Row]) -> str | None:
    """Draw the Dice of each patient against what was expected without the reference.

    Args:
        cases: ``cases`` of :py:func:`mri_seg.report.quality.quality_summary`.
    """
    if not cases:
        return None
    with _chart(height=300) as (figure, axes, tips):
        axes.plot([0, 1], [0, 1], color=_PAGE, linewidth=0.8)
        for row in cases:
            text = f"{row['case']}: expected {row['expected_dice']:.3f}, Dice {row['dice']:.3f}"
            _point(axes, tips, row["case"], row["expected_dice"], row["dice"], text)
        values = [row[name] for row in cases for name in ("expected_dice", "dice")]
        _dice_axis(axes.xaxis, values)
        _dice_axis(axes.yaxis, values)
        axes.set_xlabel("expected Dice")
        axes.set_ylabel("Dice of the patient")
        return _svg(figure, tips, "expected-dice", "Dice against expected Dice", f"{len(cases)} patients")


def dice_against_volume(patients: Sequence[Row], volumes: Volumes, unit: str) -> str | None:
    """Draw the Dice of each patient against the volume of the tumour in the reference.

    Args:
        patients: rows of ``patients.csv`` with ``case`` and ``dice``.
        volumes: volumes of each case, as of :py:func:`tumor_volumes`; patients without are left out.
        unit: their unit.
    """
    rows = [(str(row["case"]), float(row["dice"])) for row in patients if str(row["case"]) in volumes]
    if not rows:
        return None
    with _chart(height=280) as (figure, axes, tips):
        for case, dice in rows:
            volume = volumes[case][0]
            _point(axes, tips, case, volume, dice, f"{case}: {_amount(volume)} {unit}, Dice {dice:.3f}")
        _volume_axis(axes, [volumes[case][0] for case, _ in rows])
        _dice_axis(axes.yaxis, [dice for _, dice in rows])
        axes.set_xlabel(f"reference volume ({unit})")
        axes.set_ylabel("Dice of the patient")
        described = f"{len(rows)} patients"
        return _svg(figure, tips, "dice-against-volume", "Dice of each patient against tumour volume", described)


def bland_altman(volumes: Volumes, unit: str) -> str | None:
    """Draw the difference between predicted and reference volumes (Bland and Altman, Lancet 1986).

    The difference, prediction minus reference, is drawn against the mean of both. If there are two cases or more, the
    chart also shows the bias (mean difference) and the 95 % limits of agreement (bias ± 1.96 standard deviations).

    Args:
        volumes: volumes of each case, as of :py:func:`tumor_volumes`.
        unit: their unit.
    """
    if not volumes:
        return None
    differences = np.array([pred - label for label, pred in volumes.values()])
    with _chart(height=290) as (figure, axes, tips):
        for (case, (label, pred)), difference in zip(volumes.items(), differences):
            text = f"{case}: predicted {_amount(pred)}, reference {_amount(label)} {unit}"
            _point(axes, tips, case, (pred + label) / 2, difference, text)
        axes.axhline(0, color=_PAGE, linewidth=0.8)
        described = f"{len(volumes)} patients"
        if len(volumes) > 1:
            bias, reach = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
            limits = f"{_amount(bias - reach)} to {_amount(bias + reach)}"
            axes.axhline(bias, color=_RED, label=f"bias {_amount(bias)}")
            for place, words in ((bias - reach, f"95 % limits {limits}"), (bias + reach, None)):
                axes.axhline(place, color=_RED, linestyle=(0, (4, 3)), linewidth=1.4, label=words)
            _legend_above(axes)
            described += f"; bias {_amount(bias)} {unit}, 95 % limits of agreement {limits} {unit}"
        axes.margins(x=0.08, y=0.1)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))
        axes.set_xlabel(f"mean of predicted and reference volume ({unit})")
        axes.set_ylabel(f"predicted − reference ({unit})")
        return _svg(figure, tips, "bland-altman", "Predicted against reference volume (Bland-Altman)", described)


def precision_recall_curve(counts: np.ndarray, *, threshold: float = 0.5) -> str | None:
    """Draw precision against recall over all thresholds, for all voxels together, with one threshold marked.

    Args:
        counts: counts ``(2, 256)`` from :py:func:`mri_seg.report.curves.probability_counts`, summed over cases.
        threshold: the threshold to mark.
    """
    thresholds, precision, recall = precision_recall(counts)
    if np.isnan(recall).all():
        return None
    chosen = int(np.abs(thresholds - threshold).argmin())
    with _chart(height=300) as (figure, axes, tips):
        axes.plot(recall, precision, color=_BLUE)
        text = f"threshold {threshold:g}: precision {precision[chosen]:.3f}, recall {recall[chosen]:.3f}"
        axes.plot([recall[chosen]], [precision[chosen]], "o", color=_RED, markersize=8, label=text, gid="chosen")
        for axis, name in ((axes.xaxis, "recall"), (axes.yaxis, "precision")):
            _fraction_axis(axis)
            axis.set_label_text(f"{name} of voxels")
        _legend_above(axes)
        tips["chosen"] = (None, text)
        return _svg(figure, tips, "precision-recall", "Precision and recall over thresholds", text)


def calibration_curve(calibration: Mapping[str, Any]) -> str | None:
    """Draw the observed fraction of tumour against the predicted probability, by bins of probability.

    Args:
        calibration: result of :py:func:`mri_seg.report.curves.calibration`.
    """
    bins = [row for row in calibration["bins"] if row["voxels"]]
    if not bins:
        return None
    with _chart(height=310) as (figure, axes, tips):
        axes.plot([0, 1], [0, 1], color=_PAGE, linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration")
        axes.plot([row["probability"] for row in bins], [row["observed"] for row in bins], color=_BLUE, zorder=3)
        for row in bins:
            text = (
                f"probability {row['probability']:.3f}, observed {row['observed']:.3f}, {_amount(row['voxels'])} voxels"
            )
            _point(axes, tips, None, row["probability"], row["observed"], text)
        axes.plot([], [], "o-", color=_BLUE, markersize=6, label=_calibration_errors(calibration))
        for axis, name in ((axes.xaxis, "mean probability of the bin"), (axes.yaxis, "observed fraction of tumour")):
            _fraction_axis(axis)
            axis.set_label_text(name)
        _legend_above(axes)
        described = f"{_calibration_errors(calibration)} (p: probability)"
        return _svg(figure, tips, "calibration", "Calibration of the probability of tumour", described)


def errors_bar(counts: Sequence[Row]) -> str | None:
    """Draw the false pixels of all patients by kind, as a number and as a percentage of all false pixels.

    Args:
        counts: rows of :py:func:`mri_seg.report.error_analysis.count`.
    """
    if not counts:
        return None
    pixels = {kind: sum(int(row[kind]) for row in counts) for kind in KINDS}
    total = sum(pixels.values())
    texts = {kind: f"{_amount(n)} ({100 * n / max(total, 1):.0f} %)" for kind, n in pixels.items()}
    with _chart(height=300) as (figure, axes, tips):
        for place, (kind, words) in enumerate(KINDS.items()):
            color = _BLUE if kind.endswith("missed") else _RED
            axes.barh(place + 0.15, pixels[kind], height=0.42, color=color, gid=f"kind-{kind}")
            # The label is above its bar: beside it, it would take half the width of a phone.
            axes.text(0, place - 0.13, f" {words}: {texts[kind]}", va="bottom", ha="left", fontsize=10)
        for label, color in (("missed tumour", _BLUE), ("false tumour", _RED)):
            axes.barh([0], [0], color=color, label=label)
        axes.set_ylim(len(KINDS) - 0.55, -0.65)
        axes.set_xlim(0, max(*pixels.values(), 1) * 1.03)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))
        axes.set_xlabel("false pixels of all patients (percentage)")
        _legend_above(axes)
        described = "; ".join(f"{words}: {texts[kind]}" for kind, words in KINDS.items())
        tips.update({f"kind-{kind}": (None, f"{words}: {texts[kind]}") for kind, words in KINDS.items()})
        return _svg(figure, tips, "errors", "Errors by kind, in pixels", described)


def learning_curves(run_dir: str | PathLike[str]) -> str | None:
    """Draw the learning curves of a run by epoch: training loss, validation Dice and learning rate.

    Args:
        run_dir: folder of the run's TensorBoard event files. If ``train/loss`` is logged by iteration, its mean over
            each epoch is drawn.

    Returns:
        the chart, or None if the folder does not exist or has no such scalars.
    """
    scalars = _read_scalars(run_dir)
    rate = scalars.get("train/learning_rate", {})
    panels = [
        ("training loss", {"loss": _mean_by_epoch(scalars.get("train/loss", {}), rate)}),
        (
            "validation Dice",
            {
                "patients": _by_epoch(scalars.get("validation/patient_dice", {})),
                "slices": _by_epoch(scalars.get("validation/slice_dice", {})),
            },
        ),
        ("learning rate", {"rate": _by_epoch(rate)}),
    ]
    panels = [(name, {line: values for line, values in lines.items() if values}) for name, lines in panels]
    panels = [(name, lines) for name, lines in panels if lines]
    if not panels:
        return None
    with _chart(height=60 + 150 * len(panels), rows=len(panels)) as (figure, all_axes, _):
        for axes, (name, lines) in zip(np.atleast_1d(all_axes), panels):
            for (line, values), color in zip(lines.items(), (_BLUE, _RED)):
                marker = "o" if len(values) < 30 else None
                dashes = "-" if color == _BLUE else (0, (5, 2))
                axes.plot(list(values), list(values.values()), marker=marker, color=color, ls=dashes, label=line, ms=4)
            axes.set_ylabel(name)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if name == "learning rate":
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            if name == "validation Dice":
                _legend_above(axes)
        axes.set_xlabel("epoch")
        figure.align_ylabels()
        return _svg(figure, {}, "learning", "Learning curves of the run", _last_values(panels))


def comparison_scatter(comparison: Mapping[str, Any], *, name: str = "this", other: str = "the other") -> str | None:
    """Draw the Dice of each patient in one evaluation against the Dice in another.

    Args:
        comparison: result of :py:func:`mri_seg.report.compare.compare`.
        name: name of this evaluation; shortened if it is long.
        other: name of the other evaluation; shortened if it is long.
    """
    name, other = _short(name), _short(other)
    rows = comparison["patients"]
    if not rows:
        return None
    with _chart(height=340) as (figure, axes, tips):
        values = [row[key] for row in rows for key in ("dice", "other_dice")]
        for axis in (axes.xaxis, axes.yaxis):
            _dice_axis(axis, values)
        axes.plot(
            [0, 1], [0, 1], color=_PAGE, linewidth=1, linestyle=(0, (4, 3)), label=f"equal (above: {name} is better)"
        )
        for row in rows:
            text = f"{row['case']}: Dice {row['dice']:.3f}, {other} {row['other_dice']:.3f}"
            _point(axes, tips, row["case"], row["other_dice"], row["dice"], text)
        axes.set_aspect("equal")
        axes.set_xlabel(f"Dice, {other}")
        axes.set_ylabel(f"Dice, {name}")
        _legend_above(axes)
        described = (
            f"{len(rows)} patients: {comparison['better']} better, {comparison['worse']} worse, "
            f"{comparison['equal']} equal; mean difference {comparison['mean_difference']:+.4f}"
        )
        return _svg(figure, tips, "comparison", "Dice of each patient in both evaluations", described)


def _by_group(patients: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    """Case and Dice of the patients of each group, sorted by name, those without a group last."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in patients:
        groups.setdefault(str(row.get("group") or ""), []).append((str(row["case"]), float(row["dice"])))
    without = groups.pop("", [])
    named = dict(sorted(groups.items()))
    return {**named, "other" if named else "all": without} if without else named


def _spread(values: Sequence[float], near: float = 0.02) -> list[float]:
    """Sideways shifts that separate points with nearly the same value: 0 for the first, then right and left."""
    shifts = [0.0] * len(values)
    placed: list[tuple[float, float]] = []
    steps = [0.0] + [side * 0.1 * n for n in (1, 2, 3) for side in (1, -1)]
    for n in np.argsort(values, kind="stable").tolist():
        taken = [shift for value, shift in placed if abs(value - values[n]) < near]
        shifts[n] = next((step for step in steps if step not in taken), steps[n % len(steps)])
        placed.append((values[n], shifts[n]))
    return shifts


def _read_scalars(run_dir: str | PathLike[str]) -> dict[str, dict[int, ScalarEvent]]:
    """Scalars of a run's event files by tag and step; if a resumed run logged a step twice, the last one is kept."""
    if not Path(run_dir).is_dir():
        return {}
    few = dict.fromkeys(("images", "audio", "histograms", "compressedHistograms", "tensors"), 1)
    events = EventAccumulator(str(run_dir), size_guidance={**few, "scalars": 0}).Reload()
    return {
        tag: {event.step: event for event in sorted(events.Scalars(tag), key=lambda e: (e.step, e.wall_time))}
        for tag in events.Tags()["scalars"]
    }


def _by_epoch(scalars: Mapping[int, ScalarEvent]) -> dict[int, float]:
    return {epoch: event.value for epoch, event in scalars.items() if math.isfinite(event.value)}


def _mean_by_epoch(loss: Mapping[int, ScalarEvent], ends: Mapping[int, ScalarEvent]) -> dict[int, float]:
    """Mean loss of each epoch, from the loss of each iteration and scalars logged at the end of each epoch.

    The number of iterations per epoch follows from the iterations logged before the end of the last epoch.
    """
    last = max(ends, default=0)
    before = [step for step, event in loss.items() if last and event.wall_time <= ends[last].wall_time]
    iterations = max(round(max(before) / last), 1) if before else 1
    values: dict[int, list[float]] = {}
    for step, value in _by_epoch(loss).items():
        values.setdefault(math.ceil(step / iterations), []).append(value)
    return {epoch: float(np.mean(v)) for epoch, v in values.items()}


def _last_values(panels: Sequence[tuple[str, Mapping[str, Mapping[Any, float]]]]) -> str:
    texts = []
    for name, lines in panels:
        for line, values in lines.items():
            last = max(values)
            texts.append(f"{name}{f' ({line})' if len(lines) > 1 else ''} {values[last]:.4g} at epoch {last:g}")
    return "; ".join(texts)


def _calibration_errors(calibration: Mapping[str, Any]) -> str:
    text = f"expected error {calibration['expected_error']:.4f}"
    above = calibration["expected_error_above_floor"]
    return text if above is None else f"{text}; {above:.3f} where p ≥ {calibration['floor']:g}"


def _amount(value: float) -> str:
    """Format a number for a reader: three digits below 100, otherwise a whole number with thousands separated."""
    text = f"{value:.3g}" if value and abs(value) < 100 else f"{value:,.0f}".replace(",", "\u202f")
    return text.replace("-", "−")


def _short(name: str, most: int = 24) -> str:
    """Keep the end of a long name: two paths differ at the end more often than at the beginning."""
    return name if len(name) <= most else "…" + name[1 - most :]


@contextmanager
def _chart(*, height: int, rows: int = 1) -> Iterator[tuple[Figure, Any, Tips]]:
    """A figure of this height in pixels with ``rows`` axes from top to bottom, in the report's style, and its tips."""
    with matplotlib.style.context(["default", _STYLE]):
        layout = ConstrainedLayoutEngine(w_pad=3 / 72, h_pad=3 / 72, hspace=0.04)
        figure = Figure(figsize=(_WIDTH / 72, height / 72), layout=layout)
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.subplots(rows, 1, sharex=True)
        for each in np.atleast_1d(axes):
            each.patch.set_alpha(0)
        yield figure, axes, {}


def _point(axes: Axes, tips: Tips, case: str | None, x: float, y: float, text: str) -> None:
    """Draw a point and store its tooltip."""
    gid = f"point-{len(tips)}"
    tips[gid] = (case, text)
    axes.plot([x], [y], "o", color=_BLUE, alpha=0.85, markersize=7, markeredgewidth=0, zorder=3, clip_on=False, gid=gid)


def _legend_above(axes: Axes) -> None:
    """Place the legend above the axes, where it never covers data."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if sum(map(len, labels)) > 36 else len(labels)
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.3, handlelength=1.8,
        columnspacing=1.2, borderpad=0.1,
    )  # fmt: skip


def _dice_axis(axis: Any, values: Sequence[float]) -> None:
    """Set the range of an axis of Dice: from the tenth below the lowest value to 1."""
    lowest = min(max(math.floor(10 * min(values) - 0.3) / 10, 0.0), 0.7)
    axis.axes.set(**{f"{axis.axis_name}lim": (lowest - 0.02 * (1 - lowest), 1 + 0.02 * (1 - lowest))})
    axis.set_ticks(np.round(np.arange(lowest, 1.001, 0.1 if lowest > 0.45 else 0.2 if lowest > 0.05 else 0.25), 3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _fraction_axis(axis: Any) -> None:
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.02, 1.02)})
    axis.set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])


def _volume_axis(axes: Axes, volumes: Sequence[float]) -> None:
    """Make the x axis logarithmic; if there are patients without tumour, it is linear next to 0."""
    positive = [volume for volume in volumes if volume > 0]
    lowest, highest = (min(positive), max(positive)) if positive else (1.0, 1.0)
    subs = _LOG_TICKS if highest / lowest < 30 else (1.0,)
    if min(volumes) > 0:
        axes.set_xscale("log")
        axes.set_xlim(lowest / 1.4, highest * 1.4)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axes.set_xscale("symlog", linthresh=lowest, linscale=0.5)
        axes.set_xlim(-0.15 * lowest, highest * 1.4)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=lowest, subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, tips: Tips, name: str, title: str, description: str) -> str:
    """Write a figure as one ``<svg>`` element for an HTML page.

    Args:
        figure: the figure to write.
        tips: cases and tooltips of its points and other groups, by id.
        name: short name of the chart; all its ids start with it.
        title: title for screen readers.
        description: the numbers of the chart in words, for screen readers.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :].strip()
    for superfluous in (r"<!--.*?-->\n?", r"<metadata>.*?</metadata>\n?", r"<style.*?</style>\n?"):
        body = re.sub(superfluous, "", body, flags=re.DOTALL)  # the style would apply to the whole page
    for drawn, shown in _SHOWN.items():
        body = body.replace(drawn, shown)
    prefix = f"{name}-{hashlib.sha256(repr((body, tips, title, description)).encode()).hexdigest()[:6]}"
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for gid, (case, tip) in tips.items():
        data = "" if case is None else f' data-case="{escape(case)}"'
        group = f'<g id="{prefix}-{gid}"'
        body = body.replace(f"{group}>", f'{group} class="point"{data}><title>{escape(tip)}</title>', 1)
    height = round(figure.get_figheight() * 72)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="chart" role="img" '
        f'aria-labelledby="{prefix}-title" aria-describedby="{prefix}-description" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" '
        'style="max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt">'
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-description">{escape(description)}</desc>{body}'
    )
