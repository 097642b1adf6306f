"""What a run was: its config as it ran, the versions and the command, written beside its results."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from monai.bundle import ConfigParser

import mri_seg
from mri_seg.distributed import world_size
from mri_seg.files import whole_file

__all__ = [
    "callers",
    "evaluated_config",
    "evaluated_parser",
    "read_json",
    "run_record",
    "sha256",
    "versions",
    "write_json",
    "write_record",
]

_PACKAGES = ("monai", "torch", "pytorch-ignite", "numpy", "tifffile", "nibabel", "itk", "tensorboard")
_PIECE = 2**20  # bytes


def versions() -> dict[str, str]:
    """Versions of Python, this project and the packages it rests on."""
    found = {"python": platform.python_version(), "mri_seg": mri_seg.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def sha256(file: PathLike | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def run_record(**facts: Any) -> dict[str, Any]:
    """Describe the process: time, command, versions, number of processes, machine, and whatever facts are given."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": ["python", "-m", "monai.bundle", *sys.argv[1:]],
        "versions": versions(),
        "processes": world_size(),
        "machine": {"processors": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.platform()},
        **facts,
    }


def write_record(output_dir: PathLike | str, **facts: Any) -> Path:
    """Write ``run.json`` (see :py:func:`run_record`) and ``config.json``, the config with every override in place.

    Call it from an expression of a config: the config is the one that is being evaluated.

    Args:
        output_dir: folder of the run, made if missing.
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


def write_json(file: PathLike | str, content: Any) -> None:
    """Write JSON so that the file is whole or not there; what JSON has no form for becomes text."""
    with whole_file(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=4, default=str) + "\n", encoding="utf-8")


def read_json(file: PathLike | str) -> Any:
    """Read JSON.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}). Remove it to have it written again.") from error


def evaluated_config() -> dict:
    """The config whose expression called us, as it was written, with overrides."""
    return {key: value for key, value in evaluated_parser().get().items() if key != "_meta_"}


def evaluated_parser() -> ConfigParser:
    """The parser of that config: MONAI hands it to no expression, so it is looked up on the stack.

    Raises:
        RuntimeError: when no config is being evaluated.
    """
    for frame in callers():
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
    raise RuntimeError("this must be called from an expression of a config.")


def callers() -> Iterator[FrameType]:
    """Frames of the stack, from the function that asks outwards."""
    frame = inspect.currentframe()
    while frame is not None and (frame := frame.f_back) is not None:
        yield frame
