"""Read true or false from a command line."""

from __future__ import annotations

__all__ = ["flag"]


def flag(value: bool | str, name: str = "") -> bool:
    """Read a switch: ``--key true`` on the command line arrives as the text "true".

    Args:
        value: a bool, or "true" or "false" in any case.
        name: name of the switch, for the error.

    Raises:
        ValueError: when the value is neither.
    """
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"{name and f'--{name}: '}expected true or false, got {value!r}.")
