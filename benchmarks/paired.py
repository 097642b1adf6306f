"""Compare the Dice of two models on the same patients by a paired bootstrap.

    python benchmarks/paired.py runs/DU runs/DU-before
    python benchmarks/paired.py runs/DU benchmarks/left_out/patients.csv --column three_stages

The first folder is that of an evaluation; the second likewise, or a table with a column of Dice for each patient.
Prints the mean of the differences with its 95 % interval (10,000 resamples of patients), and how many patients gain or
lose more than 0.05.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy import stats

CLEARLY = 0.05


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    """Rows of a table of patients, or of that in the folder of an evaluation, by case."""
    file = table / "patients.csv" if table.is_dir() else table
    with file.open(encoding="utf-8", newline="") as rows:
        return {row["case"]: row for row in csv.DictReader(rows)}


def dice_of(table: Path, column: str) -> dict[str, float]:
    """Dice of each patient; those without a figure are left out."""
    return {case: float(row[column]) for case, row in rows_of(table).items() if row[column]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--column", default="dice", help="column of the second table")
    args = parser.parse_args()
    one, other = dice_of(args.one, "dice"), dice_of(args.other, args.column)
    missing = sorted(one.keys() - other.keys())
    if missing:
        raise SystemExit(f"{args.other} has no Dice of {', '.join(missing)}, which {args.one} has.")
    gains = np.array([dice - other[case] for case, dice in one.items()])
    found = stats.bootstrap((gains,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    print(f"{len(gains)} patients: {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}],", end=" ")
    print(f"{(gains > CLEARLY).sum()} gain and {(gains < -CLEARLY).sum()} lose more than {CLEARLY}")


if __name__ == "__main__":
    main()
