"""Measure how often each flag of the checks is raised where it holds, and where it does not.

    python benchmarks/checks.py image --dataset_dir data/kaggle_3m --healthy FLAIR.nii.gz
    python benchmarks/checks.py phantoms
    python benchmarks/checks.py place --dataset_dir data/kaggle_3m
    python benchmarks/checks.py lesions --dataset_dir data/kaggle_3m
    python benchmarks/checks.py cost

``image`` measures the volume of every patient, its channels that are not FLAIR, and changes of it for which a flag
holds; the measures are kept in ``runs/quality``, so that limits can be changed and tried in a second. Limits come from
a rule; the figures are those of patients who were left out when it was applied. ``lesions`` judges the lesions that
weights found that left the patient's institution out, those included that are left out by default. ``place`` writes the
map of the places of tumours that is shipped, and tries it by leaving one patient out. ``cost`` times the checks and
estimates as a share of a case. Tables are Markdown. What was seen in the patients is in ``patients.csv``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from monai.transforms import Orientationd
from robustness import around_brain, healthy_variants, noise
from scipy import ndimage
from segmented import DIMMED, OPTIONS, ORDINARY, ROOT, add_arguments, measures_of, records

import mri_seg
from mri_seg.datasets.lgg import datalist
from mri_seg.datasets.phantom import patient
from mri_seg.io.load import LoadVolumed
from mri_seg.quality.frame import head_frame
from mri_seg.quality.image_checks import (
    IMAGE_FLAGS,
    ImageChecksd,
    ImageLimits,
    ImageMeasures,
    Spacing,
    image_flags,
    image_measures,
)
from mri_seg.quality.lesion_checks import (
    BESIDE,
    RARE,
    LesionChecksd,
    lesion_flags,
    lesion_measures,
)
from mri_seg.quality.place import PLACE_FILE, PlaceMap
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.orientation import AXIAL

Volume = np.ndarray
Measures = dict[str, dict[str, list | None]]
UNKNOWN = Spacing(None, None)


def moved(volume: Volume, brain: Volume) -> Volume:
    """Turn the head by 3 degrees and shift it by 4 pixels in every second group of 16 lines of k-space."""
    rows, columns = np.meshgrid(*(np.arange(n) for n in volume.shape[:2]), indexing="ij")
    del columns
    away = (rows // 16) % 2 == 1
    changed = np.empty(volume.shape, dtype=np.float32)
    for n in range(volume.shape[-1]):
        one = volume[..., n].astype(np.float32)
        other = ndimage.shift(ndimage.rotate(one, 3, reshape=False, order=1), (4, 1), order=1)
        lines = np.where(away, *(np.fft.fftshift(np.fft.fft2(picture)) for picture in (other, one)))
        changed[..., n] = np.abs(np.fft.ifft2(np.fft.ifftshift(lines)))
    return changed


def moved_between_slices(volume: Volume, brain: Volume) -> Volume:
    """Shift every second slice by 4 pixels: the patient moved between the two passes of an interleaved scan."""
    changed = volume.copy()
    changed[..., ::2] = np.roll(volume[..., ::2], 4, axis=0)
    return changed


def _by_brain(where: Callable[[Volume], slice]) -> Callable[[Volume, Volume], Volume]:
    return lambda volume, brain: volume[..., where(np.flatnonzero(brain.any((0, 1))))]


def cut_in_plane(volume: Volume, brain: Volume) -> Volume:
    """Cut off the back quarter of the brain."""
    rows = np.flatnonzero(brain.any((1, 2)))
    return volume[: rows[0] + round(0.75 * np.ptp(rows))]


def zoomed(factor: float) -> Callable[[Volume, Volume], Volume]:
    """Resample in plane, as if the pixel size were another and were not known."""
    return lambda volume, brain: ndimage.zoom(volume.astype(np.float32), (factor, factor, 1), order=1)


POSITIVES: dict[str, tuple[str, Callable[[Volume, Volume], Volume]]] = {
    "skull stripped": ("skull_stripped", around_brain(0.0)),
    "upper third of the brain cut off": ("head_cut", _by_brain(lambda n: slice(0, n[-1] + 1 - len(n) // 3))),
    "back quarter of the brain cut off": ("head_cut", cut_in_plane),
    "Rician noise of 10 %": ("noisy_or_moved", noise),
    "every second slice moved by 4 pixels": ("noisy_or_moved", moved_between_slices),
    "moved while a slice was read": ("noisy_or_moved", moved),
    "pixels of half the size, size unknown": ("resampled_far", zoomed(2.0)),
    "pixels of double the size, size unknown": ("resampled_far", zoomed(0.5)),
}
"""Changes of a patient's volume and the flag that then holds."""


def patients(dataset_dir: str) -> list[dict]:
    """The patients of the published split, the test patients apart."""
    return [
        case for section in ("training", "validation") for case in datalist(dataset_dir, "published", section, True)
    ]


def channels(files: list[str]) -> dict[str, Volume]:
    """The volumes of a patient's slices: FLAIR, and the other channels if they differ from it."""
    read = np.stack([tifffile.imread(file) for file in files])
    read = read if read.ndim == 4 else read[..., None]
    flair = read[..., read.shape[-1] // 2]
    found = {"FLAIR": flair}
    for name, number in (("T1", 0), ("T1 with contrast", 2)):
        if read.shape[-1] == 3 and (read[..., number] != flair).any():
            found[name] = read[..., number]
    return {name: volume.transpose(1, 2, 0) for name, volume in found.items()}


def measured_patients(dataset_dir: str, known: Measures, every: int) -> Iterator[tuple[str, dict[str, list | None]]]:
    """Measures of each patient's volumes by what they are, those that are known left out."""
    for number, case in enumerate(patients(dataset_dir)):
        name = str(case.get("case") or Path(case["image"][0]).parent.name)
        found = dict(known.get(name, {}))
        if "FLAIR" in found and (number % every or POSITIVES.keys() <= found.keys()):
            yield name, found
            continue
        volumes = channels(case["image"])
        brain = None
        for what in (*volumes, *(POSITIVES if number % every == 0 else ())):
            if what in found:
                continue
            brain = brain_mask(volumes["FLAIR"]) if brain is None else brain
            volume = volumes[what] if what in volumes else POSITIVES[what][1](volumes["FLAIR"], brain)
            measures = image_measures(volume, brain_mask(volume))
            found[what] = None if measures is None else list(measures)
        yield name, found


def tumor_places(dataset_dir: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each patient, and the place of the tumour in the head-aligned box ``(N, 3)``."""
    load = LoadVolumed(["image", "label"])
    for case in patients(dataset_dir):
        item = load(dict(case))
        image, label = item["image"], item["label"].numpy()[0] > 0
        frame = head_frame(image.numpy()[0], brain_mask(image.numpy()[0]), image.affine.numpy())
        if frame is not None and label.any():
            yield str(image.meta["case"]), frame.coordinates(np.argwhere(label), image.affine.numpy())


class Rule(NamedTuple):
    """How a limit is set: halfway between the last ordinary volume and the first in which the flag holds.

    Without such volumes, a lower limit is half the value of the last ordinary volume.

    Attributes:
        limit: its name in :py:class:`ImageLimits`.
        measure: what is measured.
        flag: what is raised.
        above: whether it is raised above the limit.
        holds: volumes in which it holds.
    """

    limit: str
    measure: str
    flag: str
    above: bool
    holds: tuple[str, ...]


RULES = (
    Rule("cortex", "cortex", "not_flair", False, ("T1", "T1 with contrast")),
    Rule("fluid", "fluid", "not_flair", False, ()),
    Rule("around", "around", "skull_stripped", False, ("skull stripped",)),
    Rule("noise", "noise", "noisy_or_moved", True, ("Rician noise of 10 %",)),
    Rule("jump", "jump", "noisy_or_moved", True, ("every second slice moved by 4 pixels",)),
    Rule("top", "top", "head_cut", True, ("upper third of the brain cut off",)),
    Rule("at_edge", "at_edge", "head_cut", True, ("back quarter of the brain cut off",)),
    Rule("shortest", "length", "resampled_far", False, ("pixels of double the size, size unknown",)),
    Rule("longest", "length", "resampled_far", True, ("pixels of half the size, size unknown",)),
)


def seen_at_edge() -> set[str]:
    """Patients whose scalp or brain lies at the edge of the picture, by what was seen in them."""
    with open(ROOT / "benchmarks" / "patients.csv", encoding="utf-8") as file:
        return {row["patient"] for row in csv.DictReader(file) if {"scalp", "brain"} & set(row["cut"].split())}


def limits_of(measures: Measures) -> ImageLimits:
    """Limits by the rules."""
    found, at_edge = {}, seen_at_edge()
    for rule in RULES:
        place, last, first = ImageMeasures._fields.index(rule.measure), *((max, min) if rule.above else (min, max))
        counted = [one for name, one in measures.items() if rule.limit != "at_edge" or name not in at_edge]
        ordinary = [flair[place] for one in counted if (flair := one["FLAIR"])]
        holds = [values[place] for one in measures.values() for what in rule.holds if (values := one.get(what))]
        found[rule.limit] = (last(ordinary) + first(holds)) / 2 if holds else last(ordinary) / 2
    return ImageLimits(**found)


def flags_of(measures: list | None, limits: ImageLimits, spacing: Spacing = UNKNOWN) -> set[str]:
    return {name for name, _ in image_flags(None if measures is None else ImageMeasures(*measures), spacing, limits)}


def without_each(measures: Measures, key: Callable[[str], str]) -> dict[str, dict[str, set[str]]]:
    """Flags of each patient's volumes, by limits that were set without the patient's group."""
    flags = {}
    for group in {key(name) for name in measures}:
        limits = limits_of({name: one for name, one in measures.items() if key(name) != group})
        for name in (name for name in measures if key(name) == group):
            flags[name] = {what: flags_of(values, limits) for what, values in measures[name].items()}
    return flags


def institution(name: str) -> str:
    return name.split("_")[1]


def image_table(flags: dict[str, dict[str, set[str]]]) -> Iterator[str]:
    """How often each flag is raised in each kind of volume."""
    kinds: dict[str, list[set[str]]] = defaultdict(list)
    for found in flags.values():
        for what, names in found.items():
            kinds[what].append(names)
    yield f"| volumes | number | {' | '.join(f'`{name}`' for name in IMAGE_FLAGS)} | any |"
    yield f"| --- | ---: |{' ---: |' * (len(IMAGE_FLAGS) + 1)}"
    for what, raised in kinds.items():
        counts = [sum(name in names for names in raised) for name in IMAGE_FLAGS]
        yield f"| {what} | {len(raised)} | {' | '.join(map(str, counts))} | {sum(map(bool, raised))} |"


def limit_table(measures: Measures) -> Iterator[str]:
    """Limits by the rules, and those of the package."""
    yield "| limit | by the rule | in the package |\n| --- | ---: | ---: |"
    for name, by_rule, shipped in zip(ImageLimits._fields, limits_of(measures), ImageLimits()):
        yield f"| {name} | {by_rule:.3f} | {shipped:g} |"


CONTRASTS = {
    "T1": {"gray": 0.75, "white": 1.0, "fluid": 0.35, "rim": 0.0, "marrow": 1.2, "muscle": 0.7, "fat": 2.0},
    "T2": {"gray": 1.0, "white": 0.75, "fluid": 2.2, "rim": 0.0, "marrow": 0.7, "muscle": 0.4, "fat": 1.4},
    "PD": {"gray": 1.0, "white": 0.85, "fluid": 0.95, "rim": 0.0, "marrow": 0.8, "muscle": 0.7, "fat": 1.2},
    "CT": {"gray": 1.0, "white": 0.97, "fluid": 0.88, "rim": 0.0, "marrow": 1.6, "muscle": 1.0, "fat": 0.7},
}
"""Brightness of the phantom's tissues; dense bone stays dark, so that CT is only a brain between empty bone."""


def _always(values: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
    return dict(values)


def phantom_table(number: int) -> Iterator[str]:
    """Flags of phantoms: ordinary, with other contrasts, with thin slices and with other pixels."""
    draw = patient._draw_brightness
    scans: dict[str, dict] = {"FLAIR": {}, **{name: {"contrast": name} for name in CONTRASTS}}
    scans |= {"slices of 1 mm": {"spacing": 1.0}, "slices of 3 mm": {"spacing": 3.0}, "pixels of 1.9 mm": {"size": 128}}
    yield "| phantoms | number | flags |\n| --- | ---: | --- |"
    for what, options in scans.items():
        contrast = CONTRASTS.get(options.pop("contrast", ""))
        if contrast:
            patient._draw_brightness = functools.partial(_always, contrast)
        counts: dict[str, int] = defaultdict(int)
        for index in range(number):
            scan = patient.PhantomPatient(seed=7, index=index).scan(**options)
            volume = scan.image.astype(np.float32)
            pixel, between = (float(np.linalg.norm(scan.affine[:3, axis])) for axis in (0, 2))
            resampled = ndimage.zoom(volume, (pixel / 0.94, pixel / 0.94, 1), order=1)
            measures = image_measures(resampled, brain_mask(resampled))
            for name, _ in image_flags(measures, Spacing((pixel, pixel), between)):
                counts[name] += 1
        patient._draw_brightness = draw
        yield f"| {what} | {number} | {', '.join(f'`{name}` {count}' for name, count in counts.items()) or 'none'} |"


# Centre in the box of the brain, from the midline to a side, from front to back and from low to high.
ELSEWHERE = {"cerebellum": (0.35, 0.8, 0.15), "brain stem": (0.0, 0.6, 0.12)}


def place_table(tumors: dict[str, np.ndarray]) -> Iterator[str]:
    """How often a patient's tumour lies where the others have none, as it is and moved to where they have none.

    A moved tumour has a third of its size in each direction, so that it fits.
    """
    places = PlaceMap.of(tumors.values())
    yield "| tumours | number | `lesion_where_training_has_none` |\n| --- | ---: | ---: |"
    for what in ("as they are", *ELSEWHERE):
        count = 0
        for place in tumors.values():
            others = places.without(PlaceMap.of([place]))
            moved_to = place if what == "as they are" else ELSEWHERE[what] + (place - place.mean(0)) / 3
            count += float((others.frequency(moved_to) < RARE).mean()) > 0.5
        yield f"| {what} | {len(tumors)} | {count} |"


def cut_table(dataset_dir: str) -> Iterator[str]:
    """How often the outline of a tumour is said to be cut: as it is, and in a volume that ends in its middle slice."""
    load = LoadVolumed(["label"])
    counts, number = {"as they are": 0, "volume ends in the middle slice": 0}, 0
    for case in patients(dataset_dir):
        label = load({"label": case["label"]})["label"].numpy()[0] > 0
        slices = np.flatnonzero(label.any((0, 1)))
        if not slices.size:
            continue
        number += 1
        for what, mask in zip(counts, (label, label[..., : int(np.median(slices)) + 1])):
            names = [name for name, _ in lesion_flags(lesion_measures(mask, mask * 1.0, np.eye(4), None))]
            counts[what] += "head_cut" in names
    yield "| outlines | number | `head_cut` |\n| --- | ---: | ---: |"
    yield from (f"| {what} | {number} | {count} |" for what, count in counts.items())


FALSE = 0.1  # a lesion of which less than this fraction lies in the reference is false


class Lesion(NamedTuple):
    """A lesion of a record: its size beside the largest of its case, and whether it is false."""

    beside: float
    false: bool


def lesions_of(record: dict[str, Any]) -> list[Lesion]:
    measured = record["measures"]
    return [Lesion(one["volume"] / measured[0]["volume"], one["inside"] < FALSE) for one in measured]


def beside_limit(found: list[dict[str, Any]]) -> float:
    """The size beside the largest lesion that tells false lesions best: most of them below it, fewest true ones."""
    lesions = sorted(one for record in found for one in lesions_of(record))
    false, true = (np.array([one.beside for one in lesions if one.false == kind]) for kind in (True, False))
    sizes = np.array([one.beside for one in lesions])
    between = np.sqrt(sizes[1:] * sizes[:-1])
    gain = [(false < limit).mean() - (true < limit).mean() for limit in between]
    return float(between[int(np.argmax(gain))])


def lesion_table(found: list[dict[str, Any]]) -> Iterator[str]:
    """Lesions in doubt among true and false ones, by a limit from the other institutions, by kind of volume."""
    kinds = list(dict.fromkeys(record["kind"] for record in found))
    yield (
        "| volumes | number | mean Dice | false lesions | in doubt | true lesions | in doubt | without a false lesion "
        "| one in doubt |"
    )
    yield f"| --- |{' ---: |' * 8}"
    for kind in sorted(kinds, key=lambda one: one != ORDINARY):
        counts: dict[str, int] = defaultdict(int)
        dice = []
        for record in (one for one in found if one["kind"] == kind):
            ordinary = [one for one in found if one["kind"] == ORDINARY and one["group"] != record["group"]]
            limit, lesions = beside_limit(ordinary), lesions_of(record)
            for lesion in lesions:
                counts[f"{'false' if lesion.false else 'true'}"] += 1
                counts[f"{'false' if lesion.false else 'true'} in doubt"] += lesion.beside < limit
            all_true = bool(lesions) and not any(lesion.false for lesion in lesions)
            counts["patients"] += all_true
            counts["patients in doubt"] += all_true and any(lesion.beside < limit for lesion in lesions)
            dice.append(record["dice"])
        names = ("false", "false in doubt", "true", "true in doubt", "patients", "patients in doubt")
        yield f"| {kind} | {len(dice)} | {np.mean(dice):.3f} | {' | '.join(str(counts[name]) for name in names)} |"


def left_out_line(found: list[dict[str, Any]]) -> str:
    """How many lesions of the patients as they are inference leaves out by default."""
    rows = []  # of each lesion: whether it is false, small beside the largest, and in too few slices
    gone = []  # of each patient without a false lesion: whether any is left out
    for record in (one for one in found if one["kind"] == ORDINARY):
        of_case = []
        for n, (measured, lesion) in enumerate(zip(record["measures"], lesions_of(record), strict=True)):
            few = n > 0 and not measured["at_end"] and measured["slices"] < OPTIONS["min_lesion_slices"]
            of_case.append((lesion.false, lesion.beside < OPTIONS["min_lesion_fraction"], few))
        rows += of_case
        if not any(false for false, _, _ in of_case):
            gone.append(any(small or few for _, small, few in of_case))
    said = []
    for name, lesions in (("false", [row for row in rows if row[0]]), ("true", [row for row in rows if not row[0]])):
        out = sum(small or few for _, small, few in lesions)
        small, few = (sum(row[n] for row in lesions) for n in (1, 2))
        said.append(f"{out} of {len(lesions)} {name} lesions ({small} for their size, {few} in one slice)")
    return f"By default {' and '.join(said)} are left out, in {sum(gone)} of {len(gone)} patients without a false one."


def flag_table(found: list[dict[str, Any]], measures: Measures) -> Iterator[str]:
    """Flags of the patients as they are: of the image by limits without the patient, and of the lesions."""
    image = without_each(measures, str) if measures else {}
    at_edge, number = seen_at_edge(), 0
    counts: dict[str, int] = defaultdict(int)
    wrong: dict[str, int] = defaultdict(int)
    ordinary = flagged = carrying = 0
    for record in (one for one in found if one["kind"] == ORDINARY):
        of_image = image.get(record["case"], {}).get("FLAIR", set())
        of_lesions = {name for name, _ in lesion_flags(measures_of(record))}
        lesions, number = record["measures"], number + 1
        false = any(one["inside"] < FALSE for one in lesions)
        holds = {
            "nothing_found": True,
            "lesion_doubtful": false,
            "lesion_where_training_has_none": any(one["inside"] < FALSE and one["rare"] > 0.5 for one in lesions),
            "head_cut": record["label_at_edge"] >= 10 or record["case"] in at_edge,
        }
        for name in of_image | of_lesions:
            counts[name] += 1
            wrong[name] += not holds.get(name, False)
        carrying += bool(of_image | of_lesions)
        if lesions and not false and not holds["head_cut"]:
            ordinary += 1
            flagged += bool(of_image | of_lesions)
    yield "| flag | raised | of these, where it does not hold |\n| --- | ---: | ---: |"
    for name in sorted(counts, key=lambda one: -counts[one]):
        yield f"| `{name}` | {counts[name]} of {number} | {wrong[name]} |"
    yield f"| any | {carrying} of {number} | |"
    yield f"| any, in patients in whom none holds | {flagged} of {ordinary} | {flagged} |"


def dimmed_table(found: list[dict[str, Any]]) -> Iterator[str]:
    """What dimmed scalp costs, as if fat had been suppressed."""
    yield "| institution | patients | mean Dice | with scalp at 0.3 | lost | 95 % interval |\n| --- |" + " ---: |" * 5
    by_case = {(one["case"], one["kind"]): one for one in found}
    pairs = [
        (one["group"], one["dice"], by_case[one["case"], DIMMED]["dice"])
        for one in found
        if one["kind"] == ORDINARY and (one["case"], DIMMED) in by_case
    ]
    for group in (*dict.fromkeys(group for group, _, _ in pairs), *(["all"] if pairs else [])):
        before, after = np.array([dice for name, *dice in pairs if group in (name, "all")]).T
        lost, draw = before - after, np.random.default_rng(0)
        low, high = np.percentile(draw.choice(lost, (2000, len(lost))).mean(1), (2.5, 97.5))
        yield (
            f"| {group} | {len(lost)} | {before.mean():.3f} | {after.mean():.3f} | {lost.mean():+.3f} | "
            f"{low:+.3f} to {high:+.3f} |"
        )


def cost_table(repeats: int) -> Iterator[str]:
    """Seconds of the checks and of the estimates, as a share of a case of 26 slices, in the same run."""
    from mri_seg.inference.case_quality import CaseQuality
    from mri_seg.quality.calibration import Calibration

    spent: dict[str, float] = defaultdict(float)

    def timed(owner: Any, name: str, what: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[what] += time.perf_counter() - began

        setattr(owner, name, call)

    timed(ImageChecksd, "__call__", "checks of the image, frame of the head")
    timed(LesionChecksd, "__call__", "checks of the lesions")
    timed(CaseQuality, "of_case", "expected Dice, interval")
    timed(Calibration, "__call__", "calibrated probability")
    scan = patient.PhantomPatient(seed=7, index=0).scan(slices=26)
    segmenter = mri_seg.Segmenter(amp=False)
    shares: dict[str, list[float]] = defaultdict(list)
    for number in range(repeats + 1):
        spent.clear()
        began = time.perf_counter()
        found = segmenter(scan.image.astype(np.float32), affine=scan.affine)
        _ = found.measurements
        _ = found._result.page
        seconds = time.perf_counter() - began
        for what, value in [*spent.items(), ("all", sum(spent.values()))]:
            if number:  # the first call is a warm-up
                shares[what].append(value / seconds)
    yield f"Case of 26 slices with its page: {seconds:.2f} s, {torch.get_num_threads()} threads.\n"
    yield "| part | share of the case (median) |\n| --- | ---: |"
    yield from (f"| {what} | {100 * np.median(values):.1f} % |" for what, values in shares.items())


def healthy_table(file: str) -> Iterator[str]:
    """What the weights of the bundle mark in a healthy volume and its variants, and the flags of these masks."""
    volume = LoadVolumed(["image"])({"image": [file]})["image"]
    segment = mri_seg.Segmenter(
        amp=False, min_lesion_volume=0, min_lesion_fraction=0, min_lesion_slices=1, quality=False
    )
    yield "| variant | marked, mL | flags |\n| --- | ---: | --- |"
    for name, variant in healthy_variants(volume).items():
        found = segment(variant)
        names = [flag["name"] for flag in found.flags]
        yield f"| {name} | {found.measurements['volume_ml']:.1f} | {', '.join(f'`{one}`' for one in names)} |"


def healthy_flags(file: str) -> list[str]:
    """Flags of a healthy volume."""
    item = Orientationd("image", axcodes=AXIAL, labels=None)(LoadVolumed(["image"])({"image": [file]}))
    return [flag["name"] for flag in case_flags(ImageChecksd("image")(item)["image"].meta)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["image", "phantoms", "lesions", "place", "cost"])
    add_arguments(parser)
    parser.add_argument("--healthy", nargs="*", default=[])
    parser.add_argument("--phantoms", type=int, default=8, help="phantoms of each kind")
    parser.add_argument("--repeats", type=int, default=5, help="timed cases")
    parser.add_argument("--every", type=int, default=3, help="change every so many patients")
    args = parser.parse_args()
    file = args.cache / "measures.json"
    measures: Measures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if args.what == "place":
        tumors = dict(tumor_places(args.dataset_dir))
        shipped = Path(str(resources.files("mri_seg.quality") / PLACE_FILE))
        shipped.write_text(PlaceMap.of(tumors.values()).to_text() + "\n", encoding="utf-8")
        print("\n".join([*place_table(tumors), "", *cut_table(args.dataset_dir)]))
    if args.what == "phantoms":
        for line in phantom_table(args.phantoms):
            print(line, flush=True)
    if args.what == "cost":
        print("\n".join(cost_table(args.repeats)))
    if args.what == "lesions":
        of_cases = records(args, min_lesion_fraction=0, min_lesion_slices=1)  # with those that are left out by default
        limit = beside_limit([one for one in of_cases if one["kind"] == ORDINARY])
        tables = [*lesion_table(of_cases), "", *flag_table(of_cases, measures), "", *dimmed_table(of_cases)]
        print("\n".join(tables))
        print(f"\n{left_out_line(of_cases)}")
        for healthy in args.healthy:
            print("\n".join(["", *healthy_table(healthy)]))
        print(f"\nLimit of the size beside the largest lesion: {limit:.3f} by the rule, {BESIDE:g} in the package.")
    if args.what == "image":
        args.cache.mkdir(parents=True, exist_ok=True)
        for name, found in measured_patients(args.dataset_dir, measures, args.every):
            if measures.get(name) != found:
                measures[name] = found
                file.write_text(json.dumps(measures) + "\n", encoding="utf-8")
        for what, key in (("patient", str), ("institution", institution)):
            print(f"Limits were set without the {what}:\n")
            print("\n".join([*image_table(without_each(measures, key)), ""]))
        print("\n".join(limit_table(measures)))
        for file in args.healthy:
            print(f"\n{Path(file).name}: {', '.join(healthy_flags(file)) or 'no flag'}")


if __name__ == "__main__":
    main()
