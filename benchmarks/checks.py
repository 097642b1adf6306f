"""Measure how often each flag of the checks is raised where it holds, and where it does not.

    python benchmarks/checks.py image --dataset_dir data/kaggle_3m --healthy FLAIR.nii.gz --measures runs/checks.json
    python benchmarks/checks.py lesions --runs institution/DU=RUN/model_final.pt --dataset_dir data/kaggle_3m
    python benchmarks/checks.py place --dataset_dir data/kaggle_3m

``image`` measures the volume of every patient, its channels that are not FLAIR, and changes of it for which a flag
holds; ``--measures`` keeps the measures, so that thresholds can be changed and tried in a second. ``lesions`` segments
the validation patients of each split with weights that left them out, and changes of them, and judges the lesions.
``place`` writes the map of the places of tumours that is shipped. Tables are Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.data import MetaTensor
from robustness import Model, around_brain, healthy_variants, noise
from scipy import ndimage

from mri_seg.datasets.lgg import datalist
from mri_seg.io.load import LoadVolumed
from mri_seg.quality.frame import head_frame
from mri_seg.quality.image_checks import ImageMeasures, Spacing, image_flags, image_measures
from mri_seg.quality.place import PLACE_FILE, PlaceMap
from mri_seg.transforms.brain import brain_mask

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
    return [case for section in ("training", "validation") for case in datalist(dataset_dir, "published", section, True)]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["image", "lesions", "place"])
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--healthy", nargs="*", default=[])
    parser.add_argument("--measures", type=Path, help="JSON file in which measures of volumes are kept")
    parser.add_argument("--every", type=int, default=1, help="change every so many patients")
    args = parser.parse_args()
    if args.what == "place":
        places = PlaceMap.of(place for _, place in tumor_places(args.dataset_dir))
        Path(str(resources.files("mri_seg.quality") / PLACE_FILE)).write_text(places.to_text() + "\n", encoding="utf-8")
    if args.what == "image":
        kept = args.measures is not None and args.measures.is_file()
        measures = json.loads(args.measures.read_text(encoding="utf-8")) if kept else {}
        for name, found in measured_patients(args.dataset_dir, measures, args.every):
            if measures.get(name) != found:
                measures[name] = found
                if args.measures:
                    args.measures.write_text(json.dumps(measures) + "\n", encoding="utf-8")
        print("\n".join(image_table(measures)))


if __name__ == "__main__":
    main()
