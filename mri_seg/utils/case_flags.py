"""Flags of a case: warnings for the user, carried from the search for its files to its tables and pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

__all__ = ["add_flag", "case_flags"]

logger = logging.getLogger(__name__)


def add_flag(target: MutableMapping[str, Any], name: str, message: str) -> None:
    """Raise a flag for a case and log its message as a warning; a flag that is already raised is not added again.

    Args:
        target: a case of :py:func:`mri_seg.io.cases.find_cases`, or the metadata of its volume. The flags are kept
            under ``flags`` as JSON text, because MONAI collates lists element by element but leaves text unchanged.
        name: name of the flag, in lower case with underscores, such as ``not_flair``.
        message: one sentence that says what was found and what to do.
    """
    flag = {"name": name, "message": message}
    flags = case_flags(target)
    if flag not in flags:
        target["flags"] = json.dumps([*flags, flag])
        logger.warning("%s: %s", target.get("case", target.get("filename_or_obj", "case")), message)


def case_flags(target: Mapping[str, Any]) -> list[dict[str, str]]:
    """Flags of a case, each a dictionary with ``name`` and ``message``, in the order in which they were raised.

    Args:
        target: a case, or the metadata of its volume.
    """
    return json.loads(target.get("flags") or "[]")
