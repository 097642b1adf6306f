"""Run a prepared list of experiments unattended, each the bundle's own training and evaluation with overrides.

    python benchmarks/experiments.py benchmarks/experiments.json --dataset_dir data/kaggle_3m

The list is a JSON file: `recipe`, a file beside it with the overrides of a whole recipe, which an experiment may name
too; `common`, overrides of every experiment; `evaluation`, options of every evaluation; `splits`, on each of which
every experiment is trained; `seeds`; and `experiments`, the overrides of each by name. An override is a key of
`train.json`, nested ones with `#`. Training runs to its last epoch and its last weights are evaluated on the split's
validation section. Finished experiments are not run again, so the program can be stopped and started. At the end, it
prints a table of both protocols, mean and spread over the splits, and the difference to the first experiment on the
splits and seeds that both have.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bundle" / "configs"
FIGURES = {
    "patient mean": ("patient_protocol", "dice", "mean"),
    "patient lowest": ("patient_protocol", "dice", "lowest"),
    "slice Dice": ("slice_protocol", "dice", "mean"),
    "slice precision": ("slice_protocol", "precision", "mean"),
    "slice recall": ("slice_protocol", "recall", "mean"),
    "healthy slices with false tumour": ("slice_protocol", "healthy_slices_with_false_tumour", "mean"),
}


def with_recipe(overrides: dict, folder: Path) -> dict:
    """Overrides together with those of the recipe that they name, a file in a folder."""
    own = {key: value for key, value in overrides.items() if key != "recipe"}
    if "recipe" not in overrides:
        return own
    return {**json.loads((folder / overrides["recipe"]).read_text(encoding="utf-8")), **own}


def bundle(run_id: str, configs: list[Path], log: Path, **overrides: object) -> None:
    """Run one command of the bundle; its output goes to the log."""
    files = str([str(config) for config in configs])
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id, "--config_file", files]
    for key, value in overrides.items():
        command += [f"--{key}", str(value)]
    with log.open("w", encoding="utf-8") as output:
        subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=True)


def run(folder: Path, overrides: dict, evaluation: dict, split: str, seed: int, dataset_dir: str) -> None:
    """Train and evaluate one experiment on one split, unless its figures are there."""
    overlay = folder / "overrides.json"
    if overlay.is_file() and json.loads(overlay.read_text(encoding="utf-8")) != overrides:
        raise SystemExit(f"{folder} holds an experiment with other overrides: name another --output_dir.")
    if (folder / "evaluation" / "metrics.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    overlay.write_text(json.dumps(overrides, indent=4) + "\n", encoding="utf-8")
    common = {"bundle_root": ROOT / "bundle", "dataset_dir": dataset_dir, "split": split, "allow_missing": "true"}
    weights = folder / "model_final.pt"
    if not weights.is_file():
        configs = [CONFIGS / "train.json", overlay]
        bundle("training", configs, folder / "training.log", output_dir=folder, seed=seed, **common)
    configs = [CONFIGS / "train.json", overlay, CONFIGS / "evaluate.json"]
    output = {"output_dir": folder / "evaluation", "checkpoint": weights}
    bundle("evaluation", configs, folder / "evaluation.log", **common, **output, **evaluation)


def figures(folder: Path) -> dict[str, float]:
    """Both protocols of a finished experiment."""
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    return {name: metrics[protocol][score][kind] for name, (protocol, score, kind) in FIGURES.items()}


def table(results: dict[str, dict[tuple[str, int], dict[str, float]]]) -> str:
    """Draw the table of all finished experiments, the first one as the mark."""
    lines = ["| experiment | runs | " + " | ".join(FIGURES) + " |", "|" + " --- |" * (len(FIGURES) + 2)]
    mark = next(iter(results.values()))
    for name, runs in results.items():
        cells = []
        for figure in FIGURES:
            values = [found[figure] for found in runs.values()]
            cell = f"{statistics.mean(values):.3f}"
            if len(values) > 1:
                cell += f" ({min(values):.3f} to {max(values):.3f})"
            differences = [found[figure] - mark[run][figure] for run, found in runs.items() if run in mark]
            if runs is not mark and differences:
                cell += f", {statistics.mean(differences):+.3f}"
            cells.append(cell)
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/experiments"))
    args = parser.parse_args()
    plan = json.loads(args.list.read_text(encoding="utf-8"))
    output_dir = args.output_dir.resolve()
    results: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for name, changes in plan["experiments"].items():
        for seed in plan.get("seeds", [0]):
            for split in plan["splits"]:
                folder = output_dir / name / f"{split.replace('/', '-')}-seed{seed}"
                try:
                    recipe = {"recipe": plan["recipe"]} if "recipe" in plan else {}
                    overrides = with_recipe({**recipe, **plan.get("common", {}), **changes}, args.list.parent)
                    run(folder, overrides, plan.get("evaluation", {}), split, seed, args.dataset_dir)
                except subprocess.CalledProcessError as error:
                    print(f"{folder}: failed, exit status {error.returncode}; see its logs.", file=sys.stderr)
                    continue
                results.setdefault(name, {})[split, seed] = figures(folder)
                print(name, split, seed, {key: round(value, 3) for key, value in figures(folder).items()}, flush=True)
    if results:
        print(table(results))


if __name__ == "__main__":
    main()
