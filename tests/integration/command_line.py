"""The command line in this process: what it prints, and the status it ends with, without seconds of imports."""

from __future__ import annotations

import contextlib
import io
import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"network_def#channels": "[2,4]", "tta_flip": "false", "amp": "false"}
"""Options that make inference quick."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def bundle(run_id: str, *config_files: str, **options: object) -> Ended:
    """``python -m monai.bundle run``, as the interpreter does it: errors go to the hook that prints them."""
    files = [str(ROOT / "bundle" / "configs" / name) for name in config_files]
    words = ["run", run_id, "--config_file", str(files)]
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return module("monai.bundle", *words)


@contextlib.contextmanager
def log_kept() -> Iterator[None]:
    """Restore the log afterwards: MONAI sets it up by fileConfig, which closes all handlers there are."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with mock.patch.object(logging, "_handlerList", []):
        try:
            yield
        finally:
            root.handlers, root.level = handlers, level


def module(name: str, *words: str) -> Ended:
    """``python -m name words``."""
    main = sys.modules.pop(f"{name}.__main__", None)  # as in an interpreter that has just started
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        mock.patch.object(sys, "argv", [f"python -m {name}", *words]),
        mock.patch.object(sys, "excepthook", sys.__excepthook__),
        log_kept(),
    ):
        try:
            runpy.run_module(name, run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            if main is not None:
                sys.modules[f"{name}.__main__"] = main
    return Ended(status, stdout.getvalue(), stderr.getvalue())
