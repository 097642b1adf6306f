"""Measure how well quality is estimated for institutions that neither the network nor the fit has seen.

    python benchmarks/quality.py --dataset_dir data/kaggle_3m

Every patient of DU, HT and FG is segmented by the weights in ``benchmarks/left_out`` that left its institution out, as
it is and with simulated faults; see ``benchmarks/segmented.py``, whose records ``benchmarks/checks.py`` uses too. What
is fitted is fitted to the other two institutions. The program prints the figures as tables in Markdown, draws
the reliability diagram, and writes ``quality.json``, fitted to all three institutions, for the weights of the bundle.
The first run takes about ten minutes of one core; later ones take seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats
from segmented import INSTITUTIONS, OPTIONS, ORDINARY, ROOT, add_arguments, left_out_weights, records

import mri_seg
from mri_seg.quality.calibration import (
    LOGITS,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability,
    unsure_counts,
)
from mri_seg.quality.expected_dice import ExpectedDice, fit_expected_dice
from mri_seg.quality.fit import fit_quality
from mri_seg.quality.interval import VolumeInterval, fit_volume_interval
from mri_seg.utils.files import sha256, write_json

LOW = 0.7
CORRELATIONS = (0.0, 0.2, 0.4)
Records = list[dict[str, Any]]


class Fitted(NamedTuple):
    """What the patients of the other institutions give."""

    calibration: Calibration
    expected_dice: ExpectedDice
    interval: VolumeInterval


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


def of_kind(found: Records, ordinary: bool = True) -> Records:
    return [one for one in found if (one["kind"] == ORDINARY) == ordinary]


def fitted_without(group: str, found: Records) -> Fitted:
    """What the ordinary patients of the other institutions give."""
    others = [one for one in of_kind(found) if one["group"] != group]
    seen = [one for one in others if one["pred_voxels"]]
    spreads, groups = [one["spread"] for one in seen], [one["group"] for one in seen]
    volumes = [one["pred_voxels"] for one in seen], [one["label_voxels"] for one in seen]
    return Fitted(
        fit_calibration([one["near"] for one in seen], [one["all"] for one in seen], spreads),
        fit_expected_dice(spreads, [one["dice"] for one in seen], groups),
        fit_volume_interval(*volumes, spreads, groups),
    )


def bins_of(one: dict[str, Any], values: np.ndarray | None = None) -> list[np.ndarray]:
    """Bins near the masks, and those of unsure voxels, for a probability at each level."""
    return [reliability(one["near"], values), reliability(unsure_counts(one["all"], values), values)]


def calibration_table(found: Records, fits: dict[str, Fitted]) -> dict[str, list[np.ndarray]]:
    """Print the expected calibration error before and after, pooled by institution and as a mean over patients."""
    print("\n| expected calibration error | temperature | near: before | after | 0.05 to 0.95: before | after |")
    print("| --- | --- | --- | --- | --- | --- |")
    curves: dict[str, list[np.ndarray]] = {}
    patients: list[list[np.ndarray]] = []
    for group in INSTITUTIONS:
        calibration = fits[group].calibration
        own = [one for one in of_kind(found) if one["group"] == group]
        rows = [[*bins_of(one), *bins_of(one, calibration.levels(one["spread"]))] for one in own]
        patients += rows
        near, unsure, near_after, unsure_after = (np.sum(bins, axis=0) for bins in zip(*rows))
        curves[group] = [near, near_after]
        pooled = (expected_calibration_error(bins) for bins in (near, near_after, unsure, unsure_after))
        temperatures = np.quantile([calibration.of_spread(one["spread"]) for one in own], (0.05, 0.95))
        between = " to ".join(f"{one:.1f}" for one in temperatures)
        print(f"| {group} | {between} | " + " | ".join(f"{error:.3f}" for error in pooled) + " |")
    order = [0, 2, 1, 3]
    means = np.nanmean([[expected_calibration_error(row[n]) for n in order] for row in patients], 0)
    print("| mean over patients | | " + " | ".join(f"{error:.3f}" for error in means) + " |")
    curves["mean over patients"] = [sum(row[n] / max(row[n][:, 0].sum(), 1) for row in patients) for n in (0, 2)]
    return curves


def offset_fitted(cases: Records) -> np.ndarray:
    """Probability at each level by Platt scaling: a temperature and an offset."""
    shares = sum(np.array(one["near"]) / max(np.sum(one["near"]), 1) for one in cases)

    def loss(found: np.ndarray) -> float:
        logits = LOGITS * np.exp(-found[0]) + found[1]
        return float((shares[0] * np.logaddexp(0, logits) + shares[1] * np.logaddexp(0, -logits)).sum())

    scale, offset = optimize.minimize(loss, (0.5, 0.0), bounds=[(-2.3, 2.3), (-6, 6)]).x
    return special.expit(LOGITS * np.exp(-scale) + offset)


def without_spread(cases: Records) -> Calibration:
    """One temperature for all cases."""
    seen = [one for one in cases if one["pred_voxels"]]
    return fit_calibration([one["near"] for one in seen], [one["all"] for one in seen])


def maps_table(found: Records, fits: dict[str, Fitted]) -> None:
    """Print the error of other maps, as a mean over patients, some of which see what no map may see."""
    ordinary = of_kind(found)
    inside = {group: [one for one in ordinary if one["group"] == group] for group in INSTITUTIONS}
    others = {group: [one for one in ordinary if one["group"] != group] for group in INSTITUTIONS}
    plain = {group: without_spread(cases) for group, cases in others.items()}
    from_others = {group: offset_fitted(cases) for group, cases in others.items()}
    from_itself = {group: offset_fitted(cases) for group, cases in inside.items()}
    ways: dict[str, Callable[[dict[str, Any]], np.ndarray | None]] = {
        "the network": lambda one: None,
        "one temperature": lambda one: plain[one["group"]].levels(one["spread"]),
        "a temperature by the spread": lambda one: fits[one["group"]].calibration.levels(one["spread"]),
        "temperature and offset": lambda one: from_others[one["group"]],
        "temperature and offset, fitted to the institution itself": lambda one: from_itself[one["group"]],
        "temperature and offset, fitted to the patient": lambda one: offset_fitted([one]),
    }
    print("\n| map | near | 0.05 to 0.95 |\n| --- | --- | --- |")
    for name, way in ways.items():
        of_patients = [[expected_calibration_error(bins) for bins in bins_of(one, way(one))] for one in ordinary]
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in np.nanmean(of_patients, 0)) + " |")
    for correlation in CORRELATIONS:
        errors = [
            expected_if_perfect(one, fits[one["group"]].calibration.levels(one["spread"]), correlation)
            for one in ordinary
        ]
        means = " | ".join(f"{mean:.3f}" for mean in np.nanmean(errors, 0))
        print(f"| a perfect one, errors within a patient correlated by {correlation:g} | {means} |")


def expected_if_perfect(one: dict[str, Any], values: np.ndarray, correlation: float) -> np.ndarray:
    """Error to expect of a patient if the probability is right, and the voxels of a patient err together.

    Voxels are tumour where a normal variable is below the probability's quantile. It is the sum of a part that all
    voxels of the patient share, with this fraction of the variance, and one of each voxel.
    """
    shared = stats.norm.ppf((np.arange(40) + 0.5) / 40)
    quantiles = stats.norm.ppf(values)
    errors = []
    for part in shared:
        fraction = stats.norm.cdf((quantiles + np.sqrt(correlation) * part) / np.sqrt(1 - correlation))
        simulated = {}
        for name in ("near", "all"):
            voxels = np.sum(one[name], 0)
            simulated[name] = np.stack([voxels * (1 - fraction), voxels * fraction])
        errors.append([expected_calibration_error(bins) for bins in bins_of(simulated, values)])
    return np.mean(errors, 0)


def draw(curves: dict[str, list[np.ndarray]], file: Path) -> None:
    """Draw the reliability diagram."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (group, both) in zip(figure.subplots(1, len(curves), sharey=True), curves.items()):
        axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        for bins, mark, name in zip(both, "os", ("network", "calibrated")):
            voxels, probability, tumor = bins[bins[:, 0] > 0].T
            axes.plot(probability / voxels, tumor / voxels, f"{mark}-", label=name, markersize=3)
        axes.set(title=group, xlabel="probability", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
    figure.axes[0].set_ylabel("fraction of tumour")
    figure.savefig(file, dpi=110)


def volume_table(found: Records, fits: dict[str, Fitted]) -> None:
    """Print how many references lie in their interval, by institution, and how wide intervals are."""
    print("\n| interval of volume | within | 95 % interval (Clopper-Pearson) | median high / low |")
    print("| --- | --- | --- | --- |")
    inside, total = 0, 0
    widths: list[float] = []
    errors: list[float] = []
    for group in INSTITUTIONS:
        interval = fits[group].interval
        own = [one for one in of_kind(found) if one["group"] == group and one["label_voxels"]]
        ends = [interval(one["pred_voxels"], one["spread"]) for one in own if one["pred_voxels"]]
        refs = [one["label_voxels"] for one in own if one["pred_voxels"]]
        held = sum(low <= ref <= high for (low, high), ref in zip(ends, refs))
        here = [high / low for low, high in ends]
        errors += [abs(np.log(one["label_voxels"] / one["pred_voxels"])) for one in own if one["pred_voxels"]]
        low, high = stats.binomtest(held, len(own)).proportion_ci(method="exact")
        print(f"| {group} | {held} of {len(own)} | {low:.2f} to {high:.2f} | {np.median(here):.2f} |")
        inside, widths, total = inside + held, widths + here, total + len(own)
    # The narrowest constant factor, chosen afterwards, that holds as many references.
    best = float(np.exp(2 * np.sort(errors)[inside - 1]))
    print(f"| all | {inside} of {total} | | {np.median(widths):.2f} |")
    print(f"\nA constant factor that holds as many, chosen afterwards: high / low {best:.2f}.")


POWERS = (0.0, 1.0, 1.25, 1.5, 2.0)


def powers_table(found: Records) -> None:
    """Print what other powers of the spread give, and what the other two institutions say of them.

    Their say is the mean interval score (Gneiting and Raftery 2007) of logarithms, width and 20 times what lies
    outside, each of the two by the interval that is fitted to the other.
    """
    ordinary = [one for one in of_kind(found) if one["pred_voxels"] and one["label_voxels"]]

    def ends(groups: tuple[str, ...], tried_on: str, power: float) -> np.ndarray:
        """Logarithms of the interval's ends and of the reference ``(cases, 3)``."""
        rows = [one for one in ordinary if one["group"] in groups]
        columns = ([one[name] for one in rows] for name in ("pred_voxels", "label_voxels", "spread", "group"))
        interval = fit_volume_interval(*columns, power=power)
        tried = [one for one in ordinary if one["group"] == tried_on]
        return np.log([[*interval(one["pred_voxels"], one["spread"]), one["label_voxels"]] for one in tried])

    def score(low: np.ndarray, high: np.ndarray, true: np.ndarray) -> float:
        return float(np.mean(high - low + 20 * (np.maximum(low - true, 0) + np.maximum(true - high, 0))))

    pairs = {group: tuple(one for one in INSTITUTIONS if one != group) for group in INSTITUTIONS}
    said = " | ".join(f"score, {' and '.join(pair)}" for pair in pairs.values())
    print(f"\n| power of the spread | within | median high / low | {said} |")
    print("| --- |" + " --- |" * (2 + len(pairs)))
    for power in POWERS:
        low, high, true = np.concatenate([ends(pairs[group], group, power) for group in INSTITUTIONS]).T
        scores = [
            np.mean([score(*ends((one,), other, power).T) for one, other in (pair, pair[::-1])])
            for pair in pairs.values()
        ]
        inside = ((low <= true) & (true <= high)).sum()
        print(
            f"| {power:g} | {inside} of {len(of_kind(found))} | {np.exp(np.median(high - low)):.2f} | "
            + " | ".join(f"{one:.2f}" for one in scores)
            + " |"
        )


def trust_table(found: Records, fits: dict[str, Fitted], ordinary: bool) -> None:
    """Print how well expected Dice, volume and mean probability tell good results from bad ones."""
    chosen = of_kind(found, ordinary)
    if not chosen:
        return
    dice, groups = np.array([one["dice"] for one in chosen]), np.array([one["group"] for one in chosen])

    def expected(one: dict[str, Any]) -> tuple[float, float, float]:
        return fits[one["group"]].expected_dice(one["spread"])

    def mean_probability(one: dict[str, Any]) -> float:
        sizes = [lesion["voxels"] for lesion in one["lesions"]]
        return float(np.average([lesion["mean_probability"] for lesion in one["lesions"]], weights=sizes))

    ways = {
        "expected Dice": lambda one: expected(one)[0] if one["pred_voxels"] else -1.0,
        "predicted volume": lambda one: float(one["pred_voxels"]),
        "mean probability": lambda one: mean_probability(one) if one["lesions"] else -1.0,
    }
    bad = dice < LOW
    what = "Ordinary" if ordinary else "With a simulated fault"
    print(f"\n{what}: {len(dice)} volumes, {bad.sum()} with Dice under {LOW}.")
    print("\n| by | rank correlation within institutions | area under the curve |")
    print("| --- | --- | --- |")
    for name, way in ways.items():
        trust = np.array([way(one) for one in chosen])
        ranks = bootstrap([trust, dice, groups], mean_rank_correlation)
        areas = bootstrap([trust, bad, groups], lambda t, b, g: area_under_curve(t, b))
        print(
            f"| {name} | {mean_rank_correlation(trust, dice, groups):.2f} [{ranks[0]:.2f}, {ranks[1]:.2f}] | "
            f"{area_under_curve(trust, bad):.2f} [{areas[0]:.2f}, {areas[1]:.2f}] |"
        )
    seen = [(expected(one), one["dice"]) for one in chosen if one["pred_voxels"]]
    held = sum(low <= true <= high for (_, low, high), true in seen)
    error = np.mean([abs(middle - true) for (middle, _, _), true in seen])
    print(f"\nDice within its range in {held} of {len(seen)}; mean error of expected Dice {error:.3f}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "bundle" / "models" / "model.pt")
    parser.add_argument("--no_fit", action="store_true", help="only print figures; draw and write nothing")
    args = parser.parse_args()
    found = records(args)
    fits = {group: fitted_without(group, found) for group in INSTITUTIONS}
    curves = calibration_table(found, fits)
    maps_table(found, fits)
    volume_table(found, fits)
    powers_table(found)
    trust_table(found, fits, ordinary=True)
    trust_table(found, fits, ordinary=False)
    if args.no_fit:
        return
    draw(curves, ROOT / "bundle" / "docs" / "reliability.png")
    ordinary = of_kind(found)
    declared = mri_seg.declaration(args.checkpoint, (), {**OPTIONS, "runtime": "openvino-int8"})
    fitted_on = [
        {
            "checkpoint_sha256": sha256(weights),
            "split": f"institution/{group}",
            "cases": sum(one["group"] == group for one in ordinary),
        }
        for group, weights in left_out_weights(args).items()
    ]
    output = args.checkpoint.with_name("quality.json")
    write_json(output, {"declared_for": declared, "fitted_on": fitted_on, **fit_quality(ordinary)})
    print(f"\nWrote {output}")


if __name__ == "__main__":
    main()
