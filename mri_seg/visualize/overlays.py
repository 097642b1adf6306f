"""Draw slices with contours: contact sheets, panels in the published style, attention maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from mri_seg.utils.colors import PREDICTION, REFERENCE, Color
from mri_seg.utils.files import atomic_write

__all__ = [
    "SHOWN_PERCENTILES",
    "attention_overlay",
    "contact_sheet",
    "contours",
    "draw_contours",
    "finite_percentiles",
    "gray_levels",
    "head_box",
    "panel",
    "save_png",
    "scale_to_gray",
    "slice_pictures",
    "tile",
]

SHOWN_PERCENTILES = (1.0, 99.7)
"""Percentiles of a volume that pictures show as black and white."""

_PANEL_MASK: Color = (150, 150, 150)
_PANEL_PREDICTION: Color = (255, 255, 0)
_GAP = 4  # pixels between slices


def finite_percentiles(volume: np.ndarray, percentiles: Sequence[float]) -> tuple[float, ...]:
    """Percentiles of the finite values of a volume; NaN often marks the outside of the brain and has no gray level.

    Args:
        volume: intensities of any shape.
        percentiles: the percentiles, 0 to 100.

    Returns:
        a value for each; 0 if no value of the volume is finite.
    """
    finite = volume[np.isfinite(volume)]
    return tuple(np.percentile(finite, percentiles).tolist() if finite.size else (0.0 for _ in percentiles))


def gray_levels(volume: np.ndarray, percentiles: tuple[float, float] = SHOWN_PERCENTILES) -> np.ndarray:
    """Map intensities to gray levels, with the same window for every slice of a volume.

    Args:
        volume: intensities of any unit and shape.
        percentiles: percentiles of the volume's finite values that are shown as black and as white.

    Returns:
        gray levels 0 to 255 of the same shape, uint8; NaN and minus infinity are black, infinity is white.
    """
    return scale_to_gray(volume, *finite_percentiles(volume, percentiles))


def scale_to_gray(intensities: np.ndarray, black: float, white: float) -> np.ndarray:
    """Map intensities to gray levels between two of them.

    Args:
        intensities: array of any shape.
        black: intensity of gray level 0; lower ones are black too.
        white: intensity of gray level 255; higher ones are white too.

    Returns:
        gray levels of the same shape, uint8; NaN is black.
    """
    scaled = (np.asarray(intensities, dtype=np.float32) - black) / max(white - black, 1e-6)
    return (np.nan_to_num(scaled.clip(0, 1)) * 255).astype(np.uint8)


def contours(masks: np.ndarray) -> np.ndarray:
    """Find the outlines of masks, one pixel wide and inside the mask.

    Args:
        masks: binary slices ``(..., H, W)``.

    Returns:
        bool array of the same shape: true on pixels of the mask that have one of their 4 neighbors outside it.
    """
    mask = np.asarray(masks) > 0
    cross = ndimage.generate_binary_structure(2, 1).reshape((1,) * (mask.ndim - 2) + (3, 3))
    return mask & ~ndimage.binary_erosion(mask, cross)


def draw_contours(gray: np.ndarray, masks: Sequence[tuple[np.ndarray, Color]]) -> np.ndarray:
    """Draw outlines of masks over a gray slice, later ones on top.

    Args:
        gray: grey levels ``(H, W)``.
        masks: binary masks ``(H, W)`` with the colour of each.

    Returns:
        picture ``(H, W, 3)``, uint8.
    """
    picture = np.repeat(gray[..., None], 3, axis=-1)
    for mask, color in masks:
        picture[contours(mask)] = color
    return picture


def attention_overlay(gray: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Show attention over a gray slice: dark blue where it is weakest, yellow where it is strongest.

    Args:
        gray: grey levels ``(H, W)``.
        coefficients: attention coefficients ``(H, W)`` from 0 to 1; they are stretched to the range of the slice.

    Returns:
        picture ``(H, W, 3)``, uint8.
    """
    low, high = finite_percentiles(coefficients, (0, 100))
    scaled = np.nan_to_num(((coefficients - low) / max(high - low, 1e-6)).clip(0, 1))
    # Between the ends of the cividis colour map, which reads the same for colour-blind people.
    weak, strong = np.array([0, 34, 78]), np.array([254, 232, 56])
    heat = weak + scaled[..., None] * (strong - weak)
    return (0.45 * gray[..., None] + 0.55 * heat).astype(np.uint8)


def head_box(gray: np.ndarray, margin: int = 4) -> tuple[slice, slice]:
    """Rows and columns that contain the head in any slice, with a margin in pixels.

    Args:
        gray: grey levels ``(H, W, D)``.
        margin: number of pixels kept around the head.
    """
    bright = (gray > 25).mean(axis=2) > 0.05  # in one slice of twenty or more: the head, not noise in the air
    box = []
    for axis in (1, 0):
        places = np.flatnonzero(bright.any(axis=axis))
        first, last = (places[0], places[-1]) if places.size else (0, bright.shape[1 - axis] - 1)
        box.append(slice(max(first - margin, 0), last + margin + 1))
    return box[0], box[1]


def tile(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arrange pictures ``(H, W, 3)`` of one size in rows on a black background."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    sheet = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), dtype=np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def slice_pictures(volume: np.ndarray, pred: np.ndarray, label: np.ndarray | None = None) -> list[np.ndarray]:
    """Draw each slice of a volume, from the lowest, with the outlines of the prediction and, if given, the reference.

    Args:
        volume: FLAIR intensities ``(H, W, D)``, rows anterior to posterior, columns right to left.
        pred: binary prediction ``(H, W, D)``.
        label: binary reference ``(H, W, D)``.

    Returns:
        D pictures ``(h, w, 3)``, uint8, at the resolution of the volume, cropped to the head.
    """
    gray = gray_levels(volume)
    rows, columns = head_box(gray)
    pictures = []
    for n in range(volume.shape[-1]):
        masks = [] if label is None else [(label[rows, columns, n], REFERENCE)]
        pictures.append(draw_contours(gray[rows, columns, n], [*masks, (pred[rows, columns, n], PREDICTION)]))
    return pictures


def contact_sheet(pictures: Sequence[np.ndarray], *, with_reference: bool = False) -> np.ndarray:
    """Arrange the slices of a volume on one sheet, numbered from 1, with a legend.

    Args:
        pictures: the slices ``(h, w, 3)`` from :py:func:`slice_pictures`.
        with_reference: whether the pictures show the outline of a reference.

    Returns:
        picture ``(H, W, 3)``, uint8.
    """
    height, width = pictures[0].shape[:2]
    across = max(round(math.sqrt(1.5 * len(pictures) * height / width)), 1)
    numbered = [_write(picture, str(n + 1)) for n, picture in enumerate(pictures)]
    legend = [("prediction", PREDICTION)] + ([("reference", REFERENCE)] if with_reference else [])
    return _with_legend(tile(numbered, min(across, len(pictures))), legend)


def panel(volume: np.ndarray, pred: np.ndarray, label: np.ndarray, rows: int = 4) -> np.ndarray:
    """Draw slices in the style of the published baseline: image, manual mask, and both masks over the image.

    Args:
        volume: FLAIR intensities ``(H, W, D)``.
        pred: binary prediction ``(H, W, D)``, yellow.
        label: binary reference ``(H, W, D)``, gray.
        rows: number of slices to show, spread evenly over the slices with tumour in the reference; if there are none,
            over those with tumour in the prediction.

    Returns:
        picture ``(h, w, 3)``, uint8, with one row per slice.
    """
    gray = gray_levels(volume)
    candidates = [np.flatnonzero((mask > 0).any(axis=(0, 1))) for mask in (label, pred)]
    tumor = next((places for places in candidates if places.size), np.array([volume.shape[-1] // 2]))
    shown = min(rows, tumor.size)
    places = tumor[((np.arange(shown) + 0.5) * tumor.size / shown).astype(int)]  # the middle of each of equal parts
    pictures = []
    for n in places:
        image = np.repeat(gray[..., n, None], 3, axis=-1)
        mask = np.repeat((label[..., n, None] > 0).astype(np.uint8) * 255, 3, axis=-1)
        overlay = image.astype(np.float32)
        # Gray comes first and is nearly opaque, so that missed tumour stands out on bright tissue.
        for part, color, opacity in ((label, _PANEL_MASK, 0.85), (pred, _PANEL_PREDICTION, 0.6)):
            inside = part[..., n] > 0
            overlay[inside] = (1 - opacity) * overlay[inside] + opacity * np.array(color)
        pictures += [_write(image, str(n + 1)), mask, overlay.astype(np.uint8)]
    return _with_legend(tile(pictures, 3), [("manual mask", _PANEL_MASK), ("prediction", _PANEL_PREDICTION)])


def save_png(path: PathLike | str, picture: np.ndarray) -> None:
    """Write a picture ``(H, W, 3)`` as PNG; a partly written file is never left."""
    with atomic_write(path) as unfinished:
        Image.fromarray(picture).save(
            unfinished, format="PNG", compress_level=3
        )  # higher ones take much longer and save little


def _write(picture: np.ndarray, text: str, place: tuple[int, int] = (3, 2)) -> np.ndarray:
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text(place, text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def _with_legend(sheet: np.ndarray, entries: Sequence[tuple[str, Color]]) -> np.ndarray:
    bar = Image.new("RGB", (sheet.shape[1], 18))
    draw, left = ImageDraw.Draw(bar), 4
    for text, color in entries:
        draw.rectangle((left, 5, left + 9, 14), fill=color)
        draw.text((left + 14, 3), text, fill=(255, 255, 255))
        left += 30 + int(draw.textlength(text))
    return np.concatenate([np.asarray(bar), sheet])
