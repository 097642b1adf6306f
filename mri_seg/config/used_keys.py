"""Find the keys that a run of configs uses, without resolving them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mri_seg.config.validation import texts

__all__ = ["used_keys"]

_SEPARATOR = re.compile("#|::")  # of the parts of a config
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_RUN = ("imports", "initialize", "run", "finalize")


def used_keys(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Find the top-level keys on which a run depends: those that it refers to, those that these refer to, and so on.

    Args:
        configs: contents of the configs, each laid over those before it.

    Example::

        >>> training = {"epochs": 5, "report": True, "train": {"length": "@epochs"}, "run": ["$@train#length"]}
        >>> sorted(used_keys([training]))
        ['epochs', 'run', 'train']
    """
    config: dict[str, Any] = {}
    for overlay in configs:
        for key, value in overlay.items():
            _lay_over(config, _SEPARATOR.split(key), copy.deepcopy(value))
    found: set[tuple[str, ...]] = set()
    waiting: list[tuple[str, ...]] = [(name,) for name in _RUN if name in config]
    while waiting:
        path = waiting.pop()
        if path not in found and path[0] in config:
            found.add(path)
            waiting += [
                tuple(_SEPARATOR.split(name))
                for text in texts(_part(config, path))
                for name in _REFERENCE.findall(text)
            ]
    return {first for first, *_ in found}


def _lay_over(config: Any, path: Sequence[str], value: Any) -> None:
    """Set a part of a config."""
    *parents, last = path
    for name in parents:
        config = config[int(name)] if isinstance(config, list) else config.setdefault(name, {})
    config[int(last) if isinstance(config, list) else last] = value


def _part(config: Any, path: Sequence[str]) -> Any:
    """A part of a config, or the smallest part around it if it is made when the config is resolved."""
    for name in path:
        try:
            config = config[int(name)] if isinstance(config, list) else config[name]
        except (IndexError, KeyError, TypeError, ValueError):
            break
    return config
