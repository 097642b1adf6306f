"""Segment patients of DU, HT and FG by weights that left their institution out, once for all programs.

What the other programs need of a case is kept as a record in ``runs/quality``, by the SHA-256 of weights and options,
so that figures are computed again in seconds, and a run that was stopped goes on. A patient is segmented as it is, and
once more: every second one with dimmed scalp, as if fat had been suppressed, and the others with another simulated
fault, in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from robustness import CHANGES

import mri_seg
from mri_seg.inference.case_quality import BOUND_TO
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import label_lesions
from mri_seg.quality.fit import case_record
from mri_seg.quality.frame import HeadFrame
from mri_seg.quality.lesion_checks import LesionMeasures, lesion_measures
from mri_seg.quality.place import PlaceMap, shipped_place_map
from mri_seg.quality.records import preprocessing_options
from mri_seg.transforms.brain import brain_mask
from mri_seg.transforms.labels import BinaryLabeld
from mri_seg.transforms.post import FillHolesInSlicesd, RemoveLesionsOutsideBraind, RemoveSmallLesionsd
from mri_seg.utils.files import sha256, write_json

ROOT = Path(__file__).resolve().parent.parent
INSTITUTIONS = ("DU", "HT", "FG")
INFERENCE = json.loads((ROOT / "bundle" / "configs" / "inference.json").read_text(encoding="utf-8"))
OPTIONS = {name: INFERENCE[name] for name in BOUND_TO}

ORDINARY, DIMMED = "ordinary", "scalp at 0.3"
CROPPED = "cropped"
IN_TURN = (CROPPED, "skull stripped", "half contrast", "noise")
"""Faults of which every second patient gets one."""

Volumes = tuple[MetaTensor, MetaTensor]


def cleaning(options: Mapping[str, Any]) -> Compose:
    """What inference does to the mask ``pred`` by these options; it needs ``brain``, as from ``brain_mask``."""
    return Compose(
        [
            RemoveSmallLesionsd("pred", options["min_lesion_volume"]),
            RemoveLesionsOutsideBraind("pred", options["min_brain_fraction"]),
            RemoveSmallLesionsd("pred", 0, options["min_lesion_fraction"], options["min_lesion_slices"]),
            FillHolesInSlicesd("pred", options["fill_holes"]),
        ]
    )


def changed(kind: str, image: MetaTensor, label: MetaTensor) -> Volumes:
    """Image and label ``(1, H, W, D)`` with a fault."""
    if kind == ORDINARY:
        return image, label
    if kind == CROPPED:  # the front fifth of the head is cut off
        rows = image.shape[1] // 5
        return cast(MetaTensor, image[:, rows:]), cast(MetaTensor, label[:, rows:])
    values = image.numpy()[0].astype(np.float32)
    image = image.clone()
    image[0] = torch.from_numpy(CHANGES[kind](values, brain_mask(values)).astype(np.float32))
    return image, label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the pass over the patients needs."""
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--left_out", type=Path, default=ROOT / "benchmarks" / "left_out", help="folder of the weights")
    parser.add_argument("--runs", nargs="*", default=[], metavar="INSTITUTION=WEIGHTS", help="instead of --left_out")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "quality", help="folder of the records")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--ordinary", action="store_true", help="leave out the simulated faults")


def left_out_weights(args: argparse.Namespace) -> dict[str, Path]:
    """The weights that left an institution out, by institution."""
    files = {group: args.left_out / group / "model_final.pt" for group in INSTITUTIONS}
    return files | {group: Path(weights) for group, _, weights in (run.partition("=") for run in args.runs)}


def records(args: argparse.Namespace, **options: Any) -> list[dict[str, Any]]:
    """Records of all patients, segmented now unless an earlier run did; ``options`` in place of those of inference."""
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    options = OPTIONS | options
    return [one for group, file in left_out_weights(args).items() for one in _of_group(group, file, args, options)]


def _of_group(group: str, weights: Path, args: argparse.Namespace, options: dict[str, Any]) -> list[dict[str, Any]]:
    made_with = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    file = args.cache / f"records-{group}-{sha256(weights)[:12]}-{made_with[:6]}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    done = {(record["case"], record["kind"]) for record in found}
    cases = mri_seg.datalist(args.dataset_dir, f"institution/{group}", "validation", True)
    wanted = [(case, ORDINARY) for case in cases]
    if not args.ordinary:
        wanted += [(case, IN_TURN[n // 2 % len(IN_TURN)] if n % 2 else DIMMED) for n, case in enumerate(cases)]
    missing = [(case, kind) for case, kind in wanted if (case["case"], kind) not in done]
    if missing:
        segment = mri_seg.Segmenter(
            checkpoint=str(weights),
            runtime=args.runtime,
            amp=False,
            quality=False,
            **options,
            **preprocessing_options(weights),
        )
    for case, kind in missing:
        found.append({**record_of(segment, case, kind), "group": group, "kind": kind})
        write_json(file, found)
        print(f"{case['case']}, {kind}: Dice {found[-1]['dice']:.3f}", flush=True)
    kept = {(case["case"], kind) for case, kind in wanted}
    return [record for record in found if (record["case"], record["kind"]) in kept]


def record_of(segment: Any, case: dict[str, Any], kind: str) -> dict[str, Any]:
    """Segment a case with a fault, and record it.

    Beside what a fit of quality needs, the record has ``measures`` of the lesions, the largest first, each with the
    fraction ``inside`` the reference, its number of ``slices``, and whether one is the first or last of the volume;
    where a lesion is rare, the patient's own tumour does not count.
    """
    item: Any = Compose([LoadVolumed(["image", "label"]), BinaryLabeld("label")])(dict(case))
    image, label = changed(kind, item["image"], item["label"])
    found = segment(image)
    mask, probability = found.mask.numpy() > 0, found.probability.numpy()
    truth = label.numpy()[0] > 0
    frame = HeadFrame.from_text(found._result.item["pred"].meta.get("head_frame"))
    places = shipped_place_map()
    if frame is not None and truth.any():
        places = places.without(PlaceMap.of([frame.coordinates(np.argwhere(truth), found.affine)]))
    measures = lesion_measures(mask, probability, found.affine, frame, places=places)
    labels, count = label_lesions(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    inside = np.bincount(labels[truth], minlength=count + 1)[1:] / np.maximum(sizes, 1)
    order = np.argsort(-sizes, kind="stable")
    return {
        **case_record(probability, mask, truth, case=str(case["case"])),
        "measures": [
            {**one._asdict(), "inside": float(inside[n]), **_slices(labels == n + 1)}
            for one, n in zip(measures, order, strict=True)
        ],
        "label_at_edge": _at_edge(truth),
    }


def _slices(lesion: np.ndarray) -> dict[str, Any]:
    numbers = np.flatnonzero(lesion.any((0, 1)))
    return {"slices": len(numbers), "at_end": bool(numbers[0] == 0 or numbers[-1] == lesion.shape[2] - 1)}


def _at_edge(mask: np.ndarray) -> int:
    voxels = np.argwhere(mask)
    ends = ((voxels == 0) | (voxels == np.array(mask.shape) - 1)) & (np.array(mask.shape) > 1)
    return int(ends.any(1).sum())


def measures_of(record: dict[str, Any]) -> list[LesionMeasures]:
    """Measures of the lesions of a record, the largest first."""
    return [LesionMeasures(**{name: one[name] for name in LesionMeasures._fields}) for one in record["measures"]]
