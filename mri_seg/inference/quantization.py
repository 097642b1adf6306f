"""Make 8-bit weights for OpenVINO: post-training quantization, calibrated on training slices."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset

from mri_seg.config.preprocessing import recorded_by
from mri_seg.config.weights import SUMS, load_weights, weights_file, write_sums
from mri_seg.inference.runtimes import DIGEST, PREPROCESSING, int8_file, openvino, openvino_model, weights_digest
from mri_seg.utils.bundle_folder import refuse_installed
from mri_seg.utils.files import atomic_write, sha256

__all__ = ["calibration_slices", "quantize"]


def quantize(
    network: torch.nn.Module,
    checkpoint: PathLike | str,
    volumes: Dataset | Sequence[Mapping[str, Any]],
    slices: int = 300,
    keep_float: Sequence[str] = (),
    seed: int = 0,
    output_dir: PathLike | str | None = None,
) -> Path:
    """Quantize a network's weights and activations to 8-bit integers, and write them beside its float weights.

    NNCF takes the whole range of each activation on the calibration slices; an average of ranges would clip values that
    occur on few slices, such as tumours. It then corrects the bias layer by layer for the error so far. The result is
    for the runtime ``openvino-int8``, and holds the digest of its float weights and the record of their preprocessing.

    The runtime looks for 8-bit weights beside the float ones. In another folder than theirs, a copy of the float
    weights is therefore written too, with ``SHA256SUMS``, so that ``checkpoint`` can be that copy.

    Args:
        network: the network; its current weights do not matter.
        checkpoint: the float weights.
        volumes: training cases, with ``image`` ``(C, H, W, D)`` preprocessed for the network.
        slices: number of calibration slices.
        keep_float: regular expressions for the names of layers that stay in floating point.
        seed: seed with which the slices are drawn.
        output_dir: folder to write to; by default that of the float weights.

    Returns:
        path of the 8-bit weights; see :py:func:`mri_seg.inference.runtimes.int8_file`.

    Raises:
        ImportError: when NNCF or OpenVINO is missing.
        FileExistsError: when ``output_dir`` has other weights of the same name.
        ValueError: when it lies in the installed package.
    """
    if any(importlib.util.find_spec(package) is None for package in ("openvino", "nncf")):
        raise ImportError('Quantization needs nncf and openvino. Install the extra: pip install "mri_seg[openvino]"')
    source = weights_file(checkpoint)
    copy = source if output_dir is None else Path(output_dir, source.name)
    _check_place(source, copy)
    ov = openvino()  # before nncf, which also imports it
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.WARNING)
    load_weights(network, checkpoint)
    calibration = nncf.Dataset(calibration_slices(volumes, slices, seed))
    model = nncf.quantize(
        openvino_model(network),
        calibration,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=slices,
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(patterns=list(keep_float), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    model.set_rt_info(weights_digest(network.state_dict()), list(DIGEST))
    if (record := recorded_by(network)) is not None:
        model.set_rt_info(json.dumps(record), list(PREPROCESSING))
    file = int8_file(copy)
    with atomic_write(file) as unfinished:
        ov.save_model(model, unfinished, compress_to_fp16=False)
        unfinished.with_suffix(".bin").replace(file.with_suffix(".bin"))
    if not copy.exists():
        with atomic_write(copy) as unfinished:
            shutil.copyfile(source, unfinished)
        write_sums(copy.parent)
    elif file.with_name(SUMS).is_file():
        write_sums(file.parent)
    return file


def _check_place(source: Path, copy: Path) -> None:
    """Check before the minutes of a calibration that its results can be written."""
    refuse_installed(copy.parent, "--output_dir")
    if copy.exists() and not copy.samefile(source) and sha256(copy) != sha256(source):
        raise FileExistsError(
            f"{copy}: has other weights than {source}. Give a new --output_dir, or the folder of {source.name}."
        )


def calibration_slices(volumes: Dataset | Sequence[Mapping[str, Any]], number: int, seed: int = 0) -> list[np.ndarray]:
    """Draw the same number of slices from each volume.

    Args:
        volumes: items with ``image`` ``(C, H, W, D)``.
        number: total number of slices; from a volume that has too few, all slices are taken.
        seed: seed of the draw.

    Returns:
        slices ``(1, C, H, W)``, float32.
    """
    draw, chosen = np.random.default_rng(seed), []
    for n in range(len(volumes)):
        image = torch.as_tensor(volumes[n]["image"]).movedim(-1, 0)  # (D, C, H, W)
        count = number * (n + 1) // len(volumes) - number * n // len(volumes)
        drawn = draw.choice(len(image), min(count, len(image)), replace=False)
        chosen += [image[[place]].float().numpy() for place in drawn]
    return chosen
