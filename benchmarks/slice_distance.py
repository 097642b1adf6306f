"""Estimate the distance of slices of each TCGA-LGG volume, which its files do not give, with its uncertainty.

    python benchmarks/slice_distance.py --dataset_dir data/kaggle_3m                     # writes slice_distance.csv
    python benchmarks/slice_distance.py --dataset_dir data/kaggle_3m --only_errors --healthy FLAIR.nii.gz

The head narrows towards the vertex by much the same curve in everybody: its height below the vertex, in units of the
root of its largest area, is a function of the root of its area relative to the largest. Phantoms of known distance
give this curve, and another one for the brain, for volumes without skull. In a volume, the heights that it gives for
the upper slices, against their numbers, make a line, whose slope is the distance in these units. The unit is that of
an adult head, 151 by 194 mm (``benchmarks/pixel_size.py``): so no pixel size is assumed.

The interval (90 %) holds three errors: that of other phantoms in any pose, with distances of 2.5 to 7 mm (heads differ
in shape), that of the size of heads (4 %), and that of the line. A volume with fewer than four slices to go by gets the
distance at which it covers as much of the head as others do. The estimate is for figures in mm of this data set alone;
nothing that the network does depends on it.

``--only_errors`` prints how far the estimate is off: on phantoms by distance, on a healthy head of 1 mm averaged to
thicker slices (the size of both known), and on real heads that lose every second slice, so that it must double.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from pixel_size import ADULT_HEAD
from scipy import ndimage

from mri_seg.datasets.lgg.index import find_patients, institution, slice_files
from mri_seg.datasets.phantom import PhantomPatient
from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.brain import brain_mask

FILE = Path(__file__).resolve().parent / "slice_distance.csv"
FULLER = 1.05  # root of a head's area, relative to that of the ellipse of its breadth and length: median of TCGA-LGG
ADULT_ROOT = FULLER * float(np.sqrt(np.pi / 4 * np.prod(ADULT_HEAD)))  # mm
SIZE_SD = 0.04  # of it, between people
LEVELS = (0.45, 0.93)  # of the root of the area relative to the largest, between which slices count
FEWEST = 4  # slices
BARE = 0.9  # share of the head's area beyond which the brain is all of it: the skull was taken away
HEAD = 0.12  # where the head begins, as a fraction of the way from the darkest to the brightest values
Z90 = 1.645
LOWERED = 16.0  # mm, the phantoms of the curve, so that all of the vertex is in the picture
CURVE_SEED, ERROR_SEED = 11, 12


class Distance(NamedTuple):
    """Distance of slices in mm, with its 90 % interval."""

    mm: float
    low: float
    high: float


class Profile(NamedTuple):
    """How a head narrows.

    Attributes:
        roots: root of the area of each slice, relative to the largest in the upper half of the slices.
        unit: root of this largest area in pixels.
        bare: whether the skull was taken away, so that the areas are those of the brain.
    """

    roots: np.ndarray
    unit: float
    bare: bool


def head_areas(volume: np.ndarray) -> np.ndarray:
    """Area of the head in pixels in each slice of a volume ``(H, W, D)``: its largest bright region, filled.

    Works on every second pixel, smoothed. What is within 12 pixels is joined, so that the dark skull does not part the
    scalp from the brain.
    """
    smooth = ndimage.uniform_filter(volume.astype(np.float32), (2, 2, 1))[1::2, 1::2]
    low, high = np.percentile(smooth, (0.5, 99.5))
    areas = []
    for pixels in np.moveaxis(smooth > low + HEAD * (high - low), -1, 0):
        near = ndimage.distance_transform_edt(~np.pad(ndimage.binary_opening(pixels), 4)) <= 3
        joined = ndimage.distance_transform_edt(ndimage.binary_fill_holes(near))[4:-4, 4:-4] > 3
        labels, count = ndimage.label(joined)
        areas.append(4.0 * np.bincount(labels.ravel())[1:].max() if count else 0.0)
    return np.array(areas)


def relative(areas: np.ndarray, more: int = 0) -> tuple[np.ndarray, float]:
    """Root of each area, relative to the largest in the upper half of the slices; and this root, in pixels.

    ``more`` slices below the upper half count too.
    """
    roots = np.sqrt(areas.astype(float))
    upper = ndimage.median_filter(roots, 3, mode="nearest")[len(areas) // 2 - more :]
    unit = float(max(upper.max(), 1))
    return roots / unit, unit


def profile(volume: np.ndarray) -> Profile:
    """How the head in a volume ``(H, W, D)``, slices upwards, narrows."""
    areas, brain = head_areas(volume), brain_mask(volume).sum((0, 1))
    widest = len(areas) // 2 + int(areas[len(areas) // 2 :].argmax())
    bare = bool(brain[widest] > BARE * areas[widest])
    return Profile(*relative(areas), bare)


def upper_slices(roots: np.ndarray) -> np.ndarray:
    """Numbers of the slices between the levels, from the vertex down to the first that is larger."""
    low, high = LEVELS
    chosen: list[int] = []
    for n in range(len(roots) - 1, -1, -1):
        if roots[n] > high:
            break
        if roots[n] >= low:
            chosen.append(n)
    return np.array(chosen[::-1], dtype=int)


class Curve(NamedTuple):
    """How heads narrow, or bare brains.

    Attributes:
        levels: root of the area relative to the largest, ascending.
        heights: height below the vertex at which a head has it, in units of the root of the largest area; only their
            differences matter.
        unit: this root, relative to that of the head.
    """

    levels: np.ndarray
    heights: np.ndarray
    unit: float


@cache
def curves(number: int = 6) -> dict[bool, Curve]:
    """The curves of heads (False) and of bare brains (True): means of phantoms."""
    levels = np.linspace(LEVELS[0] - 0.02, LEVELS[1] + 0.02, 25)
    found: dict[bool, list[tuple[np.ndarray, float]]] = {False: [], True: []}
    for index in range(number):
        scan = PhantomPatient(CURVE_SEED, index, tumor=False).scan(
            angles=(0, 0, 0), shift=(0, 0, -LOWERED), spacing=2.5
        )
        for bare, areas in {False: head_areas(scan.image), True: brain_mask(scan.image).sum((0, 1))}.items():
            roots, unit = relative(areas, more=round(LOWERED / 2.5))
            rising = np.maximum.accumulate(roots[::-1][: int((roots[::-1] >= 0.99).argmax()) + 1])
            keep = np.concatenate([[True], np.diff(rising) > 0])
            below = np.interp(levels, rising[keep], np.flatnonzero(keep).astype(float))
            found[bare].append((below * 2.5 / (unit * 240 / 256), unit))
    whole = np.mean([unit for _, unit in found[False]])
    return {
        bare: Curve(levels, np.mean([below for below, _ in some], axis=0), float(np.mean([u for _, u in some]) / whole))
        for bare, some in found.items()
    }


def estimate(volume: np.ndarray, pixel: float | None = None) -> tuple[float, float] | None:
    """Distance of slices in mm, and the relative standard error of the line.

    Args:
        volume: ``(H, W, D)``, slices upwards.
        pixel: size of a pixel in mm; None if it is unknown, so that the head counts as that of an average adult.

    Returns:
        None if too few slices show how the head narrows.
    """
    found = profile(volume)
    numbers = upper_slices(found.roots)
    if len(numbers) < FEWEST:
        return None
    curve = curves()[found.bare]
    below = np.interp(found.roots[numbers], curve.levels, curve.heights)
    (slope, _), covariance = np.polyfit(numbers, below, 1, cov=True)
    if slope >= 0:
        return None
    unit = ADULT_ROOT * curve.unit if pixel is None else found.unit * pixel
    return float(-slope * unit), float(np.sqrt(covariance[0, 0]) / -slope)


def phantom_errors(number: int, spacings: Iterable[float]) -> dict[float, list[float]]:
    """Logarithm of estimated over true distance in phantoms in any pose, by true distance."""
    found: dict[float, list[float]] = {}
    for spacing in spacings:
        for index in range(number):
            scan = PhantomPatient(ERROR_SEED, index, tumor=index % 2 == 0).scan(1, spacing=spacing)
            one = estimate(scan.image, 240 / 256)
            if one is not None:
                found.setdefault(spacing, []).append(float(np.log(one[0] / spacing)))
    return found


def shape_sd(number: int = 4) -> float:
    """Relative error from the heads' shapes and poses, as the root of its mean square over phantoms."""
    errors = [error for some in phantom_errors(number, (2.5, 5.0, 7.0)).values() for error in some]
    return float(np.sqrt(np.mean(np.square(errors))))


def volumes(dataset_dir: str) -> Iterable[tuple[str, np.ndarray]]:
    """Patients and their volumes ``(H, W, D)``."""
    load = LoadVolumed("image")
    for patient, folder in find_patients(dataset_dir).items():
        yield patient, load({"image": [str(image) for _, image, _ in slice_files(folder)]})["image"].numpy()[0]


def of_data_set(dataset_dir: str) -> dict[str, tuple[int, Distance]]:
    """Number of slices and their distance for each patient."""
    sd = shape_sd()
    slices, found = {}, {}
    for patient, volume in volumes(dataset_dir):
        slices[patient], found[patient] = volume.shape[-1], estimate(volume)
    covered = np.log([slices[patient] * one[0] for patient, one in found.items() if one is not None])
    result = {}
    for patient, one in found.items():
        if one is None:
            mm, error = float(np.exp(np.median(covered))) / slices[patient], float(covered.std())
        else:
            mm, error = one[0], float(np.sqrt(sd**2 + SIZE_SD**2 + one[1] ** 2))
        result[patient] = (slices[patient], Distance(mm, mm * np.exp(-Z90 * error), mm * np.exp(Z90 * error)))
    return result


def read_distances(file: Path = FILE) -> dict[str, Distance]:
    """The distance of each patient's slices, as this program wrote them."""
    with file.open(encoding="utf-8", newline="") as stream:
        return {
            row["patient"]: Distance(*(float(row[name]) for name in Distance._fields)) for row in csv.DictReader(stream)
        }


def write_distances(found: Mapping[str, tuple[int, Distance]], file: Path = FILE) -> None:
    """Write patient, slices, mm, low and high."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["patient", "slices", *Distance._fields])
        for patient, (count, distance) in sorted(found.items()):
            table.writerow([patient, count, *(f"{value:.2f}" for value in distance)])


def by_institution(found: Mapping[str, tuple[int, Distance]]) -> str:
    """Distances and what the slices cover, in Markdown."""
    lines = ["| institution | patients | slices | distance in mm, median (range) | covered in mm, median (range) |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for place in [*sorted({institution(patient) for patient in found}), "all"]:
        own = [one for patient, one in found.items() if place in (institution(patient), "all")]
        mm = np.array([distance.mm for _, distance in own])
        count = np.array([slices for slices, _ in own])
        lines.append(
            f"| {place} | {len(own)} | {count.min()} to {count.max()} | {np.median(mm):.1f} ({mm.min():.1f} to "
            f"{mm.max():.1f}) | {np.median(mm * count):.0f} ({(mm * count).min():.0f} to {(mm * count).max():.0f}) |"
        )
    width = np.median([distance.high / distance.mm for _, distance in found.values()])
    return "\n".join(
        [*lines, "", f"The 90 % interval of a volume reaches a factor of {width:.2f} up and down (median)."]
    )


def errors_table(dataset_dir: str, healthy: Path | None, number: int, every: int) -> str:
    """How far the estimate is off, in Markdown."""
    lines = ["| heads | true distance | heads | mean error | SD | largest |", "| --- | --- | --- | --- | --- | --- |"]

    def add(name: str, truth: str, errors: Iterable[float]) -> None:
        off = 100 * (np.exp(list(errors)) - 1)
        spread = f"{off.std(ddof=1):.1f} %" if len(off) > 1 else "-"
        lines.append(
            f"| {name} | {truth} | {len(off)} | {off.mean():+.1f} % | {spread} | {off[np.abs(off).argmax()]:+.1f} % |"
        )

    for spacing, errors in phantom_errors(number, (2.5, 3.0, 5.0, 6.5)).items():
        add("phantoms in any pose", f"{spacing:g} mm", errors)
    if healthy is not None:
        image = nibabel.funcs.as_closest_canonical(nibabel.nifti1.load(healthy))
        values, steps = image.get_fdata(dtype=np.float32), nibabel.affines.voxel_sizes(image.affine)
        for planes in (3, 5, 6):
            errors = []
            for offset in range(0, planes, 2):  # where the slices begin
                cut = values[..., offset : offset + (values.shape[-1] - offset) // planes * planes]
                one = estimate(cut.reshape(*cut.shape[:2], -1, planes).mean(-1), float(np.sqrt(steps[0] * steps[1])))
                if one is not None:
                    errors.append(float(np.log(one[0] / (planes * steps[2]))))
            if errors:
                add("healthy head, slices begin elsewhere", f"{planes * steps[2]:.1f} mm", errors)
    doubled, lost = [], 0
    for n, (_, volume) in enumerate(volumes(dataset_dir)):
        if n % every == 0:
            full, half = estimate(volume), estimate(volume[..., ::2])
            lost += full is not None and half is None
            if full is not None and half is not None:
                doubled.append(float(np.log(half[0] / full[0] / 2)))
    if doubled:
        add("TCGA-LGG, every second slice", "twice the estimate", doubled)
    if lost:
        lines += ["", f"{lost} of TCGA-LGG have too few slices when every second one is left out."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--only_errors", action="store_true", help="print the errors; write nothing")
    parser.add_argument("--healthy", type=Path, help="a head of thin slices without tumour (NIfTI)")
    parser.add_argument("--phantoms", type=int, default=12, help="phantoms for each distance")
    parser.add_argument("--every", type=int, default=1, help="take every so many patients for the errors")
    args = parser.parse_args()
    if args.only_errors:
        print(errors_table(args.dataset_dir, args.healthy, args.phantoms, args.every))
        return
    found = of_data_set(args.dataset_dir)
    write_distances(found, args.output)
    print(by_institution(found))


if __name__ == "__main__":
    main()
