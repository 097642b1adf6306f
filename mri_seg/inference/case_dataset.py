"""Data set of the cases that inference still has to segment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monai.data import IterableDataset
from monai.transforms import apply_transform

from mri_seg.inference.provenance import describe_input
from mri_seg.inference.writer import CaseWriter
from mri_seg.utils.distributed import rank, world_size

__all__ = ["CaseDataset"]


class CaseDataset(IterableDataset):
    """Cases that still have to be segmented, read one by one; cases that cannot be read are skipped.

    The list of cases is made at construction, and again whenever the evaluator runs again. With N processes, each takes
    every N-th case.

    Args:
        data: cases of :py:func:`mri_seg.io.cases.find_cases`; a :py:class:`mri_seg.io.cases.CaseFinder` searches again
            for every run.
        transform: reads and preprocesses a case.
        writer: decides which cases remain; it gets the errors of cases that cannot be read.
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
        remaining = self.writer.remaining_on_all_ranks(cases)
        self.writer.sources |= {case["case"]: case for case in remaining}
        self.data = remaining[rank() :: world_size()]
        self._used = False

    def __iter__(self) -> Iterator[Any]:
        """Preprocessed cases."""
        for case in self.data:
            if self.writer.stopped:
                return
            with contextlib.suppress(OSError):  # reading the case raises a better error
                self.writer.inputs[case["case"]] = describe_input(case)  # now, since the file may be gone later
            try:
                yield apply_transform(self.transform, case, unpack_items=False)
            except Exception as error:  # one case must not keep the others from being segmented
                self.writer.failed(case["case"], error)
