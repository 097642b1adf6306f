"""What the slice viewer of the report shows of an evaluated case, and where it opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_seg.report.archive import ArchivedCase
from mri_seg.visualize.html import picture_uri
from mri_seg.visualize.viewer import BOTH, Window, find_window, pack_slices, slice_picture, viewer_box

__all__ = ["key_slice", "pack_case", "poster"]

_LAYERS = ("reference", "prediction", "errors", "probability")


def pack_case(case: ArchivedCase, kinds: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn a case into the data that the viewer's script reads; see :py:func:`mri_seg.visualize.viewer.pack_slices`.

    The class of a pixel is the number of its kind of error, or 0 where reference and prediction agree on no tumour, or
    6 where they agree on tumour. So the classes also encode both masks.

    Args:
        case: the case.
        kinds: kind of error of each pixel ``(H, W, D)``, from :py:func:`mri_seg.report.error_analysis.classify`.
        rows: the case's rows of ``slices.csv``, from the lowest slice.
    """
    window = find_window(case.image)
    has_probability = case.probability.size > 0
    probability = case.probability if has_probability else np.zeros_like(case.pred, np.uint8)
    classes = np.where(case.label & case.pred, BOTH, kinds).astype(np.uint8)
    return pack_slices(
        case.case,
        case.image,
        {"probability": probability, "classes": classes, "attention": case.attention},
        _box(case, window),
        window,
        shown=[
            layer
            for layer in (*_LAYERS, *(["attention"] if len(case.attention) else []))
            if has_probability or layer != "probability"
        ],
        notes=[
            f"reference {row['label_pixels']:,}, prediction {row['pred_pixels']:,} pixels, Dice {row['dice']:.3f}"
            for row in rows
        ],
        areas=[(row["label_pixels"], row["pred_pixels"]) for row in rows],
        pixel_height=case.spacing[0] / case.spacing[1] if case.spacing_known else 1.0,
    )


def poster(case: ArchivedCase, slice_number: int) -> str:
    """Draw the slice at which a viewer opens, with both outlines, for print and for browsers without scripts.

    Args:
        case: the case.
        slice_number: the slice, counted from 1.

    Returns:
        a data URI.
    """
    window = find_window(case.image)
    return picture_uri(slice_picture(case.image, _box(case, window), window, slice_number, case.pred, case.label))


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


def _box(case: ArchivedCase, window: Window) -> tuple[slice, slice]:
    """Rows and columns that contain the head and both masks."""
    return viewer_box(case.image, case.label | case.pred, window)
