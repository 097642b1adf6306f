"""Train one model at several hospitals that share weights but no cases: federated averaging with MONAI's client.

    python examples/federated.py data/kaggle_3m --hospitals FG HT --rounds 3

Each institution of a data set with the structure of TCGA-LGG is a hospital: MONAI's ``MonaiAlgo`` with this bundle. All
run in turn in one process. Every fourth patient of a hospital is kept for validation. In each round, all hospitals
train from the common weights; the next common weights are the mean of theirs, weighted by their numbers of slices
(McMahan et al. 2017, https://arxiv.org/abs/1602.05629). For comparison, each hospital also trains alone for the same
time. At the end, a table shows the mean patient Dice of each model on the validation patients of each hospital. Further
options are keys of the bundle's configs, such as ``--slices_per_epoch 320``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from mri_seg.datasets.lgg import find_patients, institution

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"


def hospital(name: str, folder: Path, rounds: int, local_epochs: int = 1, **options: Any) -> MonaiAlgo:
    """Make a client of a federation that is ready to train; ``options`` are keys of the bundle's configs."""
    client = MonaiAlgo(
        bundle_root=str(BUNDLE),
        local_epochs=local_epochs,
        send_weight_diff=False,
        train_kwargs={
            **options,
            "output_dir": str(folder / name),
            "steps": f"${rounds * local_epochs} * len(@train#dataloader)",  # the learning rate falls over all rounds
        },
        eval_kwargs={**options, "output_dir": str(folder / name / "evaluation"), "report": False},
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def train(clients: Sequence[MonaiAlgo], rounds: int) -> dict[str, torch.Tensor]:
    """Train in rounds, and return the common weights; a single client just trains alone."""
    slices = [len(client.train_workflow.train_dataset) for client in clients]
    # A client returns the tensors of its network, which its training changes.
    weights = {name: value.clone() for name, value in clients[0].get_weights().weights.items()}
    for _ in range(rounds):
        for client in clients:
            client.train(ExchangeObject(weights=weights))
        weights = average([client.get_weights().weights for client in clients], slices)
    return weights


def average(weights: Sequence[Mapping[str, torch.Tensor]], sizes: Sequence[float]) -> dict[str, torch.Tensor]:
    """Mean of each tensor, weighted by the sizes, in its own type."""
    return {
        name: (sum(size * own[name].double() for size, own in zip(sizes, weights)) / sum(sizes)).to(first.dtype)
        for name, first in weights[0].items()
    }


def dice(client: MonaiAlgo, weights: Mapping[str, torch.Tensor]) -> float:
    """Mean patient Dice of weights on a hospital's validation patients."""
    return client.evaluate(ExchangeObject(weights=dict(weights))).metrics["patient_dice"]


def compare(
    cases: Mapping[str, Mapping[str, Any]], folder: Path, rounds: int, local_epochs: int = 1, **options: Any
) -> dict[str, dict[str, float]]:
    """Train each hospital alone and all together.

    Args:
        cases: ``dataset_dir`` and ``split`` of each hospital, by its name.
        folder: folder of the runs.
        rounds: number of rounds.
        local_epochs: number of epochs of each hospital per round.
        options: keys of the bundle's configs.

    Returns:
        mean patient Dice by hospital, for each model.
    """

    def client(name: str, kind: str) -> MonaiAlgo:
        return hospital(name, folder / kind, rounds, local_epochs, **cases[name], **options)

    models = {f"{name} alone": train([client(name, "alone")], rounds) for name in cases}
    together = {name: client(name, "together") for name in cases}
    models["averaged"] = train([*together.values()], rounds)
    return {
        model: {name: dice(client, weights) for name, client in together.items()} for model, weights in models.items()
    }


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Format the results as a Markdown table."""
    hospitals = next(iter(results.values()))
    lines = ["| model | " + " | ".join(f"{name}'s cases" for name in hospitals) + " |"]
    lines.append("|" + " --- |" * (len(hospitals) + 1))
    for model, scores in results.items():
        lines.append(f"| {model} | " + " | ".join(f"{score:.3f}" for score in scores.values()) + " |")
    return "\n".join(lines)


def split_institution(dataset_dir: Path, name: str, file: Path) -> Path:
    """Write a split of an institution's patients, with every fourth for validation."""
    patients = [patient for patient in find_patients(dataset_dir) if institution(patient) == name]
    split = {"training": [p for n, p in enumerate(patients) if n % 4], "validation": patients[::4]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    return file


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--hospitals", nargs="+", default=["FG", "HT"], help="institutions (default: FG HT)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--local_epochs", type=int, default=1)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/federated"))
    args, others = parser.parse_known_args()
    options = {key.removeprefix("--"): json.loads(value) for key, value in zip(others[::2], others[1::2], strict=True)}
    cases = {
        name: {
            "dataset_dir": str(args.dataset_dir),
            "split": str(split_institution(args.dataset_dir, name, args.output_dir / f"{name}.json")),
            "allow_missing": True,
        }
        for name in args.hospitals
    }
    print(table(compare(cases, args.output_dir, args.rounds, args.local_epochs, **options)))


if __name__ == "__main__":
    main()
