"""An evaluation folder with cases made of simple shapes, as an evaluation leaves it behind."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from mri_seg.evaluation.writer import patient_row, slice_rows, summarize
from mri_seg.report.archive import ArchivedCase, save_case
from mri_seg.utils.files import write_json

SHAPE = (48, 40, 6)


def disc(row: float, column: float, radius: float, slices: tuple[int, int]) -> np.ndarray:
    """A disc in some of the slices."""
    rows, columns, depth = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return inside & (depth >= slices[0]) & (depth < slices[1])


def make_case(name: str, shift: int, *, attention: bool = False, **changes: object) -> ArchivedCase:
    """A head with a tumour in slices 2 to 5, predicted some rows further down."""
    generator = np.random.default_rng(shift)
    head = disc(24, 20, 18, (0, 6))
    label, pred = disc(20, 18, 6, (1, 5)), disc(20 + shift, 18, 6, (1, 5))
    image = np.where(head, 90 + 70 * label, 4) + generator.integers(0, 12, SHAPE)
    case = ArchivedCase(
        case=name,
        image=image.astype(np.uint8),
        label=label,
        pred=pred,
        probability=np.where(pred, 230, 10).astype(np.uint8),
        attention=np.stack([np.where(label, 40 * (gate + 1), 5) for gate in range(4)]).astype(np.uint8)
        if attention
        else np.zeros((0, *SHAPE), np.uint8),
        spacing=(1.0, 1.0, 1.0),
        spacing_known=False,
        slice_spacing_known=False,
    )
    return replace(case, **changes)


def make_cases() -> list[ArchivedCase]:
    """Five patients of two institutions; the third has a separate false lesion in slice 6."""
    third = make_case("TCGA_DU_0003_20000101", 2, attention=True)
    return [
        make_case("TCGA_CS_0001_20000101", 0, attention=True),
        make_case("TCGA_CS_0002_20000101", 1),
        replace(third, pred=third.pred | disc(32, 28, 3, (5, 6))),
        make_case("TCGA_DU_0004_20000101", 5, attention=True),
        make_case("TCGA_DU_0005_20000101", 4),
    ]


def write_evaluation(folder: Path, cases: list[ArchivedCase] | None = None, **facts: object) -> Path:
    """Write the files of an evaluation of the cases."""
    patients, slices = [], []
    for case in make_cases() if cases is None else cases:
        save_case(folder / "cases", case)
        pred, label = (
            MetaTensor(torch.as_tensor(mask[None].astype(np.float32)), meta={"spacing_known": False})
            for mask in (case.pred, case.label)
        )
        group = case.case.split("_")[1] if case.case.startswith("TCGA_") else ""
        patients.append({**patient_row(case.case, pred, label), "group": group})
        slices += slice_rows(case.case, pred, label)
    for name, rows in (("patients.csv", patients), ("slices.csv", slices)):
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    record = {
        "started": "2030-01-02T03:04:05+0000",
        "command": ["python", "-m", "monai.bundle", "run", "evaluation", "--dataset_dir", "data/shapes"],
        "versions": {"python": "3.11", "mri_seg": "0"},
        "section": "validation",
        "split": "published",
        "threshold": 0.5,
        "min_lesion_volume": 0,
        "checkpoint": "bundle/models/model.pt",
        "checkpoint_sha256": "0123456789abcdef",
        "surface_tolerance": 2.0,
    }
    write_json(folder / "metrics.json", {**record, **facts, **summarize(patients, slices, resamples=100)})
    return folder
