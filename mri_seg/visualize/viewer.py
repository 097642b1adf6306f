"""Pack the slices of a case for the slice viewer of the report and of the page of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.html import picture_uri
from mri_seg.visualize.overlays import (
    SHOWN_PERCENTILES,
    draw_contours,
    finite_percentiles,
    head_box,
    scale_to_gray,
)

__all__ = [
    "BOTH",
    "ONLY_PREDICTION",
    "ONLY_REFERENCE",
    "Window",
    "find_window",
    "pack_slices",
    "slice_picture",
    "viewer_box",
    "viewer_settings",
]

ONLY_REFERENCE, ONLY_PREDICTION, BOTH = 1, 4, 6
"""Classes of pixels: 1 to 3 are only in the reference, 4 and 5 only in the prediction; 0 is in neither mask."""

_ATTENTION_STEP = 4  # attention is smooth, so a quarter of the resolution is enough
_CLASS_STEP = 32  # classes 0, 1, 2, ... become gray levels 0, 32, 64, ...: small changes by a browser do no harm
_KEPT_PERCENTILES = (0.0, 99.98)  # wider, so that users can change window and level


class Window(NamedTuple):
    """Intensities of a volume that become gray levels.

    Attributes:
        low: intensity that is kept as gray level 0; lower ones are too.
        high: intensity that is kept as gray level 255; higher ones are too.
        black: intensity that is shown as black at first.
        white: intensity that is shown as white at first.
    """

    low: float
    high: float
    black: float
    white: float


def find_window(image: np.ndarray) -> Window:
    """Choose the intensities of a volume ``(H, W, D)`` that are kept and shown; 8-bit images are kept as they are."""
    low, high, black, white = finite_percentiles(image, (*_KEPT_PERCENTILES, *SHOWN_PERCENTILES))
    if image.dtype == np.uint8:
        low, high = 0.0, 255.0
    return Window(low, max(high, low + 1e-6), black, max(white, black + 1e-6))


def pack_slices(
    case: str,
    image: np.ndarray,
    layers: Mapping[str, np.ndarray],
    box: tuple[slice, slice],
    window: Window,
    *,
    shown: Sequence[str],
    notes: Sequence[str],
    areas: Sequence[tuple[int, int]],
    numbers: Sequence[int] | None = None,
    lines: Sequence[tuple[int, Sequence[Sequence[float]]]] = (),
    pixel_height: float = 1.0,
    webp_quality: int | None = None,
) -> dict[str, Any]:
    """Turn a case into the data that the viewer's script reads.

    Each slice is one or two grayscale pictures. They hold, from top to bottom, the image, the probability and the
    classes, each ``(h, w)``, and then attention at a quarter of the resolution, the gates side by side.

    Args:
        case: name of the case.
        image: intensities ``(H, W, D)``, rows towards posterior, columns towards the patient's left.
        layers: ``probability`` ``(H, W, D)``, uint8 from 0 to 255; ``classes`` ``(H, W, D)``, uint8; and perhaps
            ``attention`` ``(gates, H, W, D)``, uint8.
        box: rows and columns that are packed, from :py:func:`viewer_box`.
        window: intensities of gray levels, from :py:func:`find_window`.
        shown: names of the layers that the viewer offers, of ``reference``, ``prediction``, ``errors``,
            ``probability``, ``attention`` and ``diameters``.
        notes: what the viewer says of each of the D slices.
        areas: pixels of reference and prediction in each of the D slices.
        numbers: numbers of the slices that are packed, from 1; by default all.
        lines: lines over the image: the number of the slice, and the two ends, each row and column in pixels of it.
        pixel_height: height of a pixel divided by its width.
        webp_quality: if given, the image is a WebP picture of this quality, from 0 to 100, which loses detail; the
            other layers are a lossless PNG picture. Otherwise one lossless picture holds all layers.

    Returns:
        sizes in pixels, the intensities shown as black and as white, notes, pixel counts and pictures of each slice.
    """
    low, high = window.low, window.high
    attention = _shrink(layers["attention"][(slice(None), *box)]) if "attention" in layers else None
    numbers = range(1, image.shape[-1] + 1) if numbers is None else numbers
    slices = []
    for n in (number - 1 for number in numbers):
        part = image[(*box, n)].astype(np.float32)
        gray = np.nan_to_num(((part - low) * (255 / (high - low))).round().clip(0, 255)).astype(np.uint8)
        below = [layers["probability"][(*box, n)], layers["classes"][(*box, n)] * _CLASS_STEP]
        gates = None if attention is None else attention[..., n]
        if webp_quality is None:
            slices.append([picture_uri(_stacked([gray, *below], gates))])
        else:
            slices.append(
                [picture_uri(gray, "WEBP", quality=webp_quality, method=2), picture_uri(_stacked(below, gates))]
            )
    rows, columns = box
    return {
        "case": case,
        "width": columns.stop - columns.start,
        "height": rows.stop - rows.start,
        "pixelHeight": round(pixel_height, 4),
        "gates": 0 if attention is None else len(attention),
        "attentionStep": _ATTENTION_STEP,
        "classStep": _CLASS_STEP,
        **window._asdict(),
        "layers": list(shown),
        "total": image.shape[-1],
        "numbers": list(numbers),
        "notes": [notes[number - 1] for number in numbers],
        "areas": [list(areas[number - 1]) for number in numbers],
        "lines": [[number, *_ends_in_box(ends, box)] for number, ends in lines],
        "slices": slices,
    }


def slice_picture(
    image: np.ndarray,
    box: tuple[slice, slice],
    window: Window,
    number: int,
    pred: np.ndarray,
    label: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a slice with its outlines as a viewer shows it at first, for print and for browsers without scripts.

    Args:
        image: intensities ``(H, W, D)``.
        box: rows and columns that are drawn.
        window: intensities of gray levels.
        number: the slice, counted from 1.
        pred: binary prediction ``(H, W, D)``.
        label: binary reference ``(H, W, D)``.

    Returns:
        picture ``(h, w, 3)``, uint8.
    """
    place = (*box, number - 1)
    gray = scale_to_gray(image[place], window.black, window.white)
    masks = [] if label is None else [(label[place], REFERENCE)]
    return draw_contours(gray, [*masks, (pred[place], PREDICTION)])


def viewer_box(image: np.ndarray, masks: np.ndarray, window: Window) -> tuple[slice, slice]:
    """Rows and columns that contain the head and all masks.

    Args:
        image: intensities ``(H, W, D)``.
        masks: where any mask is, ``(H, W, D)``, bool.
        window: intensities of gray levels.
    """
    height, width, _ = image.shape
    head = head_box(scale_to_gray(image, window.black, window.white))
    flat = np.asarray(masks.any(axis=2))
    box = []
    for axis, part, size in ((1, head[0], height), (0, head[1], width)):
        places = np.flatnonzero(flat.any(axis=axis))
        first, last = (places[0], places[-1] + 1) if places.size else (size, 0)
        box.append(slice(int(min(part.start, first)), int(max(min(part.stop, size), last))))
    return box[0], box[1]


def viewer_settings(kinds: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """What the script of the viewer needs once a page: colors, and the kinds of errors with theirs."""
    return {"kinds": list(kinds), "reference": REFERENCE, "prediction": PREDICTION}


def _ends_in_box(ends: Sequence[Sequence[float]], box: tuple[slice, slice]) -> list[float]:
    """Ends (row, column) between centers of pixels as x and y from the corner of the box."""
    rows, columns = box
    return [round(v, 2) for row, column in ends for v in (column + 0.5 - columns.start, row + 0.5 - rows.start)]


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


def _stacked(layers: Sequence[np.ndarray], attention: np.ndarray | None) -> np.ndarray:
    """Stack the layers ``(h, w)`` of a slice from top to bottom, with its attention ``(gates, h / 4, w / 4)`` below."""
    sheet = np.concatenate(layers)
    if attention is not None and len(attention):
        gates = np.concatenate(attention, axis=1)
        width = max(sheet.shape[1], gates.shape[1])
        sheet = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (sheet, gates)])
    return sheet
