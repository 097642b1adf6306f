"""Keep the learning curves of a run as a small file and a picture.

python bundle/docs/learning_curves.py runs/20261123-004436 bundle/docs/learning_curves

writes `learning_curves.csv` (tag, step, value; the loss as its mean over every 50 steps) and `learning_curves.png`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SPAN = 50
Curves = dict[str, list[tuple[int, float]]]


def read_curves(run_dir: Path) -> Curves:
    """Read all scalars of a run, its resumed parts joined; of a step that was trained twice, the later."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    curves = {tag: sorted({e.step: e.value for e in events.Scalars(tag)}.items()) for tag in events.Tags()["scalars"]}
    return {tag: _means(curve) if len(curve) > 10 * SPAN else curve for tag, curve in curves.items()}


def _means(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    parts = (curve[start : start + SPAN] for start in range(0, len(curve), SPAN))
    return [(part[-1][0], fmean(value for _, value in part)) for part in parts]


def draw(curves: Curves, title: str) -> plt.Figure:
    """Draw the loss by step, and all that was validated by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(*zip(*curves["train/loss"]))
    left.set(xlabel="step", ylabel="loss (Dice + cross-entropy)", ylim=(0, None))
    for tag, curve in curves.items():
        if tag.startswith("validation/"):
            right.plot(*zip(*curve), label=tag.removeprefix("validation/").replace("_", " "))
    right.set(xlabel="epoch", ylim=(0.5, 1))
    right.legend(loc="lower right")
    figure.suptitle(title, fontsize="medium")
    return figure


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("output", type=Path, help="path of both files without their suffix")
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    curves = read_curves(args.run_dir)
    with args.output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tag", "step", "value"])
        writer.writerows([tag, step, f"{value:.6g}"] for tag, curve in curves.items() for step, value in curve)
    draw(curves, args.title).savefig(args.output.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
