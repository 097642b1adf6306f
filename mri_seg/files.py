"""Write files so that each appears whole under its name or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

__all__ = ["whole_file"]

_LONGEST_NAME = 80  # characters, of up to three bytes each of 255


@contextmanager
def whole_file(path: PathLike | str) -> Iterator[Path]:
    """Give a hidden name in the same folder to write to; the file gets its own name when the block ends well.

    The folder is made when it is not there. Suffixes stay as they are, for libraries that choose a format by them.

    Args:
        path: the file to write; an existing one is replaced.

    Example::

        >>> with whole_file("result.txt") as unfinished:
        ...     _ = unfinished.write_text("all of it")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other processes and threads may write the same file; a name cut at its start stays within what a name may have.
    prefix = f".part-{os.getpid()}-{threading.get_ident()}-"
    unfinished = path.with_name(prefix + path.name[-(_LONGEST_NAME - len(prefix)) :])
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
