"""Write a case as one self-contained HTML page: its slices in a viewer, and its measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

import mri_seg
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.html import (
    json_for_script,
    picture_uri,
    script_hash,
    template_environment,
    template_source,
)
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

__all__ = ["case_page", "slices_to_show", "thumbnail_of"]

MOST_PIXELS = 16_000_000
"""Most pixels of all slices on a page; they take about 0.3 bytes each."""

_WEBP_QUALITY = 80
_THUMBNAIL = 96  # pixels, of its longer side
_LEAST_PROBABILITY = 3  # of 255; the viewer shows no less, and zeros take little space

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


def case_page(
    measurements: Mapping[str, Any],
    image: np.ndarray,
    pred: np.ndarray,
    probability: np.ndarray,
    label: np.ndarray | None = None,
    *,
    pixel_height: float = 1.0,
) -> str:
    """Write the HTML page of a case.

    The volumes ``(H, W, D)`` are those of the measurements in axial orientation: rows towards posterior, columns
    towards the patient's left, slices towards superior.

    Args:
        measurements: result of :py:func:`mri_seg.measurements.lesions.measure`. The page also shows the case's flags,
            its input and the versions used, if they are in it: ``flags``, ``input``, ``series_description``,
            ``series_uid``, ``mri_seg_version``, ``checkpoint_sha256``, ``ensemble_sha256``, ``checkpoint_version`` and
            ``checkpoint_date``, expected Dice and interval of volume, and why a lesion is worth a look (``look``).
        image: FLAIR intensities.
        pred: binary prediction.
        probability: probability of tumour, from 0 to 1, calibrated if it can be.
        label: binary reference.
        pixel_height: height of a pixel divided by its width.

    Returns:
        one HTML document that contains the slices and loads nothing from elsewhere. If the volume has more than
        :py:data:`MOST_PIXELS` pixels around the head, some slices are left out, and the page says so.
    """
    lesions = measurements["lesions"]
    pred, label = pred > 0, None if label is None else label > 0
    window = find_window(image)
    box = viewer_box(image, pred if label is None else pred | label, window)
    areas = [(0 if label is None else int(label[..., n].sum()), int(pred[..., n].sum())) for n in range(pred.shape[-1])]
    layers = [] if label is None else ["reference"]
    key = _key_slice(areas)
    numbers = slices_to_show(
        areas,
        [key, *(lesion["measured_slice"] for lesion in lesions)],
        MOST_PIXELS // ((box[0].stop - box[0].start) * (box[1].stop - box[1].start)),
    )
    packed = pack_slices(
        measurements["case"],
        image,
        {"probability": _bytes(probability), "classes": _classes(pred, label)},
        box,
        window,
        shown=[*layers, "prediction", "probability", *(["diameters"] if lesions else [])],
        notes=_notes(measurements, areas, with_reference=label is not None),
        areas=areas,
        numbers=numbers,
        lines=[
            (lesion["measured_slice"], lesion[f"{name}_diameter_ends"])
            for lesion in lesions
            for name in ("longest", "perpendicular")
        ],
        pixel_height=pixel_height,
        webp_quality=_WEBP_QUALITY,
    )
    picture = slice_picture(image, box, window, key, pred, label)
    quantities = [(name, *_unit(units, lesions[0])) for name, units in _QUANTITIES] if lesions else []
    environment = template_environment()
    script = template_source(environment, "viewer.js", "case.js")
    return environment.get_template("case.html").render(
        case=measurements["case"],
        measurements=measurements,
        total=_text(measurements, *_unit(_QUANTITIES[0][1], measurements)),
        longest=_longest(lesions),
        interval=_interval(measurements),
        looks=any(lesion.get("look") for lesion in lesions),
        calibrated="expected_dice" in measurements,
        header=[f"{name} ({unit})" for name, _, unit in quantities],
        rows=[[_text(lesion, key) for _, key, _ in quantities] for lesion in lesions],
        sides=_sides_unit(lesions),
        slices=len(areas),
        left_out=len(areas) - len(numbers),
        key_slice=key,
        packed=json_for_script(packed),
        poster=picture_uri(picture, "WEBP", quality=_WEBP_QUALITY),
        thumbnail=_thumbnail(picture, pixel_height),
        with_reference=label is not None,
        legend=[*([] if label is None else [("reference", REFERENCE)]), ("prediction", PREDICTION)],
        flags=measurements.get("flags", []),
        facts=[(name, value) for name, key in _FACTS if (value := measurements.get(key))],
        weights=[measurements.get("checkpoint_sha256"), *measurements.get("ensemble_sha256", [])],
        version=measurements.get("mri_seg_version", mri_seg.__version__),
        style=template_source(environment, "base.css", "viewer.css", "case.css", "media.css"),
        script=script,
        script_hash=script_hash(script),
        settings_of_script=json_for_script(viewer_settings()),
    )


def thumbnail_of(page: str) -> str | None:
    """The small picture of the key slice on a page of :py:func:`case_page`, a data URI; None if it has none.

    Args:
        page: the page, or its beginning.
    """
    _, mark, rest = page.partition(_ICON)
    uri, end, _ = rest.partition('"')
    return uri if mark and end and uri.startswith("data:image/") else None


_ICON = '<link rel="icon" href="'


def slices_to_show(areas: Sequence[tuple[int, int]], first: Iterable[int], most: int) -> list[int]:
    """Choose the slices of a volume that a page shows.

    Args:
        areas: pixels of reference and prediction in each slice.
        first: numbers of slices, from 1, that are chosen in any case.
        most: maximum number of slices. If there are more, those of ``first`` come first, then those with any mask, then
            the others; those for which there is no room are left out evenly.

    Returns:
        numbers of slices, from 1, in order.
    """
    everything = range(1, len(areas) + 1)
    chosen = set(first)
    for wanted in ([n for n in everything if any(areas[n - 1])], everything):
        rest = [n for n in wanted if n not in chosen]
        room = min(max(most - len(chosen), 0), len(rest))
        chosen |= {rest[(2 * place + 1) * len(rest) // (2 * room)] for place in range(room)}  # middles of equal parts
    return sorted(chosen)


def _key_slice(areas: Sequence[tuple[int, int]]) -> int:
    """The slice, from 1, with the largest predicted area; without one, that of the reference, else the middle."""
    for place in (1, 0):
        sizes = [area[place] for area in areas]
        if max(sizes):
            return sizes.index(max(sizes)) + 1
    return len(areas) // 2 + 1


def _bytes(probability: np.ndarray) -> np.ndarray:
    levels = np.rint(np.nan_to_num(np.asarray(probability, dtype=np.float32)).clip(0, 1) * 255).astype(np.uint8)
    levels[levels < _LEAST_PROBABILITY] = 0
    return levels


def _classes(pred: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    classes = pred.astype(np.uint8) * ONLY_PREDICTION
    if label is not None:
        classes[label] = ONLY_REFERENCE
        classes[label & pred] = BOTH
    return classes


def _notes(measurements: Mapping[str, Any], areas: Sequence[tuple[int, int]], *, with_reference: bool) -> list[str]:
    """What the viewer says of each slice: its areas, and which lesions were measured in it."""
    known = measurements["spacing_known"]
    rows, columns, _ = measurements["spacing_mm"]
    pixel, unit, length = (rows * columns, "mm²", "mm") if known else (1, "pixels", "pixels")

    def area(pixels: int) -> str:
        return f"{pixels * pixel:,.0f} {unit}"

    notes = [
        f"prediction {area(pred)}, reference {area(label)}" if with_reference else area(pred) if pred else "no tumour"
        for label, pred in areas
    ]
    for number, lesion in enumerate(measurements["lesions"], start=1):
        sides = (lesion[f"{name}_diameter_{length}"] for name in ("longest", "perpendicular"))
        name = f"lesion {number}{' (look at this)' if lesion.get('look') else ''}"
        notes[lesion["measured_slice"] - 1] += f"; {name}: {' × '.join(f'{s:,.1f}' for s in sides)} {length}"
    return notes


def _sides_unit(lesions: Sequence[Mapping[str, Any]]) -> str:
    """Unit of the lesions' distances from the midline; empty if they are not known."""
    known = [unit for unit in ("mm", "pixels") if lesions and f"midline_distance_{unit}" in lesions[0]]
    return known[0] if known else ""


def _longest(lesions: Sequence[Mapping[str, Any]]) -> str:
    """The longest diameter of all lesions, with its unit; empty if there are none."""
    if not lesions:
        return ""
    key, unit = _unit(_QUANTITIES[2][1], lesions[0])
    return _text(max(lesions, key=lambda lesion: lesion[key]), key, unit)


def _interval(measurements: Mapping[str, Any]) -> str:
    """The interval of the volume with its unit; empty if there is none."""
    for key, unit in _QUANTITIES[0][1].items():
        if f"{key}_low" in measurements:
            low, high = (f"{measurements[f'{key}_{end}']:,.{1 if unit == 'mL' else 0}f}" for end in ("low", "high"))
            return f"{low} to {high} {unit}"
    return ""


def _thumbnail(picture: np.ndarray, pixel_height: float) -> str:
    """A small picture of square pixels, as a data URI."""
    height, width = picture.shape[0] * pixel_height, picture.shape[1]
    scale = _THUMBNAIL / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    return picture_uri(np.asarray(small), "WEBP", quality=75)


def _unit(units: Mapping[str, str], found: Mapping[str, Any]) -> tuple[str, str]:
    return next((key, unit) for key, unit in units.items() if key in found)


def _text(found: Mapping[str, Any], key: str, unit: str = "") -> str:
    value = found[key]
    whole = isinstance(value, int) or key == "largest_axial_area_pixels"  # a number of pixels, though a float
    return f"{value:,.{0 if whole else 1}f} {unit}".strip()
