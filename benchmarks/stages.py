"""Train in stages: each begins from the averaged weights of the one before, with a schedule of its own.

    python benchmarks/stages.py benchmarks/shipped.json --dataset_dir data/kaggle_3m --output_dir runs/shipped
    python benchmarks/stages.py benchmarks/left_out_stages.json --dataset_dir data/kaggle_3m \
        --split institution/DU --output_dir runs/left_out/DU --export benchmarks/left_out/DU

The JSON file lists the stages: the overrides of `train.json` of each, and `recipe`, a file beside it with more of them.
Finished stages are not run again, and an interrupted one resumes. If a stage gives the network more input channels than
the stage before, the weights of the new ones begin at zero. A stage with ``"average": true`` ends with the mean of its
weights and those it began from, in the folder ``averaged`` (Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022). ``--begin_from`` names weights that stand for the first stages, such as those that an earlier ``--export``
wrote. ``--export`` writes the last weights in half precision, their overrides and ``SHA256SUMS`` there.

The seed of a stage is ``--seed`` plus the ``seed`` that the stage names. Stages with the same seed draw the same slices
in the same order, so a stage that is to see something new names one of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from experiments import CONFIGS, ROOT, bundle, with_recipe
from monai.bundle import ConfigParser

from mri_seg.config.weights import read_weights, write_sums


def widened(weights: dict[str, torch.Tensor], channels: int) -> dict[str, torch.Tensor]:
    """Weights of a network whose first convolutions see more channels; the new ones change nothing at first."""
    wider = {}
    for name, value in weights.items():
        if name.startswith("encoders.0.") and value.dim() == 4 and value.shape[1] < channels and "unit1" not in name:
            value = torch.cat([value, value.new_zeros(len(value), channels - value.shape[1], *value.shape[2:])], dim=1)
        wider[name] = value
    return wider


def initial_weights(before: Path, folder: Path, overrides: dict) -> Path:
    """The weights of the stage before in float32, for as many input channels as this stage has."""
    config = ConfigParser()
    config.read_config(CONFIGS / "train.json")
    for key, value in overrides.items():
        config[key] = value
    channels = config.get_parsed_content("network_def#in_channels")
    weights = {name: w.float() if w.is_floating_point() else w for name, w in read_weights(before).items()}
    file = folder / "initial.pt"
    torch.save(widened(weights, channels), file)
    return file


def train(stages: list[dict], folder: Path, begin_from: Path | None, seed: int, **options: object) -> Path:
    """Train all stages that are not finished, and return the folder of the last one."""
    before = begin_from
    for number, overrides in enumerate(stages, 1):
        stage = folder / f"stage{number}"
        stage.mkdir(parents=True, exist_ok=True)
        overrides = {**overrides, "seed": seed + overrides.get("seed", 0)}
        average = overrides.pop("average", False)
        overlay = stage / "overrides.json"
        overlay.write_text(json.dumps(overrides, indent=4) + "\n", encoding="utf-8")
        given = dict(options)
        if before is not None:
            given["initial_weights"] = initial_weights(before, stage, overrides)
        if not (stage / "model_final.pt").is_file():
            print(f"stage {number} of {len(stages)}: {stage}", flush=True)
            bundle("training", [CONFIGS / "train.json", overlay], stage / "training.log", output_dir=stage, **given)
        before = averaged(stage) if average else stage / "model_final.pt"
    return before.parent if before else folder


def changed(
    weights: Mapping[str, torch.Tensor], change: Callable[[str, torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights with other floating-point values, and with their record of preprocessing, which a plain dict has not."""
    new: Any = copy.copy(weights)
    new.update({name: change(name, w) for name, w in weights.items() if w.is_floating_point()})
    return new


def averaged(stage: Path) -> Path:
    """Write the mean of the weights of a stage and those it began from, with the overrides of the stage."""
    ends = read_weights(stage / "model_final.pt")
    begins = read_weights(stage / "initial.pt")
    mean = changed(ends, lambda name, w: (w + begins[name].to(w)) / 2)
    folder = stage / "averaged"
    folder.mkdir(exist_ok=True)
    torch.save(mean, folder / "model_final.pt")
    (folder / "overrides.json").write_text((stage / "overrides.json").read_text(encoding="utf-8"), encoding="utf-8")
    return folder / "model_final.pt"


def export(stage: Path, folder: Path) -> None:
    """Write the averaged weights of a stage in half precision, with its overrides and the sums."""
    folder.mkdir(parents=True, exist_ok=True)
    half = changed(read_weights(stage / "model_final.pt"), lambda _, w: w.half())
    torch.save(half, folder / "model_final.pt")
    (folder / "overrides.json").write_text((stage / "overrides.json").read_text(encoding="utf-8"), encoding="utf-8")
    write_sums(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--split", help="split to train on; without it, what the stages say")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin_from", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--export", type=Path)
    args = parser.parse_args()
    stages = [with_recipe(one, args.stages.parent) for one in json.loads(args.stages.read_text(encoding="utf-8"))]
    options = {"bundle_root": ROOT / "bundle", "dataset_dir": Path(args.dataset_dir).resolve(), "allow_missing": "true"}
    if args.split:
        options["split"] = args.split
    last = train(stages, args.output_dir.resolve(), args.begin_from, seed=args.seed, **options)
    if args.export:
        export(last, args.export)


if __name__ == "__main__":
    main()
