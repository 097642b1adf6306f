"""The cases that inference still has to segment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monai.data import IterableDataset
from monai.transforms import apply_transform

from mri_seg.inference.provenance import (
    describe_input,
)
from mri_seg.inference.writer import CaseWriter
from mri_seg.utils.distributed import rank, world_size

__all__ = ["CaseDataset"]


class CaseDataset(IterableDataset):
    """The cases that still have to be segmented, read one after the other; one that cannot be read is passed over.

    Which these are is looked up when it is made, and anew when the evaluator runs again. Several processes take every
    so many of them.

    Args:
        data: cases of :py:func:`mri_seg.io.cases.find_cases`; a :py:class:`mri_seg.io.cases.CaseFinder` finds them
            anew.
        transform: reads and prepares a case.
        writer: says which cases are to be done, and hears of those that cannot be read and of runs.
    """

    def __init__(self, data: Iterable[Mapping[str, Any]], transform: Callable, writer: CaseWriter) -> None:
        super().__init__(data=[], transform=transform)
        self.transform: Callable = transform
        self._used = False
        self.cases = data
        self.writer = writer
        writer.before_run = self._start
        self._look_up()

    def _start(self) -> None:
        if self._used:
            self._look_up()
        self._used = True

    def _look_up(self) -> None:
        cases = list(self.cases)
        self.writer.begin()
        remaining = self.writer.agreed_to_do(cases)
        self.writer.sources |= {case["case"]: case for case in remaining}
        self.data = remaining[rank() :: world_size()]
        self._used = False

    def __iter__(self) -> Iterator[Any]:
        """Prepared cases."""
        for case in self.data:
            with contextlib.suppress(OSError):  # reading it says more
                self.writer.inputs[case["case"]] = describe_input(case)  # now, for it may be gone when it is written
            try:
                yield apply_transform(self.transform, case, unpack_items=False)
            except Exception as error:  # one case must not keep the others from being segmented
                self.writer.failed(case["case"], error)
