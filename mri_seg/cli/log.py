"""What commands print: lines of this project and warnings of all, above a progress bar if there is one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from mri_seg.config.errors import drop_tracebacks

__all__ = ["plain_lines"]

_OF_OTHERS = ("Metrics --", "Key metric:", "Loaded the weights")
"""Of MONAI and ignite, the lines that say something about the user's data or weights."""


class _Lines(logging.Handler):
    """Print a record as a line: to stdout, or to stderr if it is a warning or an error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            is_warning = record.levelno >= logging.WARNING
            stream = sys.stderr if is_warning else sys.stdout
            prefix = f"{record.levelname.lower()}: " if is_warning else ""
            line = prefix + self.format(record)
            if "tqdm" in sys.modules:
                from tqdm import tqdm

                tqdm.write(line, file=stream)
            else:
                print(line, file=stream, flush=True)
        except Exception:
            self.handleError(record)


def _is_told(record: logging.LogRecord) -> bool:
    own = record.name.startswith("mri_seg") or any(text in record.getMessage() for text in _OF_OTHERS)
    return own or record.levelno >= logging.WARNING


@contextlib.contextmanager
def plain_lines(*, quiet: bool = False) -> Iterator[None]:
    """Print log records as plain lines, without what ignite and MONAI log about themselves.

    Args:
        quiet: whether to print warnings and errors only, and nothing else to stdout.
    """
    root = logging.getLogger()
    workflows = logging.getLogger("monai.bundle.workflows")  # it has a handler of its own
    figures = logging.getLogger("monai.handlers.StatsHandler")  # so has this, unless it is there before it is used
    before = root.handlers, root.level, workflows.level, figures.handlers
    handler = _Lines(logging.WARNING if quiet else logging.INFO)
    handler.addFilter(_is_told)
    drop_tracebacks([handler])
    root.handlers, root.level = [handler], logging.INFO
    figures.handlers = [handler]  # it does not propagate
    workflows.setLevel(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            if quiet:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield
    finally:
        root.handlers, root.level = before[:2]
        workflows.setLevel(before[2])
        figures.handlers = before[3]
