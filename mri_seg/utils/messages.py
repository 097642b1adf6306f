"""Describe an error in one line."""

from __future__ import annotations

import re

__all__ = ["reason", "root_of"]


_ITK = re.compile(r"\S+\.[ch]xx:\d+:\s*ITK ERROR: \w+\(\w+\): ")


# Beginnings of the errors in which MONAI wraps the error of a transform or of a part of a config.
_WRAPPING = ("applying transform", "Failed to evaluate", "Failed to instantiate", "Failed to resolve")


def reason(error: BaseException | str) -> str:
    """Describe an error in one line, without the errors that MONAI wraps around it."""
    error = error if isinstance(error, str) else root_of(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}."
    # ITK puts the location in its source and the address of an object before its message.
    return " ".join(_ITK.sub("", str(error)).split()) or type(error).__name__


def root_of(error: BaseException) -> BaseException:
    """The original error if MONAI wrapped it in others; otherwise the error itself."""
    while isinstance(error, RuntimeError) and error.__cause__ and str(error).startswith(_WRAPPING):
        error = error.__cause__
    return error
