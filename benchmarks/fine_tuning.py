"""Measure how many labelled cases of a new hospital fine-tuning needs.

    python benchmarks/fine_tuning.py --dataset_dir data/kaggle_3m

Weights are trained without institution DU, or given by `--weights`. The 44 patients of DU outside the published test
section are dealt three times into 24 to evaluate and a pool of 20. For each deal, the weights are evaluated as they
are, and after fine-tuning (`bundle/configs/fine_tune.json`) on the first 2, 5, 10 and 20 patients of the pool; beside
them, networks are trained from scratch, as long, on 5 and 20. The last weights are evaluated, so nothing is chosen by
the patients they are evaluated on. Finished parts are not run again, so the program can be stopped and started. At the
end it prints a table of both protocols, mean and spread over the deals, and draws them to `fine_tuning.png` in
`--output_dir`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from experiments import CONFIGS, ROOT, bundle, figures, run

from mri_seg.datasets.lgg import load_split

HOSPITAL = "institution/DU"  # the split whose validation section is the new hospital
EVALUATED, POOL = 24, 20
FINE_TUNED, FROM_SCRATCH = (0, 2, 5, 10, 20), (5, 20)
EVALUATION = {"report": "false"}
SHOWN = ("patient mean", "patient lowest", "slice Dice")
COLORS = {"fine-tuned": "#0072b2", "from scratch": "#d55e00"}


def deal(number: int, output_dir: Path) -> dict[int, Path]:
    """Write the splits of a deal, one for each number of patients to train on, nested in each other."""
    patients = sorted(load_split(HOSPITAL)["validation"])
    random.Random(number).shuffle(patients)
    evaluated, pool = patients[:EVALUATED], patients[EVALUATED:]
    if len(pool) != POOL:
        raise SystemExit(f"{HOSPITAL} has {len(patients)} patients, expected {EVALUATED + POOL}.")
    folder = output_dir / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for count in sorted({*FINE_TUNED, *FROM_SCRATCH}):
        splits[count] = folder / f"deal{number}-{count}.json"
        content = {"training": sorted(pool[:count]), "validation": sorted(evaluated)}
        splits[count].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return splits


def evaluate(folder: Path, weights: Path, split: Path, overrides: dict[str, Any], dataset_dir: str) -> None:
    """Evaluate weights as they are, unless their figures are there."""
    overrides = {
        **overrides,
        "initial_weights": str(weights),
    }  # which an evaluation leaves alone: so that they are told
    overlay = folder / "overrides.json"
    if overlay.is_file() and json.loads(overlay.read_text(encoding="utf-8")) != overrides:
        raise SystemExit(f"{folder} holds an evaluation with other overrides: name another --output_dir.")
    if (folder / "evaluation" / "metrics.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    overlay.write_text(json.dumps(overrides, indent=4) + "\n", encoding="utf-8")
    configs = [CONFIGS / "train.json", overlay, CONFIGS / "evaluate.json"]
    options = {"dataset_dir": dataset_dir, "split": split, "allow_missing": "true", "bundle_root": ROOT / "bundle"}
    output = {"output_dir": folder / "evaluation", "checkpoint": weights}
    bundle("evaluation", configs, folder / "evaluation.log", **options, **output, **EVALUATION)


def table(results: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    """Draw the table: mean over the deals, with the lowest and the highest."""
    lines = ["| weights | own patients | " + " | ".join(SHOWN) + " |", "|" + " --- |" * (len(SHOWN) + 2)]
    for (kind, count), found in results.items():
        values = [[one[figure] for one in found] for figure in SHOWN]
        cells = [f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values]
        lines.append(f"| {kind} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: dict[tuple[str, int], list[dict[str, float]]], file: Path) -> None:
    """Draw mean patient Dice against the number of own patients: each deal, and the mean over the deals."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for kind, color in COLORS.items():
        of_kind = {
            count: [one["patient mean"] for one in found] for (name, count), found in results.items() if name == kind
        }
        if not of_kind:
            continue
        for count, values in of_kind.items():
            axes.plot([count] * len(values), values, "o", color=color, alpha=0.4, markersize=5)
        axes.plot(list(of_kind), [statistics.mean(v) for v in of_kind.values()], "o-", color=color, label=kind)
    axes.set_xlabel("labelled patients of the new hospital")
    axes.set_ylabel("mean patient Dice")
    axes.set_xticks(sorted({count for _, count in results}))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/fine_tuning"))
    parser.add_argument("--weights", type=Path, help="weights that were trained without DU, if there are any")
    parser.add_argument("--deals", type=int, default=3, help="how many times the patients are dealt")
    parser.add_argument(
        "--override",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "JSON"),
        help="an option of all trainings, such as --override slices_per_epoch 16",
    )
    args = parser.parse_args()
    output_dir = args.output_dir.resolve()
    dataset_dir = str(Path(args.dataset_dir).resolve())
    given = {key: json.loads(value) for key, value in args.override}
    fine_tune = json.loads((CONFIGS / "fine_tune.json").read_text(encoding="utf-8"))
    length = {key: fine_tune[key] for key in ("epochs", "slices_per_epoch")}

    weights = args.weights
    if weights is None:
        run(output_dir / "without-DU", {"val_interval": 25, **given}, EVALUATION, HOSPITAL, 0, dataset_dir)
        weights = output_dir / "without-DU" / "model_final.pt"
    weights = weights.resolve()
    plans = {
        "fine-tuned": (FINE_TUNED, {**fine_tune, "initial_weights": str(weights)}),
        "from scratch": (FROM_SCRATCH, length),
    }
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    for number in range(args.deals):
        splits = deal(number, output_dir)
        for kind, (counts, overrides) in plans.items():
            for count in counts:
                folder = output_dir / f"deal{number}" / f"{kind.replace(' ', '-')}-{count}"
                if count:
                    last = {"val_interval": length["epochs"], **overrides, **given}
                    run(folder, last, EVALUATION, str(splits[count]), number, dataset_dir)
                else:
                    evaluate(folder, weights, splits[min(filter(None, counts))], given, dataset_dir)
                results.setdefault((kind, count), []).append(figures(folder))
                print(number, kind, count, {key: round(figures(folder)[key], 3) for key in SHOWN}, flush=True)
    draw(results, output_dir / "fine_tuning.png")
    print(table(results))


if __name__ == "__main__":
    main()
