"""Read values and paths from the words of a command line."""

from __future__ import annotations

from typing import Any

__all__ = ["as_path", "parse_value"]


def parse_value(word: str) -> Any:
    """Read a value as ``python -m monai.bundle`` does, but without cutting it at ``#``.

    Args:
        word: a word of the command line.

    Returns:
        the value of a Python literal, such as ``0.4`` or ``[8,16]``, in which bare words are text; else the word.

    Example::

        >>> parse_value("[0.9,0.9,5]"), parse_value("[mask,page]"), parse_value("FLAIR #2"), parse_value("None")
        ([0.9, 0.9, 5], ['mask', 'page'], 'FLAIR #2', None)
    """
    from fire.parser import DefaultParseValue  # MONAI's own

    value = DefaultParseValue(word)
    # In a literal, # begins a comment, unless it is within quotes.
    return value if str(value).count("#") == word.count("#") else word


def as_path(word: str) -> str:
    """A path as a config takes it: MONAI gives a meaning to ``$``, ``@`` and ``%`` at the start of a text.

    Example::

        >>> as_path("$scan.nii.gz"), as_path("scan.nii.gz")
        ('./$scan.nii.gz', 'scan.nii.gz')
    """
    return f"./{word}" if word.startswith(("$", "@", "%")) else word
