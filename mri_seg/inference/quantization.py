"""Make 8-bit weights of float ones for OpenVINO: post-training quantisation, calibrated on training slices."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from monai.data import Dataset

from mri_seg.config.weights import SUMS, read_weights, write_sums
from mri_seg.inference.runtimes import DIGEST, int8_file, openvino, openvino_model, weights_digest
from mri_seg.utils.files import atomic_write

__all__ = ["calibration_slices", "quantize"]


def quantize(
    network: torch.nn.Module,
    checkpoint: PathLike | str,
    volumes: Dataset,
    slices: int = 300,
    keep_float: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Quantise a network's weights and activations to 8-bit integers, beside its float weights.

    NNCF finds the whole range of each activation on the calibration slices (means of ranges would clip what is seen on
    few of them: tumours), and layer by layer corrects the bias for the error made up to there. The result, for the
    runtime ``openvino-int8``, says which float weights it was made of.

    Args:
        network: the network, of any weights.
        checkpoint: its float weights.
        volumes: items with ``image`` ``(C, H, W, D)`` as the network sees them; training cases.
        slices: how many slices to calibrate on.
        keep_float: regular expressions of names of layers that stay in floating point.
        seed: seed of their draw.

    Returns:
        the file: see :py:func:`mri_seg.inference.runtimes.int8_file`.

    Raises:
        ImportError: when NNCF or OpenVINO is missing.
    """
    if any(importlib.util.find_spec(package) is None for package in ("openvino", "nncf")):
        raise ImportError('quantisation needs nncf and openvino. Install the extra: pip install -e ".[openvino]"')
    ov = openvino()  # before nncf, which imports it too
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.WARNING)
    weights = read_weights(checkpoint)
    network.load_state_dict(weights)
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
    model.set_rt_info(weights_digest(weights), list(DIGEST))
    file = int8_file(checkpoint)
    with atomic_write(file) as unfinished:
        ov.save_model(model, unfinished, compress_to_fp16=False)
        unfinished.with_suffix(".bin").replace(file.with_suffix(".bin"))
    if file.with_name(SUMS).is_file():
        write_sums(file.parent)
    return file


def calibration_slices(volumes: Dataset, number: int, seed: int = 0) -> list[np.ndarray]:
    """Draw slices from all volumes, as many of each.

    Args:
        volumes: items with ``image`` ``(C, H, W, D)``.
        number: how many slices; of volumes that have fewer than their share, all.
        seed: seed of the choice.

    Returns:
        slices ``(1, C, H, W)``, float32.
    """
    draw, chosen = np.random.default_rng(seed), []
    for n in range(len(volumes)):
        image = torch.as_tensor(volumes[n]["image"]).movedim(-1, 0)  # (D, C, H, W)
        share = number * (n + 1) // len(volumes) - number * n // len(volumes)
        drawn = draw.choice(len(image), min(share, len(image)), replace=False)
        chosen += [image[[place]].float().numpy() for place in drawn]
    return chosen
