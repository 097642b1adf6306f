"""Silence pydicom's warnings without changing its settings or Python's warning filters for other threads."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["quiet_pydicom"]

_quiet: ContextVar[bool] = ContextVar("quiet_pydicom", default=False)
_PYDICOM = re.compile(r"pydicom(\.|$)")
_LOGGER = logging.getLogger("pydicom")


class _InQuiet:
    """Replaces the pattern of a warnings filter; it matches only in threads inside ``quiet_pydicom``."""

    def match(self, text: str) -> bool:
        return _quiet.get()


class _DropWarnings(logging.Filter):
    """Drops log records of threads inside ``quiet_pydicom``, since pydicom also logs its warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_quiet.get() and record.levelno <= logging.WARNING)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Drop pydicom's warnings in this thread: values that are too long, unknown tags, padding of pixels.

    Scanners write such values into every slice, so a series gives hundreds of warnings, none of which names its file.
    The code that uses the values checks them. Other threads, warnings of other libraries and ``pydicom.config`` are not
    affected; ``warnings.catch_warnings`` would change the filters of all threads.

    Example::

        >>> with quiet_pydicom():
        ...     header = pydicom.dcmread("slice.dcm")  # doctest: +SKIP
    """
    entry = ("ignore", _InQuiet(), UserWarning, _PYDICOM, 0)
    log_filter = _DropWarnings()
    token = _quiet.set(True)
    warnings.filters.insert(0, entry)  # type: ignore[attr-defined]  # a list, annotated as a sequence
    _LOGGER.addFilter(log_filter)
    try:
        yield
    finally:
        _LOGGER.removeFilter(log_filter)
        with contextlib.suppress(ValueError):  # another thread may have restored its own filters meanwhile
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # likewise
        _quiet.reset(token)
