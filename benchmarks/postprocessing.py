r"""Try other thresholds and post-processing on patients that were not used for training.

    python benchmarks/postprocessing.py --dataset_dir data/kaggle_3m --runs \
        institution/DU=benchmarks/left_out/DU/model_final.pt \
        institution/HT=benchmarks/left_out/HT/model_final.pt \
        institution/FG=benchmarks/left_out/FG/model_final.pt

Each run is a split and the weights trained on its training section; the figures are those of its validation section.
The network runs once over each case, as `inference.json` has it, and once over its mirror image; all else is tried on
these probabilities. The first row is the choice of `inference.json`, and each other one differs in one setting from it.
A smallest lesion in mm3 counts voxels as `RemoveSmallLesionsd` does where files say no spacing.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.metrics import compute_dice
from segmented import OPTIONS, cleaning

from mri_seg.config.weights import load_weights
from mri_seg.evaluation.writer import slice_rows, summarize
from mri_seg.inference.inferers import bfloat16_is_fast

CONFIGS = Path(__file__).resolve().parent.parent / "bundle" / "configs"
OTHERS: dict[str, list] = {
    "tta_flip": [False],
    "threshold": [0.4, 0.6],
    "min_lesion_volume": [0, 400, 1600],
    "min_brain_fraction": [0, 0.5, 1],
    "min_lesion_fraction": [0, 0.02, 0.1, 1],
    "min_lesion_slices": [1, 3],
    "fill_holes": [False],
}
CHOSEN = {name: OPTIONS[name] for name in OTHERS}
NO_DISTANCES = {
    "hd95": math.nan,
    "surface_dice": math.nan,
    "distance_unit": "pixel",
    "label_voxels": 0,
    "pred_voxels": 0,
}


def probabilities(args: argparse.Namespace, split: str, weights: Path) -> list[dict]:
    """Each validation case with its label and its probability, single and averaged with the mirrored one."""
    parser = ConfigParser()
    overlay = weights.with_name("overrides.json")  # which benchmarks/experiments.py writes
    parser.read_config([CONFIGS / "train.json", *([overlay] if overlay.is_file() else []), CONFIGS / "evaluate.json"])
    parser.update({"dataset_dir": args.dataset_dir, "split": split, "allow_missing": True, "device": "cpu"})
    network = parser.get_parsed_content("network").eval()
    load_weights(network, weights)
    parser.update({"amp": bfloat16_is_fast("cpu"), "tta_flip": False, "ensemble": []})
    inferer = parser.get_parsed_content("validate#inferer")
    found = []
    for case in parser.get_parsed_content("validate#dataset"):
        probability = []
        for flip in (False, True):
            inferer.inferer.flip = flip
            with torch.no_grad():
                probability.append(inferer(case["image"][None], network)[0].sigmoid())
        found.append({"label": case["label"], "brain": case["brain"], "probability": probability})
    return found


def evaluate(cases: list[dict], choice: dict) -> dict:
    """Both protocols for one choice of settings."""
    clean = cleaning(choice)
    patients, slices = [], []
    for case in cases:
        probability, label = case["probability"][int(choice["tta_flip"])], case["label"]
        pred = MetaTensor((probability >= choice["threshold"]).float(), meta=label.meta, affine=label.affine)
        kept = torch.as_tensor(clean({"pred": pred, "brain": case["brain"]})["pred"])
        name = str(label.meta["case"])
        slices += slice_rows(name, kept, label)
        dice = float(compute_dice(kept[None], label[None], ignore_empty=False))
        patients.append({"case": name, "dice": dice, **NO_DISTANCES})
    found = summarize(patients, slices, resamples=2)
    protocol, dice = found["slice_protocol"], found["patient_protocol"]["dice"]
    return {
        "patient mean": dice["mean"],
        "patient lowest": dice["lowest"],
        "slice Dice": protocol["dice"]["mean"],
        "slice precision": protocol["precision"]["mean"],
        "slice recall": protocol["recall"]["mean"],
        "healthy slices with false tumour": protocol["healthy_slices_with_false_tumour"]["mean"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--runs", nargs="+", required=True, help="split=weights")
    parser.add_argument("--output", type=Path, help="JSON file for all figures")
    args = parser.parse_args()
    runs = dict(run.split("=", 1) for run in args.runs)
    cases = {split: probabilities(args, split, Path(weights)) for split, weights in runs.items()}
    rows = []
    print(
        "| flip | threshold | smallest lesion (mm3) | in the brain | beside the largest | slices | holes filled "
        "| patient mean, slice Dice, false tumour: of " + ", of ".join(runs),
        "| mean |",
    )
    for choice in [CHOSEN, *({**CHOSEN, name: value} for name, values in OTHERS.items() for value in values)]:
        figures = {split: evaluate(found, choice) for split, found in cases.items()}
        rows.append({**choice, "figures": figures})
        keys = ("patient mean", "slice Dice", "healthy slices with false tumour")
        mean = [sum(found[key] for found in figures.values()) / len(figures) for key in keys]
        cells = [" ".join(f"{found[key]:.3f}" for key in keys) for found in figures.values()]
        print(
            "|",
            " | ".join(str(value) for value in choice.values()),
            "|",
            " | ".join(cells),
            "|",
            *(f"{m:.4f}" for m in mean),
            "|",
            flush=True,
        )
    if args.output:
        args.output.write_text(json.dumps({"runs": runs, "rows": rows}, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
