"""Fit ``quality.json`` to a model: ``python -m mri_seg.quality fit``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mri_seg
from mri_seg.quality.fit import fit_quality
from mri_seg.quality.records import preprocessing_options, records_of
from mri_seg.utils.bundle_folder import bundle_folder
from mri_seg.utils.files import sha256, write_json
from mri_seg.utils.messages import reason


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mri_seg.quality") -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Estimates of the quality of results, fitted to cases with a reference."
    )
    fit = parser.add_subparsers(dest="command", required=True).add_parser(
        "fit",
        help="fit quality.json to a model",
        description="Segment cases that the model was not trained on, compare them with their references, and write "
        "quality.json beside the weights: calibration, expected Dice, intervals of volume and doubtful lesions.",
    )
    fit.add_argument("--checkpoint", required=True, metavar="FILE", help="the weights that the fit is for")
    fit.add_argument("--dataset_dir", required=True, metavar="DIR", help="the data set, with references")
    fit.add_argument("--split", default="auto", help="split of the data set (default: %(default)s)")
    fit.add_argument("--section", default="validation", help="section of the split (default: %(default)s)")
    fit.add_argument(
        "--left_out",
        nargs="+",
        default=[],
        metavar="SPLIT=WEIGHTS",
        help="fit on the section of each split as these weights, which left it out of their training, segment it",
    )
    fit.add_argument("--output", metavar="FILE", help="the file (default: quality.json beside the checkpoint)")
    inference = json.loads((bundle_folder() / "configs" / "inference.json").read_text(encoding="utf-8"))
    for name, kind in (
        ("threshold", float),
        ("min_lesion_volume", float),
        ("min_brain_fraction", float),
        ("min_lesion_fraction", float),
        ("min_lesion_slices", int),
        ("tta_flip", str),
        ("fill_holes", str),
    ):
        fit.add_argument(
            f"--{name}", type=kind, default=inference[name], help="as for inference (default: %(default)s)"
        )
    fit.add_argument("--runtime", default="torch", help="as for inference (default: %(default)s)")
    fit.add_argument("--allow_missing", action="store_true", help="leave out cases that the data set lacks")
    options = parser.parse_args(arguments)
    try:
        return _fit(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1


def _fit(options: argparse.Namespace) -> int:
    # The public face is used for what comes later in the package, as from a notebook.
    shared: dict[str, Any] = {
        "threshold": options.threshold,
        "min_lesion_volume": options.min_lesion_volume,
        "min_brain_fraction": options.min_brain_fraction,
        "min_lesion_fraction": options.min_lesion_fraction,
        "min_lesion_slices": options.min_lesion_slices,
        "tta_flip": mri_seg.flag(options.tta_flip, "tta_flip"),
        "fill_holes": mri_seg.flag(options.fill_holes, "fill_holes"),
    }
    runs = [tuple(run.rpartition("=")[::2]) for run in options.left_out] or [(options.split, options.checkpoint)]
    records, fitted_on = [], []
    for split, weights in runs:
        segmenter = mri_seg.Segmenter(
            checkpoint=weights, runtime=options.runtime, quality=False, **shared, **preprocessing_options(weights)
        )
        cases = mri_seg.datalist(options.dataset_dir, split, options.section, options.allow_missing)
        for record in records_of(segmenter, cases):
            records.append(record)
            print(f"{record['case']}: Dice {record['dice']:.3f}", flush=True)
        fitted_on.append({"checkpoint_sha256": sha256(weights), "split": split, "cases": len(cases)})
    output = Path(options.output or Path(options.checkpoint).with_name("quality.json"))
    declared = mri_seg.declaration(options.checkpoint, (), {**shared, "runtime": "openvino-int8"})
    write_json(output, {"declared_for": declared, "fitted_on": fitted_on, **fit_quality(records)})
    print(f"Fitted to {len(records)} cases: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
