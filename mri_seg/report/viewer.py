"""Pack a case for the slice viewer of the report: one small picture per slice holds all its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_seg.report.archive import ArchivedCase
from mri_seg.report.error_analysis import KINDS
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.html import png_base64, png_uri
from mri_seg.visualize.overlays import SHOWN_PERCENTILES, draw_contours, finite_percentiles, gray_levels, head_box

__all__ = ["key_slice", "pack_case", "poster"]

_ATTENTION_STEP = 4  # attention is smooth, so a quarter of the resolution is enough
_CLASS_STEP = 32  # classes 0, 1, 2, ... become gray levels 0, 32, 64, ...: small changes by a browser do no harm
_BOTH = len(KINDS) + 1
_KEPT_PERCENTILES = (0.0, 99.98)  # wider, so that users can change window and level


def pack_case(case: ArchivedCase, kinds: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn a case into the data that the viewer's script reads.

    Each slice is one grayscale PNG. It holds, from top to bottom, the image, the probability and the classes, each
    ``(h, w)``, and then attention at a quarter of the resolution, the gates side by side. A pixel's class is the number
    of its kind of error, or 0 where reference and prediction agree on no tumour, or 6 where they agree on tumour. So
    the classes also encode both masks.

    Args:
        case: the case.
        kinds: kind of error of each pixel ``(H, W, D)``, from :py:func:`mri_seg.report.error_analysis.classify`.
        rows: the case's rows of ``slices.csv``, from the lowest slice.

    Returns:
        sizes in pixels, the intensities shown as black and as white, pixel counts and Dice of each slice, and the
        slices in base64.
    """
    box = _box(case)
    low, high = _kept_range(case.image)
    black, white = finite_percentiles(case.image, SHOWN_PERCENTILES)
    image = case.image[box].astype(np.float32)
    gray = np.nan_to_num(((image - low) * (255 / (high - low))).round().clip(0, 255)).astype(np.uint8)
    attention = _shrink(case.attention[(slice(None), *box)])
    classes = np.where(case.label & case.pred, _BOTH, kinds)[box].astype(np.uint8)
    has_probability = case.probability.size > 0
    probability = case.probability if has_probability else np.zeros_like(case.pred, np.uint8)
    layers = (gray, probability[box], classes * _CLASS_STEP)
    return {
        "case": case.case,
        "width": gray.shape[1],
        "height": gray.shape[0],
        "pixelHeight": round(case.spacing[0] / case.spacing[1], 4) if case.spacing_known else 1,
        "probability": has_probability,
        "gates": len(attention),
        "attentionStep": _ATTENTION_STEP,
        "classStep": _CLASS_STEP,
        "low": low,
        "high": high,
        "black": black,
        "white": max(white, black + 1e-6),
        "rows": [[row["label_pixels"], row["pred_pixels"], round(row["dice"], 4)] for row in rows],
        "slices": [_slice_png([v[..., n] for v in layers], attention[..., n]) for n in range(gray.shape[-1])],
    }


def poster(case: ArchivedCase, slice_number: int) -> str:
    """Draw the slice at which a viewer opens, with both outlines, for print and for browsers without scripts.

    Args:
        case: the case.
        slice_number: the slice, counted from 1.

    Returns:
        a data URI.
    """
    rows, columns = _box(case)
    gray = gray_levels(case.image)[rows, columns, slice_number - 1]
    label, pred = (mask[rows, columns, slice_number - 1] for mask in (case.label, case.pred))
    return png_uri(draw_contours(gray, [(label, REFERENCE), (pred, PREDICTION)]))


def key_slice(rows: Sequence[Mapping[str, Any]]) -> int:
    """Choose the key slice of a case: the one with the most false pixels or, if there are none, the most tumour.

    Args:
        rows: the case's rows of ``slices.csv``.

    Returns:
        number of the slice, counted from 1; the middle slice if the case has no tumour in either mask.
    """

    def false_pixels(row: Mapping[str, Any]) -> int:
        return row["label_pixels"] + row["pred_pixels"] - 2 * row["overlap_pixels"]

    most = max(rows, key=lambda row: (false_pixels(row), row["label_pixels"]))
    if false_pixels(most) or most["label_pixels"]:
        return most["slice"]
    return rows[len(rows) // 2]["slice"]


def _box(case: ArchivedCase) -> tuple[slice, slice]:
    """Rows and columns that contain the head and both masks."""
    height, width, _ = case.image.shape
    head = head_box(gray_levels(case.image))
    masks = (case.label | case.pred).any(axis=2)
    box = []
    for axis, part, size in ((1, head[0], height), (0, head[1], width)):
        places = np.flatnonzero(masks.any(axis=axis))
        first, last = (places[0], places[-1] + 1) if places.size else (size, 0)
        box.append(slice(int(min(part.start, first)), int(max(min(part.stop, size), last))))
    return box[0], box[1]


def _kept_range(image: np.ndarray) -> tuple[float, float]:
    """Intensities that become gray levels 0 and 255; 8-bit images stay as they are."""
    if image.dtype == np.uint8:
        return 0.0, 255.0
    low, high = finite_percentiles(image, _KEPT_PERCENTILES)
    return low, max(high, low + 1e-6)


def _shrink(attention: np.ndarray) -> np.ndarray:
    """Average attention ``(gates, h, w, D)`` over squares of pixels; squares past the edge repeat its last pixels."""
    step = _ATTENTION_STEP
    _, height, width, _ = attention.shape
    if not attention.size:
        return attention
    padded = np.pad(attention, ((0, 0), (0, -height % step), (0, -width % step), (0, 0)), mode="edge")
    gates, height, width, depth = padded.shape
    squares = padded.reshape(gates, height // step, step, width // step, step, depth)
    return squares.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8)


def _slice_png(layers: Sequence[np.ndarray], attention: np.ndarray) -> str:
    """Stack the layers ``(h, w)`` of a slice from top to bottom, with its attention ``(gates, h / 4, w / 4)`` below."""
    sheet = np.concatenate(layers)
    if len(attention):
        gates = np.concatenate(attention, axis=1)
        width = max(sheet.shape[1], gates.shape[1])
        sheet = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (sheet, gates)])
    return png_base64(sheet)
