"""Read DICOM files without a word of pydicom's, and leave its settings and Python's warnings alone."""

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
    """Stands for the pattern of a warnings filter: it matches in the threads that asked for quiet, and nowhere else."""

    def match(self, text: str) -> bool:
        return _quiet.get()


class _DropWarnings(logging.Filter):
    """Drops the warnings of threads that asked for quiet: pydicom logs each as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_quiet.get() and record.levelno <= logging.WARNING)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Drop what pydicom warns of in this thread: values longer than allowed, unknown tags, padding of pixels.

    Scanners write such values into every slice, so that one series gives hundreds of warnings, none of which names its
    file. What matters here is checked by what reads the values. Other threads, other libraries' warnings and
    ``pydicom.config`` stay as they are; ``warnings.catch_warnings`` would change the filters of all threads.

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
        with contextlib.suppress(ValueError):  # another thread may have put its own filters back meanwhile
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # likewise
        _quiet.reset(token)
