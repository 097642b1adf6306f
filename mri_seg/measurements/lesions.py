"""Measure the lesions of a mask: number, volume, position, largest area and diameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from mri_seg.measurements.diameters import measure_in_plane
from mri_seg.utils.orientation import AXIAL

__all__ = ["bounding_box", "label_lesions", "mean_diameter", "measure", "slice_axis", "summary_row"]


PLAIN_SPACING = (0.94, 0.94, 5.0)
"""Spacing of rows, columns and slices in mm that stands in for one that is not known, where lesions are judged."""

UNCERTAIN = (0.3, 0.7)
"""Range of probabilities that count as uncertain: at least the first, below the second."""


def measure(
    mask: np.ndarray,
    affine: np.ndarray,
    *,
    case: str = "",
    probability: np.ndarray | None = None,
    midline: Sequence[float] | np.ndarray | None = None,
    spacing_known: bool = True,
    slice_spacing_known: bool = True,
) -> dict[str, Any]:
    """Measure the lesions of a mask.

    Slices are axial: the volume is first reoriented so that its axes are those closest to posterior, left and superior.
    Slices are counted from the lowest, which is 1. A lesion is a 26-connected component of the mask. Its diameters are
    taken in the slice where their product is largest. This is RANO's bidimensional product (Wen et al., J Clin Oncol
    2010; measured automatically by Chang et al., Neuro-Oncology 2019, AutoRANO); see
    :py:func:`~mri_seg.measurements.diameters.diameters`. Lesions of all sizes are measured; the reader decides which of
    them are measurable by RANO.

    If a spacing is not known, values that need it are replaced by counts. If the pixel size is not known, these are
    ``volume_voxels``, ``centroid_voxels`` (row, column and slice in the input array, from 0),
    ``largest_axial_area_pixels``, ``longest_diameter_pixels``, ``perpendicular_diameter_pixels`` and
    ``bidimensional_product_pixels``. If only the distance between slices is not known, these are ``volume_voxels`` and
    ``centroid_voxels``; values within the plane stay in mm.

    Args:
        mask: binary mask ``(H, W, D)`` in any orientation.
        affine: matrix ``(4, 4)`` from voxels to RAS coordinates in mm.
        case: name of the case.
        probability: probability of lesion, with the shape of the mask.
        midline: the plane between the hemispheres ``(4,)``: its product with a RAS point in mm and 1 is the distance
            from the plane to the patient's left.
        spacing_known: whether the pixel size of the affine is real.
        slice_spacing_known: whether the distance between slices of the affine is real.

    Returns:
        ``case``, ``spacing_known``, ``slice_spacing_known``; ``spacing_mm``: distance between rows, columns and slices
        in axial orientation, None if unknown; ``volume_ml`` and ``lesion_count``; ``mean_foreground_probability``: mean
        over the voxels of the mask; ``uncertain_share``: fraction below 0.7 among the voxels with a probability of at
        least 0.3 (these two are None without a probability, or if there are no such voxels); and ``lesions``, the
        largest first, each with ``volume_ml``, ``centroid_lps_mm`` (x, y, z as in DICOM), ``largest_axial_area_mm2``,
        ``longest_diameter_mm``, ``perpendicular_diameter_mm``, ``bidimensional_product_mm2``, ``measured_slice`` (the
        slice with these diameters), ``longest_diameter_ends`` and ``perpendicular_diameter_ends`` (the two ends, each
        row and column in pixels of the axial slice, where (0, 0) is the center of its first pixel), ``first_slice``,
        ``last_slice`` and ``slices`` (their number), and with a probability ``mean_probability`` in the lesion. If
        ``midline`` is given, also ``side`` (``left`` or ``right`` of the patient; ``both`` if a tenth of its voxels or
        more lies on either side) and ``midline_distance_mm`` or ``midline_distance_pixels``, that of its nearest voxel,
        0 for both sides.

    Raises:
        ValueError: when mask, affine or probability does not have such a shape, or the affine cannot be inverted.

    Example::

        >>> mask = np.zeros((20, 20, 5), dtype=bool)
        >>> mask[5:15, 8, 2] = True
        >>> lesion = measure(mask, np.diag([2.0, 2.0, 5.0, 1.0]))["lesions"][0]
        >>> lesion["longest_diameter_mm"], lesion["perpendicular_diameter_mm"], lesion["measured_slice"]
        (20.0, 2.0, 3)
    """
    mask, affine = np.asarray(mask) > 0, np.asarray(affine, dtype=float)
    _check(mask, affine, probability)
    axial, to_input = _to_axial(mask, affine)
    certainty = None if probability is None else _to_axial(np.asarray(probability), affine)[0]
    to_ras = affine @ to_input
    spacing = voxel_sizes(to_ras)
    volume_known = spacing_known and slice_spacing_known
    volume = ("volume_ml", abs(float(np.linalg.det(affine[:3, :3]))) / 1000) if volume_known else ("volume_voxels", 1)
    plane = spacing[:2] if spacing_known else np.ones(2)
    units = ("mm", "mm2") if spacing_known else ("pixels", "pixels")

    labels, count = label_lesions(axial)
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        lesion, origin = labels[box] == number, np.array([axis.start for axis in box])
        centroid = origin + np.array(ndimage.center_of_mass(lesion))
        row: dict[str, Any] = {volume[0]: int(lesion.sum()) * volume[1]}
        if volume_known:
            row["centroid_lps_mm"] = (apply_affine(to_ras, centroid) * (-1, -1, 1)).tolist()
        else:
            row["centroid_voxels"] = apply_affine(to_input, centroid).tolist()
        row |= measure_in_plane(lesion, plane, units, (int(origin[0]), int(origin[1])))
        row["measured_slice"] += int(origin[2])
        if midline is not None:
            row |= _side(apply_affine(to_ras, np.argwhere(lesion) + origin), np.asarray(midline, dtype=float), units[0])
        first, last = box[2].start + 1, box[2].stop
        row |= {"first_slice": first, "last_slice": last, "slices": last - first + 1}
        if certainty is not None:
            row["mean_probability"] = float(certainty[box][lesion].mean(dtype=np.float64))
        lesions.append(row)
    lesions.sort(key=lambda lesion: -lesion[volume[0]])

    known = (spacing_known, spacing_known, slice_spacing_known)
    return {
        "case": case,
        "spacing_known": bool(spacing_known),
        "slice_spacing_known": bool(slice_spacing_known),
        "spacing_mm": [float(s) if k else None for s, k in zip(spacing, known)],
        volume[0]: int(mask.sum()) * volume[1],
        "lesion_count": count,
        **_certainty(mask, probability),
        "lesions": lesions,
    }


def label_lesions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the lesions of a mask: components whose voxels touch at a face, an edge or a corner (26 neighbors).

    Args:
        mask: binary mask ``(H, W, D)``.

    Returns:
        labels of the same shape, int32, 0 outside lesions; and the number of lesions.
    """
    mask = np.asarray(mask) > 0
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim), output=labels[box])
    return labels, int(count)


def mean_diameter(volume: float) -> float:
    """Mean tumour diameter in mm of a volume in mL: the cube root of twice the volume.

    Source: Pallud et al., Prognostic value of initial magnetic resonance imaging growth rates for World Health
    Organization grade II gliomas, Annals of Neurology 60 (2006).

    Args:
        volume: volume in mL.
    """
    return float(np.cbrt(2000 * volume))


def slice_axis(affine: np.ndarray) -> int:
    """Find the axis of a volume (0 to 2) that is closest to superior: the one along which axial slices are stacked.

    Args:
        affine: matrix ``(4, 4)`` from voxels to RAS coordinates.
    """
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == 2)[0])


def _side(points: np.ndarray, midline: np.ndarray, unit: str) -> dict[str, Any]:
    """Side of a lesion, and its distance from the plane between the hemispheres."""
    to_left = points @ midline[:3] + midline[3]
    left = float((to_left > 0).mean())
    both = _BOTH_SIDES <= left <= 1 - _BOTH_SIDES
    side = "both" if both else "left" if left > 0.5 else "right"
    own = to_left[to_left > 0] if side == "left" else -to_left[to_left <= 0]
    return {"side": side, f"midline_distance_{unit}": 0.0 if both else float(own.min())}


_BOTH_SIDES = 0.1
"""Fraction of a lesion's voxels on the smaller side from which it lies on both."""

_LESION_COLUMNS = (
    "volume_ml",
    "volume_voxels",
    "largest_axial_area_mm2",
    "largest_axial_area_pixels",
    "longest_diameter_mm",
    "longest_diameter_pixels",
    "perpendicular_diameter_mm",
    "perpendicular_diameter_pixels",
    "bidimensional_product_mm2",
    "bidimensional_product_pixels",
    "measured_slice",
    "first_slice",
    "last_slice",
    "slices",
    "side",
    "midline_distance_mm",
    "midline_distance_pixels",
)


_CENTROID_COLUMNS = {
    "centroid_lps_mm": ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"),
    "centroid_voxels": ("centroid_row", "centroid_column", "centroid_slice"),
}


def summary_row(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """Make the row of a case in the summary table; its columns are the same whether or not the spacing is known.

    Args:
        measurements: result of :py:func:`measure`.

    Returns:
        the values of the case; ``sum_of_products_mm2`` or ``sum_of_products_pixels``: sum of the bidimensional products
        of all lesions; ``longest_diameter_mm`` or ``longest_diameter_pixels``: the longest of all lesions; and the
        values of the lesion with the largest volume, as ``largest_lesion_...``. Columns without a value are None.
    """
    row = {
        name: measurements.get(name)
        for name in (
            "case",
            "spacing_known",
            "slice_spacing_known",
            "lesion_count",
            "volume_ml",
            "volume_voxels",
            "mean_foreground_probability",
            "uncertain_share",
        )
    }
    lesions = measurements["lesions"]
    for area, length, known in (
        ("mm2", "mm", measurements["spacing_known"]),
        ("pixels", "pixels", not measurements["spacing_known"]),
    ):
        products = [lesion[f"bidimensional_product_{area}"] for lesion in lesions] if known else None
        row[f"sum_of_products_{area}"] = None if products is None else float(sum(products))
        longest = [lesion[f"longest_diameter_{length}"] for lesion in lesions] if known else []
        row[f"longest_diameter_{length}"] = max(longest, default=None)
    largest = lesions[0] if lesions else {}
    row |= {f"largest_lesion_{name}": largest.get(name) for name in _LESION_COLUMNS}
    for name, columns in _CENTROID_COLUMNS.items():
        values = largest.get(name, (None,) * 3)
        row |= {f"largest_lesion_{column}": value for column, value in zip(columns, values)}
    return row


def _check(mask: np.ndarray, affine: np.ndarray, probability: np.ndarray | None) -> None:
    if mask.ndim != 3:
        raise ValueError(f"the mask must be a volume (H, W, D), got shape {mask.shape}. Remove the channel dimension.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise ValueError(f"the affine must be an invertible matrix (4, 4), got {affine.tolist()}.")
    if probability is not None and np.shape(probability) != mask.shape:
        raise ValueError(f"the probability must have the shape of the mask, {mask.shape}, got {np.shape(probability)}.")


def _to_axial(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume to axial orientation; also return the affine from its new voxels to those of the input volume."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(AXIAL)))
    return apply_orientation(volume, turn), inv_ornt_aff(turn, volume.shape)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Find the smallest box around a mask; if the mask is empty, the box is empty."""
    box = []
    for axis in range(mask.ndim):
        places = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0))
    return tuple(box)


def _certainty(mask: np.ndarray, probability: np.ndarray | None) -> dict[str, float | None]:
    mean = uncertain = None
    if probability is not None:
        probability = np.asarray(probability)
        foreground = probability[mask]
        mean = float(foreground.mean(dtype=np.float64)) if foreground.size else None
        lower, upper = UNCERTAIN
        possible = probability[probability >= lower]
        uncertain = float((possible < upper).mean()) if possible.size else None
    return {"mean_foreground_probability": mean, "uncertain_share": uncertain}
