"""Measure what a model loses when the scanner, the patient's scalp or the field of view is another.

    python benchmarks/robustness.py --runs institution/DU=RUN/model_final.pt --dataset_dir data/kaggle_3m
    python benchmarks/robustness.py --runs institution/DU=RUN/model_final.pt --healthy FLAIR.nii.gz

Each run is given as SPLIT=WEIGHTS, with the overrides of its config beside the weights. The program changes the volume
of every patient in the split's validation section, in each way of ``CHANGES`` and ``CUTS``, segments it as the bundle
does, and compares the patient's Dice with that of the unchanged volume. With ``--healthy`` it segments volumes without
tumour, and variants of them, and prints the volume of false tumour in mL. ``--every_lesion`` keeps small
lesions, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from scipy import ndimage

from mri_seg.config.weights import load_weights
from mri_seg.datasets.lgg import datalist
from mri_seg.io.collate import case_batch
from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.brain import brain_mask

CONFIGS = Path(__file__).resolve().parent.parent / "bundle" / "configs"
Volume = np.ndarray


def around_brain(factor: float) -> Callable[[Volume, Volume], Volume]:
    """Scale what lies outside the brain; 0 takes it away."""

    def change(volume: Volume, brain: Volume) -> Volume:
        low = np.percentile(volume, 0.5)
        near = ndimage.binary_dilation(brain, np.ones((5, 5, 1)))
        return np.where(near, volume, low + (volume - low) * factor)

    return change


def half_contrast(volume: Volume, brain: Volume) -> Volume:
    """Bring everything half the way to the median of the brain, air excepted."""
    low, high = np.percentile(volume, (0.5, 99.5))
    middle = np.median(volume[brain]) if brain.any() else np.median(volume)
    return np.where(volume > low + 0.12 * (high - low), middle + (volume - middle) / 2, volume)


def bias_field(volume: Volume, brain: Volume) -> Volume:
    """Brighten smoothly from one corner of the head to the other, by a factor of 1.8."""
    rows, columns, slices = (np.linspace(-1, 1, n) for n in volume.shape)
    return volume * np.exp(0.3 * (rows[:, None, None] + columns[:, None]) / 2 + 0.15 * slices)


def noise(volume: Volume, brain: Volume) -> Volume:
    """Add Rician noise of a tenth of the brain's median."""
    strength = 0.1 * (np.median(volume[brain]) if brain.any() else np.median(volume))
    draw = np.random.default_rng(0)
    real, imaginary = (draw.normal(0, strength, volume.shape) for _ in range(2))
    return np.hypot(volume + real, imaginary)


CHANGES: dict[str, Callable[[Volume, Volume], Volume]] = {
    "scalp at 0.3": around_brain(0.3),
    "scalp at 1.6": around_brain(1.6),
    "skull stripped": around_brain(0.0),
    "half contrast": half_contrast,
    "bias field": bias_field,
    "noise": noise,
}
CUTS = {
    "cut at the vertex": lambda volume: volume[..., : -max(volume.shape[-1] // 6, 1)],
    "every second slice": lambda volume: volume[..., ::2],
    "mirrored": lambda volume: volume.flip(2),
}


class Model:
    """A trained run: its config with evaluation and other options on top, and its weights."""

    def __init__(self, weights: Path, *, every_lesion: bool = False, flip: bool = True, **options: Any) -> None:
        self.config = ConfigParser()
        self.config.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")])
        overrides = weights.parent / "overrides.json"
        given = json.loads(overrides.read_text(encoding="utf-8")) if overrides.is_file() else {}
        every = {"min_lesion_volume": 0, "min_lesion_fraction": 0, "min_lesion_slices": 1} if every_lesion else {}
        for key, value in {**given, **every, "tta_flip": flip, "amp": False, **options}.items():
            self.config[key] = value
        self.config["checkpoint"] = str(weights)
        self.preprocessing = self.config.get_parsed_content("validate#preprocessing")
        self.inferer = self.config.get_parsed_content("validate#inferer")
        self.postprocessing = self.config.get_parsed_content("validate#postprocessing")
        self.network = self.config.get_parsed_content("network").eval()
        load_weights(self.network, weights)

    @torch.no_grad()
    def __call__(self, volume: MetaTensor) -> Volume:
        """Mask of a volume ``(1, H, W, D)``."""
        item = {"image": volume.clone()}
        for transform in self.preprocessing.transforms:
            if not isinstance(transform, LoadVolumed) and "label" not in getattr(transform, "keys", ()):
                item = transform(item)
        batch = case_batch(item)
        pred = self.inferer(batch["image"], self.network)
        done = self.postprocessing({**item, "pred": MetaTensor(pred[0])})
        self.probability = np.asarray(done["probability"])[0]  # of this volume
        return np.asarray(done["pred"])[0] > 0


def dice(pred: Volume, label: Volume) -> float:
    """Dice of two masks, 1 if both are empty."""
    total = pred.sum() + label.sum()
    return float(2 * (pred & label).sum() / total) if total else 1.0


def of_patients(model: Model, cases: list[dict]) -> dict[str, list[float]]:
    """Dice of each case by change, the unchanged volumes first."""
    load = LoadVolumed(["image", "label"])
    found: dict[str, list[float]] = {name: [] for name in ("unchanged", *CHANGES, *CUTS)}
    for case in cases:
        item = load(dict(case))
        image, label = item["image"], item["label"]
        brain = brain_mask(image.numpy()[0])
        for name in found:
            volume, truth = image, label
            if name in CHANGES:
                volume = image.clone()
                volume[0] = torch.from_numpy(CHANGES[name](image.numpy()[0].astype(np.float32), brain))
            elif name in CUTS:
                volume, truth = CUTS[name](image), CUTS[name](label)
            found[name].append(dice(model(volume), np.asarray(truth)[0] > 0))
    return found


def healthy_variants(volume: MetaTensor) -> dict[str, MetaTensor]:
    """A healthy volume, and what other scanners and protocols would make of it."""

    def with_values(values: Volume) -> MetaTensor:
        changed = volume.clone()
        changed[0] = torch.from_numpy(values.astype(np.float32))
        return changed

    def averaged(number: int) -> MetaTensor:
        axis = int(np.abs(affine_to_axes(volume)).argmax()) + 1
        length = volume.shape[axis] // number * number
        cut = volume.as_tensor().narrow(axis, 0, length)
        shape = list(cut.shape)
        shape[axis : axis + 1] = [length // number, number]
        thick = cut.reshape(shape).mean(axis + 1)
        affine = volume.affine.clone()
        affine[:3, 3] += affine[:3, axis - 1] * (number - 1) / 2
        affine[:3, axis - 1] *= number
        return MetaTensor(thick, affine=affine, meta=dict(volume.meta, affine=affine))

    values = volume.numpy()[0].astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    fraction = ((values - low) / (high - low)).clip(0)
    head = ndimage.binary_fill_holes(ndimage.binary_closing(fraction > 0.12, iterations=3))
    depth = ndimage.distance_transform_edt(head, sampling=affine_to_spacing(volume.affine).tolist())
    painted = np.where((depth >= 1) & (depth <= 6), low + 1.5 * (high - low), values)
    variants = {"as it is": volume, "averaged to 3 mm": averaged(3), "averaged to 5 mm": averaged(5)}
    for gamma in (0.7, 1.5):
        variants[f"gamma {gamma}"] = with_values(low + fraction**gamma * (high - low))
    variants["scalp painted"] = with_values(painted)
    rows = slice(volume.shape[1] // 10, -(volume.shape[1] // 10))
    variants["cropped"] = cast(MetaTensor, volume[:, rows])
    return variants


def affine_to_axes(volume: MetaTensor) -> Volume:
    """How far each array axis runs from the feet to the head."""
    return volume.affine[2, :3].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, metavar="SPLIT=WEIGHTS")
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--healthy", nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1, help="take every so many patients")
    parser.add_argument("--every_lesion", action="store_true", help="remove no lesion for being small")
    parser.add_argument("--no_flip", action="store_true")
    parser.add_argument("--output", type=Path, help="write the figures of each patient as JSON")
    args = parser.parse_args()
    figures: dict[str, dict] = {}
    for run in args.runs:
        split, _, weights = run.partition("=")
        model = Model(Path(weights), every_lesion=args.every_lesion, flip=not args.no_flip)
        for file in args.healthy:
            volume = LoadVolumed(["image"])({"image": [file]})["image"]
            for name, variant in healthy_variants(volume).items():
                voxel = abs(float(torch.det(variant.affine[:3, :3]))) / 1000
                millilitres = model(variant).sum() * voxel
                figures.setdefault(run, {}).setdefault(file, {})[name] = millilitres
                print(f"{split}: {Path(file).name}, {name}: {millilitres:.1f} mL", flush=True)
        if args.healthy:
            continue
        cases = datalist(args.dataset_dir, split, "validation", True)[:: args.every]
        figures[run] = of_patients(model, cases)
        before = np.array(figures[run]["unchanged"])
        for name, values in figures[run].items():
            loss = before - np.array(values)
            print(f"{split}: {name}: {np.mean(values):.3f}, lost {loss.mean():+.3f}, most {loss.max():.3f}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
