"""Measure how often each flag of the checks is raised where it holds, and where it does not.

    python benchmarks/checks.py image --dataset_dir data/kaggle_3m --healthy FLAIR.nii.gz --measures runs/checks.json
    python benchmarks/checks.py phantoms
    python benchmarks/checks.py lesions --dataset_dir data/kaggle_3m
    python benchmarks/checks.py place --dataset_dir data/kaggle_3m

``image`` measures the volume of every patient, its channels that are not FLAIR, and changes of it for which a flag
holds; ``--measures`` keeps the measures, so that thresholds can be changed and tried in a second. ``lesions`` segments
the patients of DU, HT and FG, and changes of them, with the weights in ``benchmarks/left_out`` that left their
institution out, and judges the lesions. ``place`` writes the map of the places of tumours that is shipped, and tries
it by leaving one patient out. Tables are Markdown. What was seen in the patients is in ``patients.csv``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.transforms import Orientationd
from robustness import Model, around_brain, dice, half_contrast, noise
from scipy import ndimage

from mri_seg.datasets.lgg import datalist
from mri_seg.datasets.phantom import patient
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import label_lesions
from mri_seg.quality.frame import HeadFrame, head_frame
from mri_seg.quality.image_checks import ImageChecksd, ImageMeasures, Spacing, image_flags, image_measures
from mri_seg.quality.lesion_checks import LESION_FLAGS, RARE, is_doubtful, lesion_flags, lesion_measures
from mri_seg.quality.place import PLACE_FILE, PlaceMap
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.orientation import AXIAL

ROOT = Path(__file__).resolve().parent
Volume = np.ndarray
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


def measured_patients(
    dataset_dir: str, known: dict[str, dict[str, list]], every: int
) -> Iterator[tuple[str, dict[str, list]]]:
    """Measures of each patient's volumes by what they are, those that are known left out."""
    for number, case in enumerate(patients(dataset_dir)):
        name = str(case.get("case") or Path(case["image"][0]).parent.name)
        found = dict(known.get(name, {}))
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


def flags_of(measures: list | None, spacing: Spacing = UNKNOWN) -> list[str]:
    return [name for name, _ in image_flags(None if measures is None else ImageMeasures(*measures), spacing)]


def image_table(measures: dict[str, dict[str, list]]) -> Iterator[str]:
    """How often each flag is raised in each kind of volume."""
    kinds: dict[str, list[list[str]]] = defaultdict(list)
    for found in measures.values():
        for what, values in found.items():
            kinds[what].append(flags_of(values))
    names = ("not_flair", "skull_stripped", "thin_slices", "head_cut", "noisy_or_moved", "resampled_far")
    yield f"| volumes | number | {' | '.join(f'`{name}`' for name in names)} | any |"
    yield f"| --- | ---: |{' ---: |' * (len(names) + 1)}"
    for what, raised in kinds.items():
        counts = [sum(name in flags for flags in raised) for name in names]
        yield f"| {what} | {len(raised)} | {' | '.join(map(str, counts))} | {sum(map(bool, raised))} |"


CONTRASTS = {
    "T1": {"gray": 0.75, "white": 1.0, "fluid": 0.35, "rim": 0.0, "marrow": 1.2, "muscle": 0.7, "fat": 2.0},
    "T2": {"gray": 1.0, "white": 0.75, "fluid": 2.2, "rim": 0.0, "marrow": 0.7, "muscle": 0.4, "fat": 1.4},
    "PD": {"gray": 1.0, "white": 0.85, "fluid": 0.95, "rim": 0.0, "marrow": 0.8, "muscle": 0.7, "fat": 1.2},
    "CT": {"gray": 1.0, "white": 0.97, "fluid": 0.88, "rim": 0.0, "marrow": 1.6, "muscle": 1.0, "fat": 0.7},
}
"""Brightness of the phantom's tissues; dense bone stays dark, so that CT is only a brain between empty bone."""


def phantom_table(number: int) -> Iterator[str]:
    """Flags of phantoms: ordinary, with other contrasts, with thin slices and with other pixels."""
    draw = patient._draw_brightness
    scans: dict[str, dict] = {"FLAIR": {}, **{name: {"contrast": name} for name in CONTRASTS}}
    scans |= {"slices of 1 mm": {"spacing": 1.0}, "slices of 3 mm": {"spacing": 3.0}, "pixels of 1.9 mm": {"size": 128}}
    yield "| phantoms | number | flags |\n| --- | ---: | --- |"
    for what, options in scans.items():
        contrast = CONTRASTS.get(options.pop("contrast", ""))
        patient._draw_brightness = (lambda rng, values=contrast: values) if contrast else draw
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


LESION_CHANGES: dict[str, Callable[[Volume, Volume], Volume]] = {
    "scalp at 0.3": around_brain(0.3),
    "skull stripped": around_brain(0.0),
    "half contrast": half_contrast,
    "noise": noise,
}


class Judged:
    """Counts of lesions and cases by what holds and what was flagged."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.dice: list[float] = []

    def add(self, mask: Volume, probability: Volume, label: Volume, frame: HeadFrame | None, places: PlaceMap) -> None:
        """Count the lesions of a mask, and the flags of its case."""
        found = lesion_measures(mask, probability, np.eye(4), frame, places=places)
        names = {name for name, _ in lesion_flags(found)}
        labels, count = label_lesions(mask)
        sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
        hit = ndimage.sum_labels(label, labels, range(1, count + 1))
        real = [share >= 0.1 for _, share in sorted(zip(sizes, hit / np.maximum(sizes, 1)), key=lambda one: -one[0])]
        doubtful = [is_doubtful(lesion, found[0]) for lesion in found]
        for true, doubt in zip(real, doubtful):
            kind = "true" if true else "false"
            self.counts[f"{kind} lesions"] += 1
            self.counts[f"{kind} lesions in doubt"] += doubt
        self.counts["cases"] += 1
        self.counts["cases without false lesion"] += all(real)
        self.counts["in doubt without false lesion"] += all(real) and any(doubtful)
        for name in names:
            self.counts[name] += 1
        self.dice.append(dice(mask, label))


def lesion_table(args: argparse.Namespace) -> Iterator[str]:
    """Lesions that left-out weights find in the patients, with and without changes of the volume."""
    tumors = dict(tumor_places(args.dataset_dir))
    places = PlaceMap.of(tumors.values())
    judged: dict[str, Judged] = defaultdict(Judged)
    runs = [run.partition("=")[::2] for run in args.runs] or [
        (group, str(args.left_out / group / "model_final.pt")) for group in ("DU", "HT", "FG")
    ]
    for group, weights in runs:
        model = Model(Path(weights), 800.0, flip=True)
        load = LoadVolumed(["image", "label"])
        for number, case in enumerate(datalist(args.dataset_dir, f"institution/{group}", "validation", True)):
            item = load(dict(case))
            image, label = item["image"], item["label"].numpy()[0] > 0
            values = image.numpy()[0].astype(np.float32)
            brain = brain_mask(values)
            frame = head_frame(values, brain, np.eye(4))
            tumor = tumors.get(str(image.meta["case"]))
            others = places if tumor is None else places.without(PlaceMap.of([tumor]))
            for what in ("unchanged", *(LESION_CHANGES if number % args.every == 0 else ())):
                volume = image.clone()
                if what in LESION_CHANGES:
                    volume[0] = torch.from_numpy(LESION_CHANGES[what](values, brain))
                mask = model(volume)
                judged[what].add(mask, model.probability, label, frame, others)
    keys = ("cases", "cases without false lesion", "in doubt without false lesion", "true lesions")
    keys += ("true lesions in doubt", "false lesions", "false lesions in doubt", *LESION_FLAGS)
    yield f"| volumes | mean Dice | {' | '.join(keys)} |"
    yield f"| --- | ---: |{' ---: |' * len(keys)}"
    for what, one in judged.items():
        yield f"| {what} | {np.mean(one.dice):.3f} | {' | '.join(str(one.counts[key]) for key in keys)} |"


def healthy_flags(file: str) -> list[str]:
    """Flags of a healthy volume."""
    item = Orientationd("image", axcodes=AXIAL, labels=None)(LoadVolumed(["image"])({"image": [file]}))
    return [flag["name"] for flag in case_flags(ImageChecksd("image")(item)["image"].meta)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["image", "phantoms", "lesions", "place"])
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--healthy", nargs="*", default=[])
    parser.add_argument("--left_out", type=Path, default=ROOT / "left_out", help="folder of the left-out weights")
    parser.add_argument("--runs", nargs="*", default=[], metavar="INSTITUTION=WEIGHTS", help="instead of --left_out")
    parser.add_argument("--phantoms", type=int, default=8, help="phantoms of each kind")
    parser.add_argument("--measures", type=Path, help="JSON file in which measures of volumes are kept")
    parser.add_argument("--every", type=int, default=1, help="change every so many patients")
    args = parser.parse_args()
    if args.what == "place":
        tumors = dict(tumor_places(args.dataset_dir))
        shipped = Path(str(resources.files("mri_seg.quality") / PLACE_FILE))
        shipped.write_text(PlaceMap.of(tumors.values()).to_text() + "\n", encoding="utf-8")
        print("\n".join([*place_table(tumors), "", *cut_table(args.dataset_dir)]))
    if args.what == "phantoms":
        print("\n".join(phantom_table(args.phantoms)))
    if args.what == "lesions":
        print("\n".join(lesion_table(args)))
    if args.what == "image":
        kept = args.measures is not None and args.measures.is_file()
        measures = json.loads(args.measures.read_text(encoding="utf-8")) if kept else {}
        for name, found in measured_patients(args.dataset_dir, measures, args.every):
            if measures.get(name) != found:
                measures[name] = found
                if args.measures:
                    args.measures.write_text(json.dumps(measures) + "\n", encoding="utf-8")
        print("\n".join(image_table(measures)))
        for file in args.healthy:
            print(f"\n{Path(file).name}: {', '.join(healthy_flags(file)) or 'no flag'}")


if __name__ == "__main__":
    main()
