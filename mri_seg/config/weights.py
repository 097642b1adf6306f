"""Load weights safely: check their SHA-256, execute nothing in the file, and check that they fit the network."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai.handlers
import torch
from ignite.engine import Engine

from mri_seg.config.bundle_root import check_bundle_root
from mri_seg.config.preprocessing import check_record, give_record, origin_of, record_of, recorded_by
from mri_seg.utils.bundle_folder import refuse_installed
from mri_seg.utils.compat import give_metadata, state_of
from mri_seg.utils.files import atomic_write, sha256

__all__ = [
    "SUMS",
    "CheckpointLoader",
    "bundle_weights",
    "check_sum",
    "initial_weights_file",
    "load_weights",
    "read_weights",
    "record_preprocessing",
    "save_to_bundle",
    "weights_file",
    "weights_origin",
    "write_sums",
]

logger = logging.getLogger(__name__)

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
        check_preprocessing: whether the weights must have been trained with the preprocessing of the config; weights
            that training starts from need not.

    Raises:
        ValueError: when training or inference starts, and the weights are damaged, do not match ``SHA256SUMS`` beside
            them, belong to another network, or were trained with other preprocessing.
        FileNotFoundError: when the file does not exist.
    """

    def __init__(
        self, load_path: PathLike | str, load_dict: dict, map_location: Any = "cpu", *, check_preprocessing: bool = True
    ) -> None:
        super().__init__(load_path=str(load_path), load_dict=load_dict, map_location=map_location)
        self.check_preprocessing = check_preprocessing

    def __call__(self, engine: Engine) -> None:
        """Load the weights, and leave their path in ``engine.state.loaded_weights``."""
        (network,) = self.load_dict.values()
        load_weights(network, self.load_path, self.map_location, check_preprocessing=self.check_preprocessing)
        state_of(engine).loaded_weights = self.load_path
        self.logger.info("Loaded the weights %s", self.load_path)


def load_weights(
    network: torch.nn.Module, path: PathLike | str, map_location: Any = "cpu", *, check_preprocessing: bool = True
) -> None:
    """Load a file of weights into a network, if it belongs to the network and to the preprocessing of its config.

    Args:
        network: the network; see :py:mod:`mri_seg.config.preprocessing` for what it knows of its preprocessing.
        path: the file.
        map_location: device to which the weights are read.
        check_preprocessing: whether the weights must have been trained with that preprocessing.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: as in :py:func:`read_weights`, or when the weights belong to another network or were trained with
            other preprocessing; the message has both values.
    """
    weights = read_weights(path, map_location)
    found, expected = record_of(weights), recorded_by(network)
    if check_preprocessing and found and expected and weights.keys() == network.state_dict().keys():
        check_record(str(path), found, expected)  # first, since it names the option that makes shapes differ
    _check_fit(path, weights, network)
    if not check_preprocessing:
        weights = give_metadata(weights, network)
    else:
        check_record(str(path), found, expected)
        if found is None and expected is not None:
            logger.info(
                "%s has no record of its preprocessing, and is taken as trained with that of version 0.1.0.", path
            )
    network.load_state_dict(weights)


def weights_origin(path: PathLike | str) -> dict[str, str]:
    """Version and date of the training of a file of weights, as far as the file says; nothing if it cannot be read."""
    try:
        return origin_of(record_of(read_weights(path)))
    except (OSError, ValueError):  # loading the weights gives the error
        return {}


def record_preprocessing(path: PathLike | str, **preprocessing: Any) -> None:
    """Write the record of their preprocessing into a file of weights that has none, such as one of an earlier version.

    ``SHA256SUMS`` beside the file is written anew.

    Args:
        path: the file, which is replaced.
        preprocessing: as in :py:func:`mri_seg.config.preprocessing.give_record`, such as ``normalize_region="brain"``.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when an option is unknown, or the file has a record already, or was not written by training.
    """
    weights = read_weights(path)
    try:
        give_record(weights, preprocessing)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with atomic_write(path) as unfinished:
        torch.save(weights, unfinished)
    if Path(path).with_name(SUMS).is_file():
        write_sums(Path(path).parent)


def read_weights(path: PathLike | str, map_location: Any = "cpu") -> Mapping[str, torch.Tensor]:
    """Read weights without executing anything in the file.

    Args:
        path: the file.
        map_location: device to which the weights are read.

    Returns:
        tensors by name, with the metadata that PyTorch saved.

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
    return weights


def weights_file(path: PathLike | str) -> Path:
    """Check that a file of weights exists, and return its path.

    Raises:
        FileNotFoundError: when the file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file of weights. Give the path of weights that training wrote; the shipped ones are in "
            "models of the folder that `python -m mri_seg.bundle` prints."
        )
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


def bundle_weights(which: str | bool, bundle_root: PathLike | str | None = None) -> str | None:
    """Name of the file of a run that is copied to the bundle: ``model.pt``, ``model_final.pt``, or None.

    Args:
        which: ``"best"`` on the validation patients, ``"last"``, or false for neither.
        bundle_root: the bundle, to check before a training that weights may be copied there; for configs.

    Raises:
        ValueError: when ``which`` is something else, when ``bundle_root`` is its default, and when it is the installed
            package.
    """
    names = {"best": "model.pt", "true": "model.pt", "last": "model_final.pt", "false": None}
    if (choice := str(which).lower()) not in names:
        raise ValueError(f"--save_to_bundle: expected best, last or false, got {which!r}.")
    if names[choice] and bundle_root is not None:
        check_bundle_root(bundle_root)
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
        which: as in :py:func:`bundle_weights`; without validation, the best weights are the last.

    Raises:
        ValueError: when the bundle is the installed package.
    """
    name = bundle_weights(which)
    if name is None or idist.get_rank() > 0:
        return
    refuse_installed(folder, "--save_to_bundle")
    source = Path(run_dir, name)
    if not source.is_file():  # without validation, none are best
        source = source.with_name("model_final.pt")
    with atomic_write(Path(folder, "model.pt")) as unfinished:
        shutil.copyfile(source, unfinished)
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
                "num_slices, sequences and channels)."
            )
