"""Classify the errors of a prediction, count them, and find the false and the missed lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from mri_seg.measurements.lesions import label_lesions
from mri_seg.report.archive import ArchivedCase
from mri_seg.transforms.volume import foreground_mask, median_and_spread

__all__ = ["BORDER", "KINDS", "classify", "count", "false_lesions", "missed_lesions"]

KINDS: dict[str, str] = {
    "border_missed": "tumour missed at the border",
    "inside_missed": "tumour missed inside",
    "lesion_missed": "whole lesions missed",
    "border_false_positive": "prediction spilled over the border",
    "false_lesion": "separate false lesions",
}
"""Kinds of errors, numbered from 1 in this order, with their names in the report."""

BORDER = 3.0
"""Width of the reference's border: maximum distance to a pixel outside it, in pixels within the slice."""


def classify(case: ArchivedCase) -> np.ndarray:
    """Assign a kind to every false pixel.

    Lesions are 26-connected components of the whole volume. If a lesion of the reference has no overlap with the
    prediction, the whole lesion is missed. In the other lesions, a missed pixel is at the border if a pixel outside the
    reference is at most :py:data:`BORDER` pixels away in the same slice; otherwise it is inside. Everything beyond the
    edge of the image counts as outside. If a predicted lesion has no overlap with the reference, the whole lesion is
    false, even if it touches the reference. The false pixels of the other predicted lesions are border false positives.

    Args:
        case: case with reference and prediction ``(H, W, D)``.

    Returns:
        kinds ``(H, W, D)``, uint8: 0 where prediction and reference agree, n for the n-th of :py:data:`KINDS`.
    """
    number = {kind: n for n, kind in enumerate(KINDS, start=1)}
    label, pred = case.label, case.pred
    missed, false = label & ~pred, pred & ~label
    kinds = np.zeros(label.shape, dtype=np.uint8)
    kinds[missed] = number["inside_missed"]
    kinds[missed & _border(label)] = number["border_missed"]
    kinds[false] = number["border_false_positive"]
    for kind, mask, other in (("lesion_missed", label, pred), ("false_lesion", pred, label)):
        for box, lesion in _separate_lesions(mask, other):
            kinds[box][lesion] = number[kind]
    return kinds


def count(case: ArchivedCase, kinds: np.ndarray | None = None) -> dict[str, Any]:
    """Count the errors of a case.

    Args:
        case: case with reference and prediction ``(H, W, D)``.
        kinds: kind of each false pixel, if :py:func:`classify` has found them already.

    Returns:
        ``case``, the pixels of each of :py:data:`KINDS`, and ``label_pixels``, ``pred_pixels``, ``overlap_pixels``
        over all slices. The kinds add up to ``label_pixels + pred_pixels - 2 * overlap_pixels``.
    """
    kinds = classify(case) if kinds is None else kinds
    pixels = np.bincount(kinds.ravel(), minlength=len(KINDS) + 1)[1:]
    return {
        "case": case.case,
        **dict(zip(KINDS, pixels.tolist())),
        "label_pixels": int(case.label.sum()),
        "pred_pixels": int(case.pred.sum()),
        "overlap_pixels": int((case.label & case.pred).sum()),
    }


def false_lesions(case: ArchivedCase) -> list[dict[str, Any]]:
    """Describe the predicted lesions that have no overlap with the reference.

    Args:
        case: case with image, reference and prediction ``(H, W, D)``.

    Returns:
        one row per lesion, the largest first: ``case``; ``pixels`` over all slices; ``slice`` in which it has the most
        pixels (the lowest is 1); ``row`` and ``column``, from 0, of the pixel nearest to its center in that slice;
        ``brightness``: robust z-score of its mean intensity against the volume's healthy tissue (median 0,
        interquartile range / 1.349 = 1), None if the healthy tissue does not vary. Healthy tissue is the foreground as
        in :py:func:`~mri_seg.transforms.volume.foreground_mask`, without reference and prediction.
    """
    return _describe(case, _separate_lesions(case.pred, case.label))


def missed_lesions(case: ArchivedCase) -> list[dict[str, Any]]:
    """Describe the lesions of the reference that have no overlap with the prediction.

    Args:
        case: case with image, reference and prediction ``(H, W, D)``.

    Returns:
        one row per lesion, the largest first, with the same entries as :py:func:`false_lesions`.
    """
    return _describe(case, _separate_lesions(case.label, case.pred))


def _separate_lesions(mask: np.ndarray, other: np.ndarray) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """Find the lesions of a mask that do not overlap another mask: the box around each, and its mask in that box."""
    lesions, _ = label_lesions(mask)
    found = [(box, lesions[box] == n) for n, box in enumerate(ndimage.find_objects(lesions), start=1)]
    return [(box, lesion) for box, lesion in found if not other[box][lesion].any()]


def _border(label: np.ndarray) -> np.ndarray:
    """Pixels of the reference that have a pixel outside it at most ``BORDER`` pixels away in the same slice."""
    reach = int(BORDER)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (rows**2 + columns**2 <= BORDER**2)[..., None]
    border = label.copy()
    for box in ndimage.find_objects(label.astype(np.uint8)):
        border[box] &= ~ndimage.binary_erosion(label[box], disc)
    return border


def _describe(case: ArchivedCase, lesions: list[tuple[tuple[slice, ...], np.ndarray]]) -> list[dict[str, Any]]:
    if not lesions:
        return []
    healthy = _healthy_tissue(case)
    rows = []
    for box, lesion in lesions:
        depth = int(lesion.sum(axis=(0, 1)).argmax())
        row, column = _central_pixel(lesion[..., depth])
        rows.append(
            {
                "case": case.case,
                "pixels": int(lesion.sum()),
                "slice": box[2].start + depth + 1,
                "row": box[0].start + row,
                "column": box[1].start + column,
                "brightness": _z_score(case.image[box][lesion], healthy),
            }
        )
    return sorted(rows, key=lambda row: -row["pixels"])


def _central_pixel(lesion: np.ndarray) -> tuple[int, int]:
    """Pixel of a lesion ``(H, W)`` nearest to its center; the center of a crescent may itself lie outside it."""
    pixels = np.argwhere(lesion)
    row, column = pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return row, column


def _healthy_tissue(case: ArchivedCase) -> np.ndarray:
    """Intensities of the foreground outside both reference and prediction."""
    image = case.image.astype(np.float32)
    return image[foreground_mask(image) & ~case.label & ~case.pred]


def _z_score(intensities: np.ndarray, healthy: np.ndarray) -> float | None:
    """Robust z-score of the mean intensity: its distance from the median of healthy tissue, in units of the spread."""
    intensities = intensities[np.isfinite(intensities)]
    if not healthy.size or not intensities.size:
        return None
    median, spread = median_and_spread(healthy)
    return float((intensities.mean(dtype=float) - median) / spread) if spread > 0 else None
