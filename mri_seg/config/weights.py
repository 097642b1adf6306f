"""Load weights safely: check their SHA-256, execute nothing in the file, and check that they fit the network."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai.handlers
import torch
from ignite.engine import Engine

from mri_seg.utils.compat import state_of
from mri_seg.utils.files import atomic_write, sha256

__all__ = [
    "SUMS",
    "CheckpointLoader",
    "bundle_weights",
    "check_sum",
    "initial_weights_file",
    "read_weights",
    "save_to_bundle",
    "weights_file",
    "write_sums",
]

SUMS = "SHA256SUMS"
"""File beside weights with the SHA-256 of each, in the format of ``sha256sum``."""


_SHIPPED = "shipped"


class CheckpointLoader(monai.handlers.CheckpointLoader):
    """MONAI's ``CheckpointLoader`` with errors that name the file, what was found, and what was expected.

    It must keep this name: MONAI's federated learning disables handlers with it, so that a client keeps the weights
    that the server sent.

    Args:
        load_path: the weights.
        load_dict: the network, under any name.
        map_location: device to which the weights are read.

    Raises:
        ValueError: when training or inference starts, and the weights are damaged, do not match ``SHA256SUMS`` beside
            them, or belong to another network.
        FileNotFoundError: when the file does not exist.
    """

    def __init__(self, load_path: PathLike | str, load_dict: dict, map_location: Any = "cpu") -> None:
        super().__init__(load_path=str(load_path), load_dict=load_dict, map_location=map_location)

    def __call__(self, engine: Engine) -> None:
        """Load the weights, and leave their path in ``engine.state.loaded_weights``."""
        (network,) = self.load_dict.values()
        weights = read_weights(self.load_path, self.map_location)
        _check_fit(self.load_path, weights, network)
        network.load_state_dict(weights)
        state_of(engine).loaded_weights = self.load_path
        self.logger.info("Loaded the weights %s", self.load_path)


def read_weights(path: PathLike | str, map_location: Any = "cpu") -> dict[str, torch.Tensor]:
    """Read weights without executing anything in the file.

    Args:
        path: the file.
        map_location: device to which the weights are read.

    Returns:
        tensors by name.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file does not match ``SHA256SUMS``, is not a file of weights, or holds other objects.
    """
    path = weights_file(path)
    check_sum(path)
    try:
        weights = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged files, and files with objects, raise errors of many kinds
        why = "it holds more than tensors, which would be executed" if "eights_only" in str(error) else "it is damaged"
        raise ValueError(f"{path}: cannot be read as weights: {why}. Give weights that training wrote.") from error
    if isinstance(weights, Mapping) and isinstance(weights.get("model"), Mapping):
        weights = weights["model"]
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"{path}: holds no weights, but {type(weights).__name__}. Give weights that training wrote.")
    return dict(weights)


def weights_file(path: PathLike | str) -> Path:
    """Check that a file of weights exists, and return its path.

    Raises:
        FileNotFoundError: when the file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights. Give the path of weights that training wrote.")
    return path


def check_sum(path: PathLike | str) -> None:
    """Check a file against ``SHA256SUMS`` beside it, if that lists it.

    Raises:
        ValueError: when the SHA-256 differs.
    """
    path = Path(path)
    sums = path.with_name(SUMS)
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if name.lstrip("*") == path.name and (found := sha256(path)) != expected:
            raise ValueError(
                f"{path}: its SHA-256 is {found}, expected {expected} by {sums}. Copy the file again from its source. "
                f"If you replaced the weights, remove its line from {SUMS}."
            )


def bundle_weights(which: str | bool) -> str | None:
    """Name of the file of a run that is copied to the bundle: ``model.pt``, ``model_final.pt``, or None.

    Args:
        which: ``"best"`` on the validation patients, ``"last"``, or false for neither.

    Raises:
        ValueError: when ``which`` is something else.
    """
    names = {"best": "model.pt", "true": "model.pt", "last": "model_final.pt", "false": None}
    if (choice := str(which).lower()) not in names:
        raise ValueError(f"--save_to_bundle: expected best, last or false, got {which!r}.")
    return names[choice]


def initial_weights_file(which: PathLike | str | None, bundle_root: PathLike | str) -> str | None:
    """Path of the weights to start training from.

    Args:
        which: a path; ``shipped`` for those of the bundle (``./shipped`` for a file of that name); None for none.
        bundle_root: folder of the bundle.
    """
    if which is None:
        return None
    return str(Path(bundle_root, "models", "model.pt")) if str(which) == _SHIPPED else str(which)


def save_to_bundle(run_dir: PathLike | str, folder: PathLike | str, which: str | bool) -> None:
    """Copy the weights of a finished run to a bundle as ``model.pt``, and write the sums of all weights there.

    Args:
        run_dir: folder of the run.
        folder: the folder ``models`` of the bundle.
        which: as in :py:func:`bundle_weights`.
    """
    name = bundle_weights(which)
    if name is None or idist.get_rank() > 0:
        return
    with atomic_write(Path(folder, "model.pt")) as unfinished:
        shutil.copyfile(Path(run_dir, name), unfinished)
    write_sums(folder)


def write_sums(folder: PathLike | str) -> None:
    """Write ``SHA256SUMS`` of all weights (``.pt``, ``.ts``, ``.onnx``, ``.xml`` and ``.bin``) in a folder."""
    folder = Path(folder)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".pt", ".ts", ".onnx", ".xml", ".bin"))
    with atomic_write(folder / SUMS) as unfinished:
        unfinished.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in files), encoding="utf-8")


def _check_fit(path: PathLike | str, weights: Mapping[str, torch.Tensor], network: torch.nn.Module) -> None:
    expected = network.state_dict()
    names = sorted(expected.keys() ^ weights.keys())
    if names:
        raise ValueError(
            f"{path}: belongs to another network: {len(names)} weights are in only one of the file and the network, "
            f"such as {names[0]}. Give weights of the network that the config defines, or use the right config."
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: belongs to a network of another size: {name} has shape {tuple(value.shape)}, expected "
                f"{tuple(expected[name].shape)}. Give weights of the network that the config defines (see its "
                "num_slices and channels)."
            )
