"""Count marked lesions that lie outside the brain: of phantoms by some weights, and of patients left out of training.

    python benchmarks/outside_brain.py --checkpoints bundle/models/model.pt
    python benchmarks/outside_brain.py --dataset_dir data/kaggle_3m \
        --runs institution/DU=benchmarks/left_out/DU/model_final.pt \
        institution/HT=benchmarks/left_out/HT/model_final.pt \
        institution/FG=benchmarks/left_out/FG/model_final.pt

With ``--changed 3``, every third patient is changed in each way of ``robustness.py``. Phantoms are the first three
scans of the first series of ``follow_up.py``. A lesion is false if none of it lies in the reference, and outside the
brain if less of it lies in ``brain_mask`` than inference asks for. Post-processing is that of inference, but lesions
outside the brain, and those that are small beside the largest, are kept.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from follow_up import plan, scans_of
from monai.data import MetaTensor
from robustness import CHANGES, CUTS, Model
from segmented import OPTIONS

from mri_seg.datasets.lgg import datalist
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import label_lesions
from mri_seg.transforms.brain import brain_mask

KEPT: dict[str, Any] = {"min_brain_fraction": 0, "min_lesion_fraction": 0, "min_lesion_slices": 1}


def phantoms(series: int, seed: int = 2024) -> Iterator[tuple[MetaTensor, np.ndarray]]:
    """Volume ``(1, H, W, D)`` and reference ``(H, W, D)`` of scans."""
    for index in range(series):
        for scan in scans_of(seed, index, plan(seed, index))[0][:3]:
            yield MetaTensor(torch.from_numpy(scan.image[None]), affine=torch.from_numpy(scan.affine)), scan.mask


def patients(dataset_dir: str, split: str) -> Iterator[tuple[MetaTensor, np.ndarray]]:
    """Volume ``(1, H, W, D)`` and reference ``(H, W, D)`` of the patients that a split left out."""
    load = LoadVolumed(["image", "label"])
    for case in datalist(dataset_dir, split, "validation", True):
        item = load(case)
        yield item["image"], item["label"].numpy()[0] > 0


def changed(dataset_dir: str, split: str, every: int) -> Iterator[tuple[MetaTensor, np.ndarray]]:
    """Every so many patients of :py:func:`patients`, in each way of ``robustness.py``."""
    for volume, truth in islice(patients(dataset_dir, split), 0, None, every):
        values = volume.numpy()[0].astype(np.float32)
        brain = brain_mask(values)
        for change in CHANGES.values():
            other = volume.clone()
            other[0] = torch.from_numpy(change(values, brain))
            yield other, truth
        for cut in CUTS.values():
            yield cut(volume), cut(torch.from_numpy(truth[None])).numpy()[0]


def row(name: str, model: Model, volumes: Iterator[tuple[MetaTensor, np.ndarray]]) -> str:
    """What was counted, as a row in Markdown."""
    number = marked = false = outside = with_false = 0
    least = 1.0  # of a true lesion within the brain
    for volume, truth in volumes:
        mask = model(volume)
        brain = brain_mask(volume.numpy()[0])
        labels, count = label_lesions(mask)
        lesions = [labels == n for n in range(1, count + 1)]
        wrong = [lesion for lesion in lesions if not (lesion & truth).any()]
        inside = [float(brain[lesion].mean()) for lesion in lesions]
        number, marked, false = number + 1, marked + count, false + len(wrong)
        with_false += bool(wrong)
        outside += sum(fraction < OPTIONS["min_brain_fraction"] for fraction in inside)
        true = [fraction for lesion, fraction in zip(lesions, inside, strict=True) if (lesion & truth).any()]
        least = min([least, *true])
    return f"| {name} | {number} | {marked} | {false} | {with_false} | {outside} | {100 * least:.0f} % |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="*", default=[], type=Path, help="weights to try on phantoms")
    parser.add_argument("--series", type=int, default=14, help="series of phantoms")
    parser.add_argument("--runs", nargs="*", default=[], metavar="SPLIT=WEIGHTS")
    parser.add_argument("--changed", type=int, metavar="N", help="change every Nth patient in place of all as they are")
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| weights | volumes | lesions | false | volumes with one | outside the brain | least of a true one in it |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for checkpoint in args.checkpoints:
        print(row(str(checkpoint), Model(checkpoint, **KEPT), phantoms(args.series)), flush=True)
    for split, _, weights in (run.partition("=") for run in args.runs):
        found = changed(args.dataset_dir, split, args.changed) if args.changed else patients(args.dataset_dir, split)
        print(row(split, Model(Path(weights), **KEPT), found), flush=True)


if __name__ == "__main__":
    main()
