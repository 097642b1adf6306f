"""Measure how well quality is estimated for institutions that neither the network nor the fit has seen.

    python benchmarks/quality.py --dataset_dir data/kaggle_3m

Every patient of DU, HT and FG is segmented by the weights in ``benchmarks/left_out`` that left its institution out.
What is fitted is fitted to the other two. Each patient is also segmented once with a simulated fault: scalp dimmed,
half contrast, noise or a cropped head, in turn. The program prints the figures as tables in Markdown, draws
the reliability diagram, and writes ``quality.json``, fitted to all three institutions, for the weights of the bundle.
The record of each case is kept in ``runs/quality``, by the weights' SHA-256: figures are computed again in seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from robustness import CHANGES
from scipy import stats

import mri_seg
from mri_seg.quality.calibration import Calibration, expected_calibration_error, fit_calibration, reliability
from mri_seg.quality.expected_dice import ExpectedDice, fit_expected_dice
from mri_seg.quality.fit import fit_quality
from mri_seg.quality.interval import VolumeInterval, fit_volume_interval
from mri_seg.quality.records import preprocessing_options, records_of
from mri_seg.transforms.brain import brain_mask
from mri_seg.utils.files import sha256, write_json

ROOT = Path(__file__).resolve().parent.parent
INSTITUTIONS = ("DU", "HT", "FG")
LOW = 0.7
OPTIONS = {"threshold": 0.5, "min_lesion_volume": 800, "tta_flip": True, "fill_holes": True}


def cropped(image: MetaTensor, label: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
    """Cut off the front fifth of the head."""
    rows = image.shape[1] // 5
    return image[:, rows:], label[:, rows:]


def changed(name: str) -> Any:
    """A change of the program that measures robustness."""

    def change(image: MetaTensor, label: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
        values = image.numpy()[0].astype(np.float32)
        image = image.clone()
        image[0] = torch.from_numpy(CHANGES[name](values, brain_mask(values)).astype(np.float32))
        return image, label

    return change


DEGRADED = {
    "cropped": cropped,
    **{name: changed(name) for name in ("scalp at 0.3", "half contrast", "noise")},
}


def records(weights: Path, group: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of all patients of an institution, unchanged and degraded; those of an earlier run are read."""
    file = args.cache / f"{group}-{sha256(weights)[:12]}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    done = {(record["case"], record["kind"]) for record in found}
    segmenter: Any = None
    cases = mri_seg.datalist(args.dataset_dir, f"institution/{group}", "validation", True)
    for number, case in enumerate(cases):
        kinds: dict[str, Any] = {"ordinary": None}
        if not args.no_degraded:
            kind = list(DEGRADED)[number % len(DEGRADED)]
            kinds[kind] = DEGRADED[kind]
        for kind, change in kinds.items():
            if (case["case"], kind) in done:
                continue
            if segmenter is None:
                segmenter = mri_seg.Segmenter(
                    checkpoint=str(weights),
                    runtime=args.runtime,
                    amp=False,
                    quality=False,
                    **OPTIONS,
                    **preprocessing_options(weights),
                )
            (record,) = records_of(segmenter, [case], change)
            found.append({**record, "group": group, "kind": kind})
            if len(found) % 10 == 0:
                write_json(file, found)
    write_json(file, found)
    return found


def area_under_curve(trust: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a bad case has less trust than a good one."""
    low, high = trust[bad], trust[~bad]
    if not len(low) or not len(high):
        return float("nan")
    return float(np.mean((low[:, None] < high) + 0.5 * (low[:, None] == high)))


def bootstrap(rows: list[np.ndarray], statistic: Any, seed: int = 0) -> list[float]:
    """95 % interval of a statistic of patients; ``rows`` hold the same patients, resampled within groups (the last)."""
    draw, groups = np.random.default_rng(seed), rows[-1]
    values = []
    for _ in range(1000):
        chosen = np.concatenate(
            [draw.choice(np.flatnonzero(groups == g), (groups == g).sum()) for g in np.unique(groups)]
        )
        values.append(statistic(*(row[chosen] for row in rows)))
    return np.nanpercentile(values, (2.5, 97.5)).tolist()


def mean_rank_correlation(trust: np.ndarray, dice: np.ndarray, groups: np.ndarray) -> float:
    """Spearman's correlation within each group, averaged."""
    within = [(trust[groups == g], dice[groups == g]) for g in np.unique(groups)]
    return float(np.mean([stats.spearmanr(a, b).statistic for a, b in within if len(set(a)) > 1 and len(set(b)) > 1]))


def fitted_without(
    group: str, found: list[dict[str, Any]]
) -> tuple[Calibration, ExpectedDice, VolumeInterval, tuple[float, float]]:
    """What the patients of the other institutions give: calibration, expected Dice, interval and a constant factor."""
    others = [one for one in found if one["group"] != group and one["kind"] == "ordinary"]
    seen = [one for one in others if one["pred_voxels"]]
    spreads, groups = [one["spread"] for one in seen], [one["group"] for one in seen]
    volumes = [one["pred_voxels"] for one in seen], [one["label_voxels"] for one in seen]
    return (
        fit_calibration([np.array(one["near"]) for one in others]),
        fit_expected_dice(spreads, [one["dice"] for one in seen], groups),
        fit_volume_interval(*volumes, spreads, groups),
        fit_volume_interval(*volumes, [1.0] * len(seen), groups)(1.0, 1.0),
    )


def calibration_table(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the expected calibration error before and after, by institution and as a mean over patients."""
    print("\n| institution | temperature | near: before | after | 0.05 to 0.95: before | after |")
    print("| --- | --- | --- | --- | --- | --- |")
    curves: dict[str, Any] = {}
    single: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    means: list[list[float]] = []
    for group in INSTITUTIONS:
        calibration = fitted_without(group, found)[0]
        counts = [np.array(one["near"]) for one in found if one["group"] == group and one["kind"] == "ordinary"]
        ways = [(None, False), (calibration, False), (None, True), (calibration, True)]
        errors = [expected_calibration_error(reliability(sum(counts), how, unsure=unsure)) for how, unsure in ways]
        means += [
            [expected_calibration_error(reliability(one, how, unsure=unsure)) for how, unsure in ways] for one in counts
        ]
        curves[group] = [reliability(sum(counts), how) for how in (None, calibration)]
        for one in counts:
            for rows, how in zip(single, (None, calibration)):
                rows.append(reliability(one / max(one.sum(), 1), how))
        print(f"| {group} | {calibration.temperature:.2f} | " + " | ".join(f"{error:.3f}" for error in errors) + " |")
    print("| mean over patients | | " + " | ".join(f"{error:.3f}" for error in np.nanmean(means, 0)) + " |")
    curves["mean over patients"] = [averaged(np.concatenate(rows)) for rows in single]
    return curves


def averaged(rows: np.ndarray, bins: int = 15) -> np.ndarray:
    """Merge the bins of several patients."""
    places = np.minimum((rows[:, 1] * bins).astype(int), bins - 1)
    return np.array(
        [[1, *np.average(rows[places == n, 1:], axis=0, weights=rows[places == n, 0])] for n in set(places)]
    )


def draw(curves: dict[str, Any], file: Path) -> None:
    """Draw the reliability diagram."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (group, (before, after)) in zip(figure.subplots(1, len(curves), sharey=True), curves.items()):
        axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        axes.plot(before[:, 1], before[:, 2], "o-", label="network", markersize=3)
        axes.plot(after[:, 1], after[:, 2], "s-", label="calibrated", markersize=3)
        axes.set(title=group, xlabel="probability", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
    figure.axes[0].set_ylabel("fraction of tumour")
    figure.savefig(file, dpi=110)


def volume_table(found: list[dict[str, Any]]) -> None:
    """Print how many references lie in their interval, by institution, and how wide intervals are."""
    print("\n| institution | within | 95 % interval (Clopper-Pearson) | median high / low | constant high / low |")
    print("| --- | --- | --- | --- | --- |")
    inside, widths, errors, total = 0, [], [], 0
    for group in INSTITUTIONS:
        _, _, interval, constant = fitted_without(group, found)
        own = [one for one in found if one["group"] == group and one["kind"] == "ordinary" and one["label_voxels"]]
        ends = [interval(one["pred_voxels"], one["spread"]) for one in own if one["pred_voxels"]]
        refs = [one["label_voxels"] for one in own if one["pred_voxels"]]
        held = sum(low <= ref <= high for (low, high), ref in zip(ends, refs))
        here = [high / low for low, high in ends]
        errors += [abs(np.log(one["label_voxels"] / one["pred_voxels"])) for one in own if one["pred_voxels"]]
        low, high = stats.binomtest(held, len(own)).proportion_ci(method="exact")
        print(
            f"| {group} | {held} of {len(own)} | {low:.2f} to {high:.2f} | {np.median(here):.2f} | "
            f"{constant[1] / constant[0]:.2f} |"
        )
        inside, widths, total = inside + held, widths + here, total + len(own)
    # The narrowest constant factor, chosen afterwards, that holds as many references.
    best = float(np.exp(2 * np.sort(errors)[inside - 1]))
    print(f"| all | {inside} of {total} | | {np.median(widths):.2f} | {best:.2f} (chosen afterwards) |")


def trust_table(found: list[dict[str, Any]], ordinary: bool) -> None:
    """Print how well expected Dice, volume and mean probability tell good results from bad ones."""
    of_kind = [one for one in found if (one["kind"] == "ordinary") == ordinary]
    if not of_kind:
        return
    dice, groups = np.array([one["dice"] for one in of_kind]), np.array([one["group"] for one in of_kind])
    estimates = {group: fitted_without(group, found)[1] for group in INSTITUTIONS}

    def mean_probability(one: dict[str, Any]) -> float:
        sizes = [lesion["voxels"] for lesion in one["lesions"]]
        return float(np.average([lesion["mean_probability"] for lesion in one["lesions"]], weights=sizes))

    ways = {
        "expected Dice": lambda one: estimates[one["group"]](one["spread"])[0] if one["pred_voxels"] else -1.0,
        "predicted volume": lambda one: float(one["pred_voxels"]),
        "mean probability": lambda one: mean_probability(one) if one["lesions"] else -1.0,
    }
    bad = dice < LOW
    print(f"\n{'Ordinary' if ordinary else 'Degraded'}: {len(dice)} patients, {bad.sum()} with Dice under {LOW}.")
    print("\n| by | rank correlation within institutions | area under the curve |")
    print("| --- | --- | --- |")
    for name, way in ways.items():
        trust = np.array([way(one) for one in of_kind])
        ranks = bootstrap([trust, dice, groups], mean_rank_correlation)
        areas = bootstrap([trust, bad, groups], lambda t, b, g: area_under_curve(t, b))
        print(
            f"| {name} | {mean_rank_correlation(trust, dice, groups):.2f} [{ranks[0]:.2f}, {ranks[1]:.2f}] | "
            f"{area_under_curve(trust, bad):.2f} [{areas[0]:.2f}, {areas[1]:.2f}] |"
        )
    seen = [one for one in of_kind if one["pred_voxels"]]
    ranges = [(estimates[one["group"]](one["spread"]), one["dice"]) for one in seen]
    held = sum(low <= true <= high for (_, low, high), true in ranges)
    error = np.mean([abs(expected - true) for (expected, _, _), true in ranges])
    print(f"\nDice within its range in {held} of {len(seen)}; mean error of expected Dice {error:.3f}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--left_out", type=Path, default=ROOT / "benchmarks" / "left_out", help="folder of the weights")
    parser.add_argument("--runs", nargs="*", default=[], metavar="INSTITUTION=WEIGHTS", help="instead of --left_out")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "bundle" / "models" / "model.pt")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--no_degraded", action="store_true", help="leave out the simulated faults")
    parser.add_argument("--no_fit", action="store_true", help="only print figures; draw and write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    files = {group: args.left_out / group / "model_final.pt" for group in INSTITUTIONS}
    files |= {group: Path(weights) for group, _, weights in (run.partition("=") for run in args.runs)}
    found = [record for group in INSTITUTIONS for record in records(files[group], group, args)]
    curves = calibration_table(found)
    volume_table(found)
    trust_table(found, ordinary=True)
    trust_table(found, ordinary=False)
    if args.no_fit:
        return
    draw(curves, ROOT / "bundle" / "docs" / "reliability.png")
    ordinary = [one for one in found if one["kind"] == "ordinary"]
    declared = mri_seg.declaration(args.checkpoint, (), {**OPTIONS, "runtime": "openvino-int8"})
    fitted_on = [
        {
            "checkpoint_sha256": sha256(files[group]),
            "split": f"institution/{group}",
            "cases": sum(one["group"] == group for one in ordinary),
        }
        for group in INSTITUTIONS
    ]
    output = args.checkpoint.with_name("quality.json")
    write_json(output, {"declared_for": declared, "fitted_on": fitted_on, **fit_quality(ordinary)})
    print(f"\nWrote {output}")


if __name__ == "__main__":
    main()
