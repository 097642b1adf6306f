"""The classes of a label: tumour alone, several that exclude each other, or nested regions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = ["LABEL_MODES", "LabelClasses"]

LABEL_MODES = ("binary", "exclusive", "regions")
"""How the values of a label become classes."""

_LARGEST = 65535  # that a mask of 16 bits holds
_MOST = 254  # classes that a label of 8 bits holds beside background


class LabelClasses:
    """What the values of a label mean: the one description that labels, network, loss, masks and scores share.

    Args:
        mode: ``binary``: all values are tumour; ``exclusive``: each class has values of its own, and a voxel is of one
            class or of none (softmax); ``regions``: each class is a part of the one before it, as BraTS nests whole
            tumour, tumour core and enhancing tumour (sigmoid).
        values: for ``exclusive`` the value of each class, or a list of values for each, such as ``[1, 2, 4]``; for
            ``regions`` the list of values of each, from the largest region to the smallest, such as
            ``[[1, 2, 4], [1, 4], [4]]``; for ``binary`` the values that are tumour, which do not matter here.

    Attributes:
        mode: the mode.
        members: values of each class; empty if ``mode`` is ``binary``.

    Raises:
        ValueError: when the mode is unknown, or the values are not those of the mode.

    Example::

        >>> LabelClasses("regions", [[1, 2, 4], [1, 4], [4]]).written  # whole tumour without core is 2
        (2, 1, 4)
    """

    def __init__(self, mode: str = "binary", values: Sequence | int | None = None) -> None:
        if mode not in LABEL_MODES:
            raise ValueError(f"--label_mode: {mode!r}, expected {', '.join(LABEL_MODES)}.")
        self.mode = mode
        self.members = () if mode == "binary" else tuple(_members(one, mode) for one in _listed(values, mode))
        if mode == "binary":
            _check_binary(values)
            return
        if len(self.members) > _MOST:
            raise ValueError(f"--label_values: {len(self.members)} classes, expected {_MOST} at most.")
        check = {"exclusive": _check_exclusive, "regions": _check_nested}[mode]
        check(self.members)

    @property
    def several(self) -> bool:
        """Whether classes are told apart; false if there is tumour alone."""
        return self.mode != "binary"

    @property
    def exclusive(self) -> bool:
        """Whether the network has a channel for background and a softmax."""
        return self.mode == "exclusive"

    @property
    def count(self) -> int:
        """Number of classes."""
        return max(len(self.members), 1)

    @property
    def channels(self) -> int:
        """Channels of the network's output: one for each class, and one before them for background if ``exclusive``."""
        return self.count + self.exclusive

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class, its values joined by ``+``."""
        return tuple("+".join(map(str, values)) for values in self.members)

    @property
    def recorded(self) -> list | None:
        """The values as weights record them and as ``label_values`` takes them; None if ``binary``."""
        if not self.several:
            return None
        if self.exclusive and all(len(values) == 1 for values in self.members):
            return [values[0] for values in self.members]
        return [list(values) for values in self.members]

    @property
    def written(self) -> tuple[int, ...]:
        """Value that a mask gets for each class: its lowest, for regions of those in no smaller region."""
        if self.mode != "regions":
            return tuple(values[0] for values in self.members)
        return tuple(min(set(values) - set(smaller)) for values, smaller in zip(self.members, (*self.members[1:], ())))


def _listed(values: Any, mode: str) -> list:
    if values is None:
        example = "1,2,4" if mode == "exclusive" else "[[1,2,4],[1,4],[4]]"
        raise ValueError(f"--label_mode {mode}: needs --label_values, the values of each class, such as {example}.")
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _members(values: Any, mode: str) -> tuple[int, ...]:
    found = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    if not found or any(isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= _LARGEST for one in found):
        raise ValueError(f"--label_values: {values!r}, expected whole numbers, 1 to {_LARGEST}, for each class.")
    return tuple(sorted(set(found)))


def _check_binary(values: Any) -> None:
    if isinstance(values, (list, tuple)) and any(isinstance(one, (list, tuple)) for one in values):
        raise ValueError(
            f"--label_values: {values!r} are the values of several classes, but --label_mode is binary. Give "
            "--label_mode exclusive or regions."
        )


def _check_exclusive(members: Sequence[tuple[int, ...]]) -> None:
    values = [value for one in members for value in one]
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(
            f"--label_values: {', '.join(map(str, twice))} is in several classes, but --label_mode is exclusive. Give "
            "each value to one class, or --label_mode regions if classes are nested."
        )


def _check_nested(members: Sequence[tuple[int, ...]]) -> None:
    for larger, smaller in pairwise(members):
        if not set(smaller) < set(larger):
            raise ValueError(
                f"--label_values: region {list(smaller)} is no part of the one before it, {list(larger)}. Give regions "
                "from the largest to the smallest, each with some of the values before it, such as "
                "[[1,2,4],[1,4],[4]]; or --label_mode exclusive."
            )
