"""Read and write files; a partly written file is never left under its name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["atomic_write", "read_json", "refuse_unwritable", "safe_name", "sha256", "write_json"]

_LONGEST_NAME = 80  # characters, of up to three bytes each of 255
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)", re.IGNORECASE)


def safe_name(name: str, default: str = "case") -> str:
    """Make a name that is valid for files and folders on Linux, macOS and Windows; most names stay as they are.

    Args:
        name: any text.
        default: the name if no valid character is left.

    Example::

        >>> safe_name("a:b. "), safe_name("con"), safe_name("...")
        ('a_b', 'con_', 'case')
    """
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", name)).strip().rstrip(". ")
    return _RESERVED.sub(r"\1_", name, count=1) if _RESERVED.match(name) else name or default


@contextmanager
def atomic_write(path: PathLike | str) -> Iterator[Path]:
    """Write a file under a temporary hidden name in the same folder; it is renamed if the block raises no error.

    The folder is created if it does not exist. The suffix stays, for libraries that choose a format by it.

    Args:
        path: the file to write; an existing file is replaced.

    Example::

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, atomic_write(Path(folder) / "result.txt") as unfinished:
        ...     _ = unfinished.write_text("all of it")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other processes and threads may write the same file. A long name is cut at its start, because names are limited.
    prefix = f".part-{os.getpid()}-{threading.get_ident()}-"
    unfinished = path.with_name(prefix + path.name[-(_LONGEST_NAME - len(prefix)) :])
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_unwritable(path: PathLike | str, option: str) -> None:
    """Refuse a place for results in which they cannot be written, before the work begins. Nothing is written.

    Args:
        path: a folder that may not exist yet, or a NIfTI file in such a folder.
        option: the option that names it, with ``--``.

    Raises:
        ValueError: when a file stands where a folder is needed.
        PermissionError: when this user may not write there.
    """
    folder = Path(path)
    if folder.name.lower().endswith((".nii", ".nii.gz")) and not folder.is_dir():
        folder = folder.parent
    found = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    there = found == Path(path)
    advice = "Give another place for the results."
    if found.exists() and not found.is_dir():
        what = "is a file" if there else f"{found} is a file"
        raise ValueError(f"{option} {path}: {what}, expected a folder or a new name. {advice}")
    if found.is_dir() and not os.access(found, os.W_OK | os.X_OK):
        what = "you may not write there" if there else f"you may not write in {found}"
        raise PermissionError(f"{option} {path}: {what}. {advice}")


_PIECE = 2**20  # bytes


def sha256(file: PathLike | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def write_json(file: PathLike | str, content: Any) -> None:
    """Write JSON; a partly written file is never left. Values without a JSON form become text."""
    with atomic_write(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=4, default=str) + "\n", encoding="utf-8")


def read_json(file: PathLike | str) -> Any:
    """Read JSON.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error}). Remove it, so that it is written again.") from error
