"""Evaluate predictions by the slice and the patient protocol, and write tables of slices and patients."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from monai.utils import convert_to_tensor
from scipy import stats

from mri_seg.config.provenance import run_record
from mri_seg.config.weights import weights_origin
from mri_seg.evaluation.metrics import SLICE_SCORES, slice_scores
from mri_seg.evaluation.progress import EvaluationProgress
from mri_seg.inference.case_quality import CaseQuality
from mri_seg.measurements.lesions import bounding_box
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.compat import state_of
from mri_seg.utils.distributed import all_gather_object, is_main_process
from mri_seg.utils.files import atomic_write, sha256, write_json
from mri_seg.utils.label_classes import LabelClasses

__all__ = [
    "QUALITY_COLUMNS",
    "EvaluationWriter",
    "bootstrap_interval",
    "class_dice",
    "patient_row",
    "slice_rows",
    "summarize",
    "surface_scores",
]

logger = logging.getLogger(__name__)

_HAUSDORFF_FRACTION = 0.95  # fraction of a surface that lies within HD95
_OF_NETWORK = (
    "threshold",
    "min_lesion_volume",
    "min_brain_fraction",
    "min_lesion_fraction",
    "min_lesion_slices",
    "fill_holes",
    "flip",
    "ensemble",
    "runtime",
    "crop_foreground",
)
_METRICS = (  # of the evaluator, by the rows and the column that they are the mean of
    ("patient_dice", "patients", "dice"),
    *((f"slice_{score}", "slices", score) for score in SLICE_SCORES),
)
QUALITY_COLUMNS = (
    "expected_dice",
    "expected_dice_low",
    "expected_dice_high",
    "volume_ratio_low",
    "volume_ratio_high",
    "flags",
)
"""What is said of a case without its reference; volumes as ratios to the predicted one."""

_UNITS = {"mm": "mm", "pixel": "pixels (slices count as 1 apart)"}


class EvaluationWriter:
    """Handler that writes ``metrics.json``, ``patients.csv`` and ``slices.csv`` when an evaluation is complete.

    Attach it to an evaluator whose output holds ``pred`` and ``label``: binary volumes ``(1, H, W, D)`` in the
    geometry of the input, ``pred`` with the metadata ``case``. A case may have a ``group``, such as the institution
    that imaged it, which becomes a column of ``patients.csv``. Of several processes the first writes the rows of all.

    Args:
        output_dir: folder of the files.
        surface_tolerance: distance within which surfaces agree, in the unit of the patient's distances.
        resamples: number of bootstrap resamples of the patients.
        seed: seed of the bootstrap.
        facts: what was evaluated (section, split); goes into ``metrics.json``, with the weights that
            :py:class:`~mri_seg.config.weights.CheckpointLoader` loaded, none where the network came with its own. If
            they name ``predictions``, a folder of masks, options of inference and post-processing are left out.
        progress: what earlier runs finished, and where the rows of each case are kept; None for a run that cannot be
            resumed.
        classes: the classes; if they are told apart, the output holds ``pred_classes``, the batch ``label_classes``,
            both label values, and the patient protocol has a Dice of each class beside that of their union.
        quality: what estimates the quality of results; if it holds for the weights, ``patients.csv`` also has the
            columns of :py:data:`QUALITY_COLUMNS`. None for nothing.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        surface_tolerance: float = 2.0,
        resamples: int = 2000,
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
        progress: EvaluationProgress | None = None,
        classes: LabelClasses | None = None,
        quality: CaseQuality | None = None,
    ) -> None:
        self.classes = classes or LabelClasses()
        self.output_dir = Path(output_dir)
        self.surface_tolerance = surface_tolerance
        self.resamples = resamples
        self.seed = seed
        self.facts = dict(facts or {})
        if self.facts.get("predictions") is not None:
            self.facts = {key: value for key, value in self.facts.items() if key not in _OF_NETWORK}
        self.progress = progress
        self.quality = quality
        self.patients: list[Mapping[str, Any]] = []
        self.slices: list[Mapping[str, Any]] = []
        self._record: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._gather)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self.patients, self.slices = [], []
        weights = getattr(engine.state, "loaded_weights", None)
        loaded = {"checkpoint": weights, "checkpoint_sha256": weights and sha256(weights)}
        if weights:
            loaded |= {f"checkpoint_{key}": value for key, value in weights_origin(weights).items()}
        self._record = run_record(**{**loaded, **self.facts})

    def _add(self, engine: Engine) -> None:
        for batch, output in zip(state_of(engine).batch, state_of(engine).output, strict=True):
            pred, label = output["pred"], output["label"]
            case, group = str(pred.meta["case"]), str(batch.get("group") or "")
            slices = slice_rows(case, pred, label)
            row = patient_row(case, pred, label, surface_tolerance=self.surface_tolerance)
            if self.classes.several:
                row |= class_dice(output["pred_classes"], batch["label_classes"], self.classes)
            self.slices += slices
            self.patients.append({**row, "group": group, **self._quality(batch, output)})
            if self.progress is not None:
                self.progress.add(case, self.patients[-1], slices)

    def _quality(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """What would have been said of the case without its reference; nothing if no estimate holds."""
        if self.quality is None or not self.quality.fitted or "probability" not in output:
            return {}
        found: dict[str, Any] = {}
        if (output["pred"] > 0).any():
            probability = convert_to_tensor(output["probability"], track_meta=False)[0].cpu().numpy()
            found = dict(self.quality.estimate(probability))
        volumes = (batch.get("flair"), batch.get("image"), output["pred"])
        flags = [flag for volume in volumes if isinstance(volume, MetaTensor) for flag in case_flags(volume.meta)]
        found["flags"] = ";".join(dict.fromkeys(flag["name"] for flag in flags))
        return {name: found.get(name, "") for name in QUALITY_COLUMNS}

    def _gather(self, engine: Engine) -> None:
        """Collect the rows of all processes, and those of the cases that an earlier run finished."""
        gathered = all_gather_object((self.patients, self.slices))
        self.patients, self.slices = ([row for part in gathered for row in part[n]] for n in (0, 1))
        if self.progress is None or not self.progress.kept:
            return
        kept = self.progress.kept.values()
        self.patients = self.progress.sort([*self.patients, *(record["patient"] for record in kept)])
        self.slices = self.progress.sort([*self.slices, *(row for record in kept for row in record["slices"])])
        metrics = state_of(engine).metrics  # of the cases of this run alone until now
        for name, rows, column in _METRICS:
            if name in metrics:
                metrics[name] = float(np.mean([row[column] for row in getattr(self, rows)]))
        if (key := state_of(engine).key_metric_name) is not None:
            state_of(engine).best_metric = metrics[key]

    def _write(self, engine: Engine) -> None:
        if not is_main_process():
            return
        names = self.classes.names
        summary = summarize(self.patients, self.slices, resamples=self.resamples, seed=self.seed, classes=names)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, rows in (("patients.csv", self.patients), ("slices.csv", self.slices)):
            _write_csv(self.output_dir / name, rows)
        settings = {"surface_tolerance": self.surface_tolerance, "bootstrap_resamples": self.resamples}
        write_json(self.output_dir / "metrics.json", {**self._record, **settings, **summary})
        logger.info("%s", describe(summary))


def slice_rows(case: str, pred: torch.Tensor, label: torch.Tensor) -> list[dict]:
    """Score every slice of a case by the slice protocol.

    Args:
        case: name of the case.
        pred: binary prediction ``(1, H, W, D)``.
        label: binary label of the same shape.

    Returns:
        one row per slice, numbered from 1: its scores, and the pixels of label, prediction and their intersection.
    """
    scores = slice_scores(pred[None], label[None]).tolist()
    pred, label = (torch.as_tensor(v)[0] > 0 for v in (pred, label))
    pixels = {
        "label_pixels": label.sum(dim=(0, 1)).tolist(),
        "pred_pixels": pred.sum(dim=(0, 1)).tolist(),
        "overlap_pixels": (pred & label).sum(dim=(0, 1)).tolist(),
    }
    return [
        {"case": case, "slice": n + 1, **dict(zip(SLICE_SCORES, score)), **{key: v[n] for key, v in pixels.items()}}
        for n, score in enumerate(scores)
    ]


def patient_row(case: str, pred: torch.Tensor, label: torch.Tensor, *, surface_tolerance: float = 2.0) -> dict:
    """Score a case by the patient protocol.

    Distances are in mm if the spacing of rows, columns and slices is known. If any of the three is unknown, they are
    in pixels, and adjacent pixels and adjacent slices both count as 1 apart. If exactly one mask is empty, HD95 is the
    diagonal of the volume and surface Dice is 0. If both are empty, HD95 and surface Dice are NaN and Dice is 1.

    Args:
        case: name of the case.
        pred: binary prediction ``(1, H, W, D)``, with metadata.
        label: binary label of the same shape.
        surface_tolerance: distance within which surfaces agree.

    Returns:
        the name of the case, Dice, HD95 and surface Dice (:py:func:`surface_scores`; computed in the plane if the
        volume has only one slice), the unit of distances, the voxels of label and prediction, and the number of slices.
    """
    spacing, unit = _spacing(pred)
    pred, label = (convert_to_tensor(v, track_meta=False)[0] > 0 for v in (pred, label))
    diagonal = math.hypot(*(size * step for size, step in zip(label.shape, spacing)))
    slices = int(label.shape[-1])
    # MONAI crops before it finds surfaces, too, but converts whole volumes first: that takes 30 times as long.
    box = bounding_box((pred | label).cpu().numpy())
    pred, label = pred[box], label[box]
    label_voxels, pred_voxels = int(label.sum()), int(pred.sum())
    dice = float(compute_dice(pred[None, None], label[None, None], ignore_empty=False))
    if label_voxels and pred_voxels:
        if slices == 1:
            pred, label, spacing = pred[..., 0], label[..., 0], spacing[:2]
        hd95, surface_dice = surface_scores(pred, label, spacing, tolerance=surface_tolerance)
    else:
        hd95, surface_dice = (diagonal, 0.0) if label_voxels or pred_voxels else (math.nan, math.nan)
    return {
        "case": case,
        "dice": dice,
        "hd95": hd95,
        "surface_dice": surface_dice,
        "distance_unit": unit,
        "label_voxels": label_voxels,
        "pred_voxels": pred_voxels,
        "slices": slices,
    }


def class_dice(pred: torch.Tensor, label: torch.Tensor, classes: LabelClasses) -> dict[str, float]:
    """Score each class of a case by Dice of the volume; 1 if neither mask has it, 0 if one of them has it.

    Args:
        pred: predicted label values ``(1, H, W, D)``.
        label: label values of the same shape.
        classes: the classes.

    Returns:
        a column for each class, such as ``dice_1+4``.
    """
    pred, label = (convert_to_tensor(values, track_meta=False)[0] for values in (pred, label))
    found = {}
    for name, values in zip(classes.names, classes.members):
        members = torch.tensor(values, device=pred.device)
        one, other = (torch.isin(volume.long(), members)[None, None] for volume in (pred, label))
        found[_class_column(name)] = float(compute_dice(one, other, ignore_empty=False))
    return found


def _class_column(name: str) -> str:
    return f"dice_{name}"


def surface_scores(
    pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], *, tolerance: float
) -> tuple[float, float]:
    """Compute HD95 (95th percentile of the Hausdorff distance) and surface Dice from the same sub-voxel surfaces.

    The definition is that of the reference implementation (github.com/google-deepmind/surface-distance; Nikolov et al.
    2021, doi.org/10.2196/26151). A surface runs between voxels. Each of its elements is weighted by its area (in a
    plane: its length), and the distance of an element is that to the nearest element of the other surface. HD95 is the
    larger value of the two directions. MONAI's ``compute_hausdorff_distance``, and ``compute_surface_dice`` by default,
    count edge voxels instead.

    Args:
        pred: binary prediction ``(H, W, D)`` or ``(H, W)``, bool, not empty.
        label: binary label of the same shape, not empty.
        spacing: distance between rows, columns and slices.
        tolerance: distance within which surfaces agree, in the unit of the spacing.

    Returns:
        HD95 in the unit of the spacing, and surface Dice.
    """
    pred, label = (torch.nn.functional.pad(mask, (1, 1) * mask.ndim) for mask in (pred, label))
    pred_surface, label_surface, pred_areas, label_areas = get_mask_edges(pred, label, crop=False, spacing=spacing)
    hd95 = agreeing = area = 0.0
    for surface, other, areas in (
        (pred_surface, label_surface, pred_areas),
        (label_surface, pred_surface, label_areas),
    ):
        distances, order = torch.as_tensor(get_surface_distance(surface, other, spacing=spacing)).sort()
        areas = areas[surface][order].double()
        fractions = areas.cumsum(0) / areas.sum()
        hd95 = max(hd95, float(distances[(fractions < _HAUSDORFF_FRACTION).sum().clamp(max=len(distances) - 1)]))
        agreeing += float(areas[distances <= tolerance].sum())
        area += float(areas.sum())
    return hd95, agreeing / area


def summarize(
    patients: Sequence[Mapping],
    slices: Sequence[Mapping],
    *,
    resamples: int = 2000,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Average over slices and over patients, with 95 % bootstrap intervals over patients.

    Args:
        patients: rows of :py:func:`patient_row`.
        slices: rows of :py:func:`slice_rows`.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        classes: names of the classes whose Dice the rows of patients hold (:py:func:`class_dice`).

    Returns:
        counts, ``slice_protocol`` and ``patient_protocol``, with ``class_dice`` if there are classes. An interval is
        null if fewer than two patients have a value. HD95 and surface Dice come with the number of patients in whom
        exactly one mask is empty (``one_mask_empty``, included in the means) and in whom both are empty
        (``both_masks_empty``, not included).

    Raises:
        ValueError: when there are no patients.
    """
    if not patients:
        raise ValueError("there are no patients to summarize. Evaluate at least one.")
    draw = {"resamples": resamples, "seed": seed}
    cases = [row["case"] for row in patients]

    def over_slices(values: Sequence[float], rows: Sequence[Mapping]) -> dict:
        by_case: dict[str, list[float]] = {case: [] for case in cases}
        for row, value in zip(rows, values):
            by_case[row["case"]].append(value)
        kept = [v for v in by_case.values() if v]
        if not kept:
            return {"mean": None, "interval": None}
        sums, counts = (np.array([f(v) for v in kept], dtype=float) for f in (sum, len))
        interval = bootstrap_interval((sums, counts), lambda s, n, axis: s.sum(axis) / n.sum(axis), **draw)
        return {"mean": float(sums.sum() / counts.sum()), "interval": interval}

    def over_patients(values: Sequence[float]) -> dict:
        kept = np.array([v for v in values if not math.isnan(v)])
        summary: dict[str, Any] = {"patients": len(kept)}
        for name, statistic in (("mean", np.mean), ("median", np.median)):
            summary[name] = float(statistic(kept)) if len(kept) else None
            summary[f"{name}_interval"] = bootstrap_interval((kept,), statistic, **draw)
        return summary

    tumor = [row for row in slices if row["label_pixels"]]
    healthy = [row for row in slices if not row["label_pixels"]]
    slice_protocol = {score: over_slices([row[score] for row in slices], slices) for score in SLICE_SCORES}
    slice_protocol["dice_of_tumour_slices"] = over_slices([row["dice"] for row in tumor], tumor)
    slice_protocol["healthy_slices_with_false_tumour"] = over_slices(
        [float(row["pred_pixels"] > 0) for row in healthy], healthy
    )
    dice = [row["dice"] for row in patients]
    patient_protocol: dict[str, Any] = {"dice": {**over_patients(dice), "lowest": min(dice)}}
    if classes:
        of_classes = {name: [row[_class_column(name)] for row in patients] for name in classes}
        patient_protocol["class_dice"] = {
            name: {**over_patients(values), "lowest": min(values)} for name, values in of_classes.items()
        }
    for unit in sorted({row["distance_unit"] for row in patients}):
        of_unit = [row for row in patients if row["distance_unit"] == unit]
        masks = [(row["label_voxels"] > 0) + (row["pred_voxels"] > 0) for row in of_unit]
        empty = {"one_mask_empty": masks.count(1), "both_masks_empty": masks.count(0)}
        for name in ("hd95", "surface_dice"):
            patient_protocol[f"{name}_{unit}"] = {**over_patients([row[name] for row in of_unit]), **empty}
    return {
        "patients": len(patients),
        "slices": len(slices),
        "tumour_slices": len(tumor),
        "slice_protocol": slice_protocol,
        "patient_protocol": patient_protocol,
    }


def bootstrap_interval(
    values: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> list[float] | None:
    """Compute the 95 % percentile interval of a statistic over resampled patients (Efron and Tibshirani 1993).

    Args:
        values: one or more arrays ``(patients,)``; a resample draws the same patients from each.
        statistic: takes these arrays, resampled, and the keyword ``axis`` along which patients lie, like ``np.mean``.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        lower and upper end, or None if there are fewer than two patients.
    """
    if len(values[0]) < 2:
        return None
    interval = stats.bootstrap(
        values,
        statistic,
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [float(interval.low), float(interval.high)]


def describe(summary: Mapping[str, Any]) -> str:
    """Summarize both protocols in a few lines of text for the log."""

    def value(entry: Mapping, name: str = "mean", interval: str = "interval") -> str:
        if entry[name] is None:
            return "none"
        ends = f" [{entry[interval][0]:.4f}, {entry[interval][1]:.4f}]" if entry[interval] else ""
        return f"{entry[name]:.4f}{ends}"

    by_slice, by_patient = summary["slice_protocol"], summary["patient_protocol"]
    dice = by_patient["dice"]
    lines = [
        f"{summary['patients']} patients, {summary['slices']} slices, {summary['tumour_slices']} with tumour; "
        "95 % bootstrap intervals over patients",
        "slice protocol: " + ", ".join(f"{score} {value(by_slice[score])}" for score in SLICE_SCORES),
        f"  Dice of tumour slices {value(by_slice['dice_of_tumour_slices'])}, "
        f"share of healthy slices with false tumour {value(by_slice['healthy_slices_with_false_tumour'])}",
        f"patient protocol: mean Dice {value(dice, 'mean', 'mean_interval')}, "
        f"median {value(dice, 'median', 'median_interval')}, lowest {dice['lowest']:.4f}",
    ]
    for name, found in by_patient.get("class_dice", {}).items():
        lines.append(
            f"  label value {name}: mean Dice {value(found, 'mean', 'mean_interval')}, "
            f"median {value(found, 'median', 'median_interval')}, lowest {found['lowest']:.4f}"
        )
    for unit, words in _UNITS.items():
        if f"hd95_{unit}" in by_patient:
            hd95, surface_dice = (by_patient[f"{name}_{unit}"] for name in ("hd95", "surface_dice"))
            lines.append(
                f"  HD95 in {words}: mean {value(hd95, 'mean', 'mean_interval')}; surface Dice: mean "
                f"{value(surface_dice, 'mean', 'mean_interval')}; {hd95['patients']} patients, "
                f"{hd95['one_mask_empty']} of them with one mask empty (HD95: the volume's diagonal, surface Dice: 0); "
                f"{hd95['both_masks_empty']} with both masks empty left out"
            )
    return "\n".join(lines)


def _spacing(volume: torch.Tensor) -> tuple[list[float], str]:
    """Distance between rows, columns and slices, with its unit: mm if all three are known, otherwise pixels."""
    known = ("spacing_known", "slice_spacing_known")
    if isinstance(volume, MetaTensor) and all(bool(volume.meta.get(key, True)) for key in known):
        return affine_to_spacing(volume.affine).tolist(), "mm"
    return [1.0] * 3, "pixel"


def _write_csv(file: Path, rows: Sequence[Mapping]) -> None:
    with atomic_write(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(stream, fieldnames=list(names), restval="")
        writer.writeheader()
        writer.writerows(rows)
