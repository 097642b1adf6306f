"""The record that weights carry of the preprocessing they were trained with.

PyTorch saves metadata with the tensors of a state dict; the record is an entry of the network's metadata. So a file of
weights stays a plain state dict, which every loader reads as before, and the record goes wherever the file is copied.
A network checks the record of whatever it loads, so that MONAI's own loaders and MONAI Label are covered too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

import mri_seg
from mri_seg.utils.compat import state_dict_metadata

__all__ = ["FORMER", "check_record", "give_record", "keep_record", "origin_of", "record_of", "recorded_by"]

logger = logging.getLogger(__name__)

FORMER: dict[str, Any] = {
    "num_slices": 3,
    "sequences": [],
    "mirror": False,
    "normalize_region": "head",
    "pixdim": [0.94, 0.94],
    "label_mode": "binary",
    "label_values": None,
}
"""Preprocessing of weights without a record: that of the weights shipped with version 0.1.0."""

_KEY = "preprocessing"  # in the metadata
_ORIGIN = ("version", "date")  # entries that say where weights come from, and need not agree
_BY_SHAPE = ("num_slices", "mirror", "in_channels")  # entries without which the shapes of the weights tell


def keep_record(network: torch.nn.Module, preprocessing: Mapping[str, Any] | None, in_channels: int) -> None:
    """Make a network write a record into its state dict, and check that of every state dict that it loads.

    Version and date are those of now, because a new network is to be trained; those of loaded weights replace them.
    Without ``preprocessing``, the network takes over the record of the weights that it loads.

    Args:
        network: the network.
        preprocessing: options of the preprocessing that its input gets, by name; None if nothing is known.
        in_channels: channels of its input.
    """
    record = None
    if preprocessing is not None:
        record = {key: _plain(value) for key, value in preprocessing.items()} | {"in_channels": in_channels}
        record |= {"version": mri_seg.__version__, "date": time.strftime("%Y-%m-%d")}
    network.preprocessing_record = record  # type: ignore[assignment]
    network.register_state_dict_post_hook(_write)
    network.register_load_state_dict_pre_hook(_load)


def recorded_by(network: torch.nn.Module) -> dict[str, Any] | None:
    """The record that a network writes; None if it knows nothing of its preprocessing."""
    record: Any = getattr(network, "preprocessing_record", None)
    return record


def record_of(weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in a state dict; None if it has none.

    Args:
        weights: a state dict, as ``torch.load`` returns it. Copies as a plain ``dict`` have no metadata.
    """
    return state_dict_metadata(weights).get(_KEY)


def origin_of(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Version and date of the training, as far as a record has them."""
    return {key: str(record[key]) for key in _ORIGIN if record and record.get(key)}


def give_record(weights: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
    """Write a record into a state dict that has none, such as one of an earlier version.

    Args:
        weights: the state dict, as PyTorch makes it; it is changed.
        preprocessing: what the weights were trained with, by name; the rest is taken from :py:data:`FORMER`. It may
            hold ``version`` and ``date`` of the training too.

    Raises:
        ValueError: when an option is unknown, or the state dict has a record already, or no metadata.
    """
    known = {*FORMER, "in_channels", *_ORIGIN}
    if unknown := sorted(preprocessing.keys() - known):
        raise ValueError(f"{', '.join(unknown)}: expected some of {', '.join(sorted(known))}.")
    metadata = state_dict_metadata(weights)
    if not metadata:
        raise ValueError("expected a state dict with PyTorch's metadata, as training writes it, found a copy without.")
    if (found := record_of(weights)) is not None:
        raise ValueError(f"has a record already: {found}.")
    metadata[_KEY] = FORMER | {key: _plain(value) for key, value in preprocessing.items()}


def check_record(name: str, found: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> None:
    """Refuse weights that were trained with other preprocessing than the config gives.

    Args:
        name: name of the weights in the error, such as their path.
        found: record of the weights; without one, they are taken as trained with :py:data:`FORMER`.
        expected: what the config gives; None if its network does not say, which is taken as :py:data:`FORMER`.

    Raises:
        ValueError: when they differ, with both values.
    """
    different = _differences(found, expected)
    if not different:
        return
    trained = ", ".join(f"{key} {_shown(one)}" for key, one, _ in different)
    given = ", ".join(f"{key} {_shown(other)}" for key, _, other in different)
    options = " ".join(f"--{key} {_argument(one)}" for key, one, _ in different if key != "in_channels")
    origin, source, advice, more = "was trained with", "the config gives", f"Give {options}", ""
    if found is None:
        origin = "has no record of its preprocessing, and is taken as trained with"
        more = " If it was trained otherwise, write that into it with mri_seg.record_preprocessing."
    if expected is None:
        source = "network_def of the config names no preprocessing, which means"
        advice = "Copy preprocessing from network_def of the inference.json that came with the weights"
    raise ValueError(
        f"{name}: {origin} {trained}, but {source} {given}. "
        f"{advice}, or give weights that were trained with the latter.{more}"
    )


def _differences(found: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """Options with the values of the weights and of the config, where these differ."""
    keys = {*(found or {}), *(expected or {}), *FORMER} - set(_ORIGIN)
    if found is None or expected is None:  # the shapes of the weights are checked as well
        keys -= set(_BY_SHAPE)
    elif "in_channels" not in found:
        keys -= {"in_channels"}
    one, other = FORMER | dict(found or {}), FORMER | dict(expected or {})
    return [(key, one.get(key), other.get(key)) for key in sorted(keys) if one.get(key) != other.get(key)]


def _write(network: torch.nn.Module, weights: dict, prefix: str, metadata: dict) -> None:
    """Hook of ``state_dict``."""
    if (record := recorded_by(network)) is not None:
        metadata[_KEY] = dict(record)


def _load(network: torch.nn.Module, weights: dict, prefix: str, metadata: dict, *rest: Any) -> None:
    """Hook of ``load_state_dict``. State dicts without any metadata are not judged: MONAI copies weights so."""
    found, own = metadata.get(_KEY), recorded_by(network)
    if own is None:
        if found and (different := _differences(found, None)):
            trained = ", ".join(f"{key} {_shown(one)}" for key, one, _ in different)
            logger.warning("The weights were trained with %s: preprocess the input of the network so.", trained)
        network.preprocessing_record = found  # type: ignore[assignment]
        return
    if metadata:
        check_record("The weights", found, own)
        kept = {key: value for key, value in own.items() if key not in _ORIGIN}
        network.preprocessing_record = kept | origin_of(found)  # type: ignore[assignment]


def _plain(value: Any) -> Any:
    """A value as the record holds it, whether it came from a config, a command line or Python."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) if isinstance(one, (list, tuple, int, str)) else float(one) for one in value]
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _argument(value: Any) -> str:
    """A value as it is written on a command line."""
    return f'"{value}"'.replace(" ", "") if isinstance(value, list) else _shown(value)
