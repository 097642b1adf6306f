"""Cases as the evaluator hands them to the writer."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from monai.data import MetaTensor

from mri_seg.inference.writer import CaseWriter

# Rows to posterior, columns to the patient's left, slices upwards, as SliceReader has it.
AS_SHOWN = torch.tensor([[0.0, -1, 0, 30], [-1, 0, 0, 40], [0, 0, 3, -7], [0, 0, 0, 1]], dtype=torch.float64)

SHAPE = (64, 60, 3)


def item(files: list[str], case: str = "a", *, label: bool = False, **meta: object) -> dict[str, MetaTensor]:
    """What the evaluator gives for a case: slice n (from 0) has 10 + n rows of tumour."""
    meta = {"case": case, "files": "\n".join(files), **meta}
    flair = torch.zeros(1, *SHAPE)
    flair[:, 8:56, 12:52] = 100
    flair += torch.rand(1, *SHAPE)
    pred = torch.zeros(1, *SHAPE)
    for n in range(SHAPE[-1]):
        pred[0, 20 : 30 + n, 14:24, n] = 1
    volumes = {"flair": flair, "pred": pred, "probability": pred * 0.9}
    if label:
        volumes["label"] = pred.roll(3, dims=1)
    return {key: MetaTensor(volume, affine=AS_SHOWN, meta=dict(meta)) for key, volume in volumes.items()}


def source(files: list[str], kind: str, case: str = "a", **more: object) -> dict:
    return {"case": case, "image": files, "source": kind, **more}


def write(writer: CaseWriter, case: dict, found: dict | None = None) -> None:
    """Hand a case to the writer as the evaluator does."""
    if writer.remaining([case]):
        found = found or item(case["image"], case["case"], label="label" in case)
        writer.write({}, found)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def table(file: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())}


NIFTI = source(["in/head.nii.gz"], "volume")

TIFF = source(["in/x_9.tif", "in/x_10.TIFF", "in/x_2.tif"], "tiff")
