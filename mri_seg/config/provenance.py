"""Provenance of a run: its resolved config, versions and command, written beside its results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

import mri_seg
from mri_seg.utils.compat import caller_of
from mri_seg.utils.distributed import world_size
from mri_seg.utils.files import write_json

__all__ = ["evaluated_config", "evaluated_parser", "run_record", "versions", "write_record"]


_PACKAGES = ("monai", "torch", "pytorch-ignite", "numpy", "tifffile", "nibabel", "itk", "tensorboard")


def versions() -> dict[str, str]:
    """Versions of Python, this project and the main packages it uses."""
    found = {"python": platform.python_version(), "mri_seg": mri_seg.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_record(**facts: Any) -> dict[str, Any]:
    """Describe the run: time, command, versions, number of processes, machine, and further facts."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [*_program(), *sys.argv[1:]],
        "versions": versions(),
        "processes": world_size(),
        "machine": {"processors": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.platform()},
        **facts,
    }


def _program() -> list[str]:
    """How this process was started, without the paths of this machine."""
    program = Path(sys.argv[0])
    if program.stem == "mri-seg":
        return ["mri-seg"]
    return ["python", "-m", "mri_seg" if program.parent.name == "mri_seg" else "monai.bundle"]


def write_record(output_dir: PathLike | str, **facts: Any) -> Path:
    """Write ``run.json`` (see :py:func:`run_record`) and ``config.json``, the config with all overrides.

    It must be called from an expression of a config, whose config it then writes.

    Args:
        output_dir: folder of the run; created if it does not exist.
        facts: further entries of ``run.json``.

    Returns:
        the folder.

    Raises:
        RuntimeError: when no config is being evaluated.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", evaluated_config())
    write_json(folder / "run.json", run_record(**facts))
    return folder


def evaluated_config() -> dict:
    """The unresolved config whose expression called this function, with overrides."""
    return {key: value for key, value in evaluated_parser().get().items() if key != "_meta_"}


def evaluated_parser() -> ConfigParser:
    """The parser of that config: MONAI hands it to no expression, so it is looked up on the stack.

    Raises:
        RuntimeError: when no config is being evaluated.
    """
    parser = caller_of(ConfigParser)
    if parser is None:
        raise RuntimeError("this must be called from an expression of a config.")
    return parser
