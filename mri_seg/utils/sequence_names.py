"""Names of the sequences that the network sees beside FLAIR."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["plain_name", "sequence_names"]


def sequence_names(sequences: Sequence[str] | str | None) -> list[str]:
    """The names that the option ``sequences`` lists, in order.

    Args:
        sequences: names, or text with commas between them; None for FLAIR alone.

    Raises:
        ValueError: when something is no name, or a name occurs twice.

    Example::

        >>> sequence_names("t1ce, t2")
        ['t1ce', 't2']
    """
    listed = sequences.split(",") if isinstance(sequences, str) else list(sequences or ())
    names = [str(name).strip() for name in listed]
    plain = [plain_name(name) for name in names]
    if not all(plain) or len(set(plain)) < len(plain):
        raise ValueError(
            f"--sequences: {sequences!r}, expected a different name for each sequence beside FLAIR, such as t1ce,t2."
        )
    return names


def plain_name(name: str) -> str:
    """Letters and digits of a name in lower case, by which names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
