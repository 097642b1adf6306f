"""Weights for tests that run the bundle: the shipped ones at coarse pixels, and those of small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from mri_seg.config.weights import read_weights
from mri_seg.utils.bundle_folder import bundle_folder

__all__ = ["COARSE", "bundle_network", "coarse_weights", "small_weights"]

COARSE = [1.8, 1.8]
"""In-plane spacing of :py:func:`coarse_weights`, so that heads have few pixels."""


def bundle_network(**options: Any) -> torch.nn.Module:
    """The network of the bundle; options are keys of ``inference.json``, nested ones with ``#``."""
    config = ConfigParser()
    config.read_config(bundle_folder() / "configs" / "inference.json")
    config.update(options)
    network: torch.nn.Module = config.get_parsed_content("network_def")
    return network


def coarse_weights(file: Path) -> Path:
    """Write the shipped weights with a record that says they were trained at :py:data:`COARSE`."""
    network = bundle_network(pixdim=COARSE)
    network.load_state_dict(dict(read_weights(bundle_folder() / "models" / "model.pt")))
    torch.save(network.state_dict(), file)
    return file


def small_weights(file: Path, *, seed: int = 0, head_std: float | None = None, **options: Any) -> Path:
    """Write the weights of a network of few channels, the same at each call.

    Args:
        file: the file to write.
        seed: seed of the weights.
        head_std: standard deviation of new weights of its last layer; a large one makes it call some voxels tumour.
        options: further options of the bundle.
    """
    torch.manual_seed(seed)
    network = bundle_network(**{"network_def#channels": [2, 4], **options})
    if head_std is not None:
        torch.nn.init.normal_(network.get_submodule("head").weight, std=head_std)
    torch.save(network.state_dict(), file)
    return file
