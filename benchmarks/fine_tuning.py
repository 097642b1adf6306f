"""Measure how many labelled cases of a new hospital fine-tuning needs.

    python benchmarks/fine_tuning.py --dataset_dir data/kaggle_3m

The new hospital is institution DU of TCGA-LGG, and the weights are those that were trained without it
(`benchmarks/left_out/DU`). The 44 patients of DU outside the published test section are dealt three times into 24 to
evaluate and a pool of 20. For each deal, the weights are evaluated as they are, and after fine-tuning
(`bundle/configs/fine_tune.json`) on the first 2, 5, 10 and 20 patients of the pool; beside them, networks are trained
from scratch, as long, on 5 and 20. The last weights are evaluated, so nothing is chosen by the patients they are
evaluated on. Finished parts are not run again, so the program can be stopped and started. After each deal, it writes a
table of both protocols, mean and spread over the deals that are complete, to `fine_tuning.md` in `--output_dir`, and
draws it to `fine_tuning.png`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from experiments import CONFIGS, ROOT, figures, run

from mri_seg.datasets.lgg import load_split

HOSPITAL = "institution/DU"  # the split whose validation section is the new hospital
WEIGHTS = ROOT / "benchmarks" / "left_out" / "DU" / "model_final.pt"
EVALUATED, POOL = 24, 20
FINE_TUNED, FROM_SCRATCH = (0, 2, 5, 10, 20), (5, 20)
EVALUATION = {"report": "false", "section": "test"}
SHOWN = ("patient mean", "patient lowest", "slice Dice")
COLORS = {"fine-tuned": "#0072b2", "from scratch": "#d55e00"}

Results = dict[tuple[str, int], list[dict[str, float]]]  # of each deal, by kind and number of own patients


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
        content = {"training": sorted(pool[:count]), "test": sorted(evaluated)}
        splits[count].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return splits


def keep_weights(weights: Path, output_dir: Path) -> Path:
    """Copy the weights to the results, so that all parts, also those run later, begin with the same ones."""
    kept = output_dir / "weights.pt"
    output_dir.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        shutil.copy(weights, kept)
    elif kept.read_bytes() != weights.read_bytes():
        raise SystemExit(f"{output_dir} holds results of other weights than {weights}: name another --output_dir.")
    return kept


def table(results: Results) -> str:
    """Draw the table: mean over the deals, with the lowest and the highest; the gain is that of each deal."""
    header = ("weights", "own patients", SHOWN[0], "gain over none", *SHOWN[1:])
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    without = [one[SHOWN[0]] for one in results["fine-tuned", 0]]
    for (kind, count), found in results.items():
        cells = [_spread([one[figure] for one in found]) for figure in SHOWN]
        gains = [one[SHOWN[0]] - mark for one, mark in zip(found, without)]
        cells.insert(1, _spread(gains, "+") if (kind, count) != ("fine-tuned", 0) else "")
        lines.append(f"| {kind if count else 'as they are'} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], sign: str = "") -> str:
    mean, lowest, highest = (f"{v:{sign}.3f}" for v in (statistics.mean(values), min(values), max(values)))
    return f"{mean} ({lowest} to {highest})"


def draw(results: Results, file: Path) -> None:
    """Draw mean patient Dice against the number of own patients: each deal, and the mean over the deals."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for kind, color in COLORS.items():
        of_kind = {
            count: [one["patient mean"] for one in found] for (name, count), found in results.items() if name == kind
        }
        for values in zip(*of_kind.values()):
            axes.plot(list(of_kind), values, "o-", color=color, alpha=0.3, markersize=4, linewidth=0.8)
        axes.plot(list(of_kind), [statistics.mean(v) for v in of_kind.values()], "o-", color=color, label=kind)
    axes.set_xlabel("labelled patients of the new hospital")
    axes.set_ylabel("mean patient Dice")
    axes.set_xticks(sorted({count for _, count in results}))
    axes.grid(alpha=0.3)
    axes.legend(title="mean (bold) and each deal", loc="best")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/fine_tuning"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="weights that were trained without DU")
    parser.add_argument("--deals", type=int, default=3, help="how many times the patients are dealt")
    parser.add_argument("--amp", choices=["true", "false"], help="of trainings and evaluations (default: automatic)")
    parser.add_argument("--compile", choices=["true", "false"], help="of trainings (default: false)")
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
    weights = keep_weights(args.weights.resolve(), output_dir)
    switches = {key: value for key in ("amp", "compile") if (value := getattr(args, key)) is not None}
    given = {key: json.loads(value) for key, value in args.override} | {
        key: value == "true" for key, value in switches.items()
    }
    evaluation = EVALUATION | {key: value for key, value in switches.items() if key == "amp"}
    fine_tune = json.loads((CONFIGS / "fine_tune.json").read_text(encoding="utf-8"))
    length = {key: fine_tune[key] for key in ("epochs", "slices_per_epoch")}
    plans = {
        "fine-tuned": (FINE_TUNED, {**fine_tune, "initial_weights": str(weights)}),
        "from scratch": (FROM_SCRATCH, length),
    }

    results: Results = {}
    for number in range(args.deals):
        splits = deal(number, output_dir)
        of_deal = {}
        for kind, (counts, overrides) in plans.items():
            for count in counts:
                folder = output_dir / f"deal{number}" / f"{kind.replace(' ', '-')}-{count}"
                if not count:  # there is nothing to train
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(weights, folder / "model_final.pt")
                run(folder, {**overrides, **given}, evaluation, str(splits[count]), number, dataset_dir)
                of_deal[kind, count] = figures(folder)
                print(number, kind, count, {key: round(of_deal[kind, count][key], 3) for key in SHOWN}, flush=True)
        for place, found in of_deal.items():
            results.setdefault(place, []).append(found)
        draw(results, output_dir / "fine_tuning.png")
        written = f"{number + 1} of {args.deals} deals.\n\n{table(results)}\n"
        (output_dir / "fine_tuning.md").write_text(written, encoding="utf-8")
        print(written, flush=True)


if __name__ == "__main__":
    main()
