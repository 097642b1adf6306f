"""Flags of a case: what a user should know about it, from the search for its files to its tables and pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

__all__ = ["add_flag", "case_flags"]

logger = logging.getLogger(__name__)


def add_flag(target: MutableMapping[str, Any], name: str, message: str) -> None:
    """Raise a flag for a case, and log its message as a warning; a flag that is raised already changes nothing.

    Args:
        target: a case of :py:func:`mri_seg.io.cases.find_cases`, or the metadata of its volume. The flags are kept
            under ``flags`` as JSON text, because MONAI collates lists element by element and leaves text whole.
        name: name of the flag, in lower case with underscores, such as ``not_flair``.
        message: one sentence that says what was seen and what to do.
    """
    flag = {"name": name, "message": message}
    flags = case_flags(target)
    if flag not in flags:
        target["flags"] = json.dumps([*flags, flag])
        logger.warning("%s: %s", target.get("case", target.get("filename_or_obj", "case")), message)


def case_flags(target: Mapping[str, Any]) -> list[dict[str, str]]:
    """Flags raised for a case, each a dictionary of ``name`` and ``message``, in the order they were raised.

    Args:
        target: a case, or the metadata of its volume.
    """
    return json.loads(target.get("flags") or "[]")
