"""Write a case as one self-contained HTML page: its slices and its measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mri_seg
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.html import png_uri, template_environment

__all__ = ["case_page"]

_QUANTITIES = (
    ("volume", {"volume_ml": "mL", "volume_voxels": "voxels"}),
    ("largest axial area", {"largest_axial_area_mm2": "mm²", "largest_axial_area_pixels": "pixels"}),
    ("longest diameter", {"longest_diameter_mm": "mm", "longest_diameter_pixels": "pixels"}),
    ("perpendicular", {"perpendicular_diameter_mm": "mm", "perpendicular_diameter_pixels": "pixels"}),
    ("product", {"bidimensional_product_mm2": "mm²", "bidimensional_product_pixels": "pixels²"}),
)

_FACTS = (
    *(("Input", "input"), ("Series", "series_description"), ("SeriesInstanceUID", "series_uid")),
    *(("Weights trained on", "checkpoint_date"), ("Weights trained by version", "checkpoint_version")),
)


def case_page(measurements: Mapping[str, Any], pictures: Sequence[np.ndarray], *, with_reference: bool = False) -> str:
    """Write the HTML page of a case.

    Args:
        measurements: result of :py:func:`mri_seg.measurements.lesions.measure`. The page also shows the case's flags,
            its input and the versions used, if they are in it: ``flags``, ``input``, ``series_description``,
            ``series_uid``, ``mri_seg_version``, ``checkpoint_sha256``, ``ensemble_sha256``, ``checkpoint_version`` and
            ``checkpoint_date``.
        pictures: slices ``(h, w, 3)`` from the lowest, from :py:func:`mri_seg.visualize.overlays.slice_pictures`.
        with_reference: whether the pictures show the outline of a reference.

    Returns:
        one HTML document that contains the pictures and loads nothing from elsewhere.
    """
    lesions = measurements["lesions"]
    quantities = [(name, *_unit(units, lesions[0])) for name, units in _QUANTITIES] if lesions else []
    return (
        template_environment()
        .get_template("case.html")
        .render(
            case=measurements["case"],
            measurements=measurements,
            total=_text(measurements, *_unit(_QUANTITIES[0][1], measurements)),
            header=[f"{name} ({unit})" for name, _, unit in quantities],
            rows=[[_text(lesion, key) for _, key, _ in quantities] for lesion in lesions],
            pictures=[png_uri(picture, compress_level=3) for picture in pictures],
            width=pictures[0].shape[1],
            height=pictures[0].shape[0],
            legend=[("prediction", PREDICTION)] + ([("reference", REFERENCE)] if with_reference else []),
            flags=measurements.get("flags", []),
            facts=[(name, value) for name, key in _FACTS if (value := measurements.get(key))],
            weights=[measurements.get("checkpoint_sha256"), *measurements.get("ensemble_sha256", [])],
            version=measurements.get("mri_seg_version", mri_seg.__version__),
        )
    )


def _unit(units: Mapping[str, str], found: Mapping[str, Any]) -> tuple[str, str]:
    return next((key, unit) for key, unit in units.items() if key in found)


def _text(found: Mapping[str, Any], key: str, unit: str = "") -> str:
    value = found[key]
    return f"{value:,.1f} {unit}".strip() if isinstance(value, float) else f"{value:,} {unit}".strip()
