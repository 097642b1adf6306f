"""Show errors of the bundle's commands in one line that says what is wrong, without a traceback."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any

from mri_seg.config.validation import references
from mri_seg.utils.distributed import first_to_fail
from mri_seg.utils.messages import reason, root_of

__all__ = ["check_keys", "drop_tracebacks", "one_line_errors", "show_error"]


_RUN_BY_NAME = {"imports", "initialize", "run", "finalize", "bundle_root"}


# MONAI's federated client sets run_name in every workflow, and its experiment tracking sets the others.
_SET_BY_MONAI = {"run_name", "save_execute_config", "tracking_uri", "experiment_name", "is_not_rank0"}


def one_line_errors() -> None:
    """Show the error that ends this process in a few lines, without a traceback; for command lines."""
    sys.excepthook = _show
    drop_tracebacks(logging.getLogger().handlers)


def drop_tracebacks(handlers: Iterable[logging.Handler]) -> None:
    """Keep log handlers from printing the tracebacks that ignite and MONAI log for an error that is shown at the end.

    Args:
        handlers: the handlers.
    """
    for handler in handlers:
        if not any(isinstance(found, _WithoutTraceback) for found in handler.filters):
            handler.addFilter(_WithoutTraceback())


def show_error(error: BaseException) -> None:
    """Print an error in a line that says what is wrong; with several processes, the first to fail prints it.

    Args:
        error: the error; those that MONAI wraps around it are left out.
    """
    if isinstance(error, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return
    if not first_to_fail():
        return
    root = root_of(error)
    known = isinstance(root, (ValueError, OSError, ImportError))
    name = "" if known else f"{type(root).__name__}: "
    print(f"error: {name}{reason(root)}", file=sys.stderr)
    print("(--debug true shows where it was raised)", file=sys.stderr)


def check_keys(config: Mapping[str, Any], known: Collection[tuple[str, Any]] = ()) -> None:
    """Refuse config keys to which nothing refers, such as misspelled options.

    Keys that begin with ``_`` are accepted, and so are lists of expressions, which can be run by their name.

    Args:
        config: a config before it is resolved, with the options in it.
        known: keys and values that may be unused, such as those of the bundle's own files.

    Raises:
        ValueError: with the nearest keys that are used.
    """
    used = set(references(config))
    for key, value in config.items():
        if key in used | _RUN_BY_NAME | _SET_BY_MONAI or key.startswith("_") or _is_runnable(value):
            continue
        if (key, value) in known:
            continue
        near = difflib.get_close_matches(key, sorted(used & config.keys()), n=3)
        raise ValueError(
            f"--{key}: no such option. "
            + (f"Did you mean {' or '.join(f'--{name}' for name in near)}? " if near else "")
            + "The options are described in docs/options.md."
        )


def _is_runnable(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, str) and item.startswith("$") for item in value)
    )


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    show_error(error)


class _WithoutTraceback(logging.Filter):
    """Drop the log records of ignite and MONAI about an exception, since it is shown once at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        dropped = record.exc_info is not None or "terminating due to exception" in record.getMessage()
        return not (dropped and record.name.startswith(("ignite.", "monai.")))
