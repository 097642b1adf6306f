"""What went wrong, in one line."""

from __future__ import annotations

import re

__all__ = ["reason", "root_of"]


_ITK = re.compile(r"\S+\.[ch]xx:\d+:\s*ITK ERROR: \w+\(\w+\): ")


# What MONAI says around the error of a transform or of a part of a config.
_WRAPPING = ("applying transform", "Failed to evaluate", "Failed to instantiate", "Failed to resolve")


def reason(error: BaseException | str) -> str:
    """What went wrong, in one line: the error at the bottom of what MONAI wraps around it."""
    error = error if isinstance(error, str) else root_of(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}."
    # ITK puts the place in its source before what it says, and the address of an object.
    return " ".join(_ITK.sub("", str(error)).split()) or type(error).__name__


def root_of(error: BaseException) -> BaseException:
    """The error that MONAI wrapped in others; of an error that it did not wrap, the error itself."""
    while isinstance(error, RuntimeError) and error.__cause__ and str(error).startswith(_WRAPPING):
        error = error.__cause__
    return error
