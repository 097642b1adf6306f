"""Write the timeline of a patient as one self-contained HTML page: curves, all scans at the same place, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import mri_seg
from mri_seg.follow_up.curve import growth_curve
from mri_seg.follow_up.overlay import to_axial
from mri_seg.follow_up.rano import LIMITS, VERSION
from mri_seg.follow_up.sentences import change_text, error_text, registration_text, scan_label, speed_text, summary
from mri_seg.follow_up.tables import NO_PAIRS
from mri_seg.follow_up.timeline import QUANTITIES, Estimate, Timeline
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.utils.orientation import AXIAL
from mri_seg.visualize.case_page import slices_to_show
from mri_seg.visualize.html import json_for_script, picture_uri, script_hash, template_environment, template_source
from mri_seg.visualize.viewer import (
    BOTH,
    ONLY_PREDICTION,
    ONLY_REFERENCE,
    find_window,
    pack_slices,
    slice_picture,
    viewer_box,
    viewer_settings,
)

__all__ = ["timeline_page"]

MOST_PIXELS = 24_000_000
"""Most pixels of all slices of all scans on a page; they take about 0.3 bytes each."""

_WEBP_QUALITY = 75


def timeline_page(timeline: Timeline) -> str:
    """Write the HTML page of a patient.

    Args:
        timeline: the patient over time.

    Returns:
        one HTML document that contains all scans in the place of the first and loads nothing from elsewhere.
    """
    environment = template_environment()
    script = template_source(environment, "viewer.js", "timeline.js")
    scans, total = _scans(timeline)
    return environment.get_template("timeline.html").render(
        patient=timeline.patient,
        summary=summary(timeline),
        flags=timeline.flags,
        charts=[
            _chart(timeline, "mean_diameter", "Mean tumour diameter", "in mm: the cube root of twice the volume"),
            _chart(timeline, "volume", "Volume", "in mL"),
        ],
        scans=scans,
        slices=total,
        left_out=total - len(scans[0]["numbers"]),
        rows=[_row(timeline, number) for number in range(len(timeline.points))],
        lesions=[_lesion(timeline, number) for number in range(len(timeline.lesions))],
        names=[scan_label(timeline, number) for number in range(len(timeline.points))],
        velocities=[_velocity(timeline, number) for number in range(len(timeline.velocities))],
        legend=[("this scan", PREDICTION), ("baseline, at the same place", REFERENCE)],
        version_of_rano=VERSION,
        limits=LIMITS,
        note=NO_PAIRS,
        repeatability=timeline.repeatability,
        measurement_error=error_text(timeline.repeatability),
        version=mri_seg.__version__,
        weights=str(timeline.settings.get("checkpoint_sha256") or "")[:12],
        style=template_source(environment, "base.css", "viewer.css", "case.css", "timeline.css", "media.css"),
        script=script,
        script_hash=script_hash(script),
        settings_of_script=json_for_script(viewer_settings()),
    )


def _chart(timeline: Timeline, quantity: str, title: str, about: str) -> tuple[str, str]:
    """The curve of a quantity, and what is written below it."""
    found = timeline.velocities[-1].get(quantity) if timeline.velocities else None
    line = ""
    if found is not None:
        since = f" since {scan_label(timeline, timeline.epoch(timeline.points[-1].epoch)[0])}"
        several = since if len(timeline.velocities) > 1 else ""
        line = f" Dashed: the fitted line,{several} {speed_text(found, QUANTITIES[quantity])}."
    return growth_curve(timeline, quantity, title), f"{title} {about}. Bars: 95 % intervals of the measurement.{line}"


def _velocity(timeline: Timeline, epoch: int) -> dict[str, str]:
    numbers = timeline.epoch(epoch)
    first, last = scan_label(timeline, numbers[0]), scan_label(timeline, numbers[-1])
    found = timeline.velocities[epoch]
    return {
        "span": first if first == last else f"{first} to {last}",
        "diameter": speed_text(found["mean_diameter"], "mm") if "mean_diameter" in found else "",
        "volume": speed_text(found["volume"], "mL") if "volume" in found else "",
    }


def _row(timeline: Timeline, number: int) -> dict[str, Any]:
    point, response = timeline.points[number], timeline.responses[number]
    changes = {change.against: change for change in timeline.changes if change.last == number}
    baseline = changes.get("baseline")
    return {
        "label": scan_label(timeline, number),
        "case": point.case,
        "event": point.scan.event,
        "registration": registration_text(point.quality) if number else "",
        "values": [_estimate(point.values[name], unit) for name, unit in QUANTITIES.items()],
        "changes": [
            change_text(changes[against]) if against in changes else "" for against in ("baseline", "previous")
        ],
        "voxels": [] if baseline is None else [f"{ml:.1f}" for ml in baseline.voxels_ml.values()],
        "response": "baseline" if response is None else response.category,
        "reason": "" if response is None else response.reason,
    }


def _estimate(estimate: Estimate, unit: str) -> tuple[str, str]:
    digits = 0 if unit == "mm2" else 1
    return f"{estimate.value:,.{digits}f}", f"{estimate.low:,.{digits}f} to {estimate.high:,.{digits}f}"


def _lesion(timeline: Timeline, number: int) -> dict[str, Any]:
    lesion = timeline.lesions[number]
    return {
        "number": lesion.number,
        "volumes": [
            "none" if values is None else f"{values['volume'].value:.1f}" + (f" in {parts} parts" if parts > 1 else "")
            for values, parts in zip(lesion.values, lesion.parts, strict=True)
        ],
        "new": "" if lesion.new_at is None else scan_label(timeline, lesion.new_at),
        "velocity": "" if lesion.velocity is None else speed_text(lesion.velocity, "mm"),
    }


def _scans(timeline: Timeline) -> tuple[list[dict[str, Any]], int]:
    """The scans as the viewers take them, all with the same slices and box; and the number of slices."""
    affine = timeline.points[0].scan.affine
    images = [to_axial(point.image, affine) for point in timeline.points]
    masks = [to_axial(point.mask, affine) for point in timeline.points]
    windows = [find_window(image) for image in images]
    boxes = [viewer_box(image, mask, window) for image, mask, window in zip(images, masks, windows, strict=True)]
    box = (_hull([rows for rows, _ in boxes]), _hull([columns for _, columns in boxes]))
    depth = images[0].shape[-1]
    areas = np.array([mask.sum(axis=(0, 1)) for mask in masks])
    key = int(areas.sum(axis=0).argmax()) + 1 if areas.any() else depth // 2 + 1
    pixels = (box[0].stop - box[0].start) * (box[1].stop - box[1].start) * len(images)
    numbers = slices_to_show([(0, int(area)) for area in areas.sum(axis=0)], [key], max(MOST_PIXELS // pixels, 1))
    rows, columns = _in_plane(affine)
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    scans = []
    for n, point in enumerate(timeline.points):
        baseline = masks[timeline.epoch(point.epoch)[0]]
        pairs = [(int(baseline[..., k].sum()), int(masks[n][..., k].sum())) for k in range(depth)]
        packed = pack_slices(
            scan_label(timeline, n),
            images[n],
            {"probability": np.zeros(masks[n].shape, dtype=np.uint8), "classes": _classes(masks[n], baseline)},
            box,
            windows[n],
            shown=["reference", "prediction"],
            notes=[f"{own * voxel:.1f} mL" if own else "no tumour" for _, own in pairs],
            areas=pairs,
            numbers=numbers,
            pixel_height=rows / columns,
            webp_quality=_WEBP_QUALITY,
        )
        picture = slice_picture(images[n], box, windows[n], key, masks[n], baseline)
        scans.append(
            {
                "label": scan_label(timeline, n),
                "case": point.case,
                "event": point.scan.event,
                "is_baseline": timeline.responses[n] is None,
                "key": key,
                "numbers": numbers,
                "packed": json_for_script(packed),
                "poster": picture_uri(picture, "WEBP", quality=_WEBP_QUALITY),
            }
        )
    return scans, depth


def _in_plane(affine: np.ndarray) -> tuple[float, float]:
    """Distance of rows and of columns of the axial slices of a grid, in mm."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(AXIAL)))
    steps = np.empty(3)
    steps[turn[:, 0].astype(int)] = voxel_sizes(affine)
    return float(steps[0]), float(steps[1])


def _hull(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))


def _classes(mask: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    classes = mask.astype(np.uint8) * ONLY_PREDICTION
    classes[baseline] = ONLY_REFERENCE
    classes[baseline & mask] = BOTH
    return classes
