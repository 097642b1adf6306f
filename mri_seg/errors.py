"""Errors of a bundle's commands as a user should see them: one that says what is wrong, and no traceback."""

from __future__ import annotations

import difflib
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from mri_seg.distributed import first_to_fail
from mri_seg.options import check_values, flag
from mri_seg.record import evaluated_config

__all__ = ["check_keys", "reason", "set_up_errors"]

_REFERENCE = re.compile(r"@(?:%?)([A-Za-z_]\w*)")
_ITK = re.compile(r"\S+\.[ch]xx:\d+:\s*ITK ERROR: \w+\(\w+\): ")
_RUN_BY_NAME = {"imports", "initialize", "run", "training", "evaluation", "inference", "finalize", "bundle_root"}
# What MONAI says around the error of a transform or of a part of a config.
_WRAPPING = ("applying transform", "Failed to evaluate", "Failed to instantiate", "Failed to resolve")


def set_up_errors(debug: bool | str = False) -> None:
    """Check the keys and values of the config that calls this, and let errors be shown in a few lines.

    Args:
        debug: whether to leave tracebacks as they are.

    Raises:
        ValueError: when the config has a key that nothing uses (:py:func:`check_keys`), or a value that cannot work
            (:py:func:`mri_seg.options.check_values`).
    """
    if not flag(debug, "debug"):
        sys.excepthook = _show
        for handler in logging.getLogger().handlers:
            if not any(isinstance(found, _WithoutTraceback) for found in handler.filters):
                handler.addFilter(_WithoutTraceback())
    config = evaluated_config()
    # The command line takes one dash for two, and dashes within a name for underscores.
    given = [word.lstrip("-").split("=")[0].replace("-", "_") for word in sys.argv if word.startswith("-")]
    check_keys(config, given)
    check_values(config)


def check_keys(config: Mapping[str, Any], given: Sequence[str]) -> None:
    """Refuse options that nothing in a config refers to, such as misspelt ones.

    Args:
        config: a config before it is resolved, with the options in it.
        given: names of the options.

    Raises:
        ValueError: with the nearest keys that are used.
    """
    used = {name for text in _texts(config) for name in _REFERENCE.findall(text)}
    for key in given:
        if key in config and key not in used | _RUN_BY_NAME:
            near = difflib.get_close_matches(key, sorted(used & config.keys()), n=3)
            raise ValueError(
                f"--{key}: no such option. "
                + (f"Did you mean {' or '.join(f'--{name}' for name in near)}? " if near else "")
                + "The options are described in bundle/docs/README.md."
            )


def reason(error: BaseException | str) -> str:
    """What went wrong, in one line: the error at the bottom of what MONAI wraps around it."""
    error = _root(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}."
    # ITK puts the place in its source before what it says, and the address of an object.
    return " ".join(_ITK.sub("", str(error)).split()) or type(error).__name__


def _root(error: BaseException | str) -> BaseException | str:
    """The error that MONAI wrapped."""
    while isinstance(error, RuntimeError) and error.__cause__ and str(error).startswith(_WRAPPING):
        error = error.__cause__
    return error


def _texts(part: Any) -> Iterator[str]:
    """All texts in a config."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _texts(value)


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return
    if not first_to_fail():
        return
    root = _root(error)
    known = isinstance(root, (ValueError, OSError, ImportError))
    name = "" if known else f"{type(root).__name__}: "
    print(f"error: {name}{reason(root)}", file=sys.stderr)
    print("(--debug true shows where it was raised)", file=sys.stderr)


class _WithoutTraceback(logging.Filter):
    """Drop what ignite and MONAI log of an exception on its way up: it is shown once, at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        dropped = record.exc_info is not None or "terminating due to exception" in record.getMessage()
        return not (dropped and record.name.startswith(("ignite.", "monai.")))
