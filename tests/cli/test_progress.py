"""What is shown while cases are done: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from mri_seg.cli.progress import CaseBar, CaseLines


def batches(*cases: str) -> list[dict[str, MetaTensor]]:
    return [{"image": MetaTensor(torch.zeros(1, 1, 2, 2, 2), meta={"case": [case]})} for case in cases]


def evaluator(*handlers: Any, fails: bool = False) -> Engine:
    """An engine that makes a list of each batch, as MONAI's evaluators do."""

    def step(engine: Engine, batch: Any) -> None:
        if fails:
            raise ValueError("no good")
        engine.state.batch = [batch]

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    return engine


class TestBar:
    def test_bar_shows_the_case_in_work_and_how_many_are_done(self) -> None:
        shown = io.StringIO()
        bar = CaseBar(2, file=shown, mininterval=0, ncols=100)
        evaluator(bar).run(batches("first", "second"))
        frames = [frame.strip() for frame in shown.getvalue().split("\r") if frame.strip()]
        assert any(frame.startswith("0/2 |") and frame.endswith("first") for frame in frames)
        assert any(frame.startswith("1/2 |") and frame.endswith("left  second") for frame in frames)
        assert frames[-1].startswith("2/2 |")
        assert shown.getvalue().endswith("\r")  # it is wiped away at the end

    def test_bar_counts_cases_that_are_done_elsewhere(self) -> None:
        done = iter([1, 3])  # one failed while it was read
        bar = CaseBar(3, lambda: next(done), file=io.StringIO(), mininterval=0)
        evaluator(bar).run(batches("a", "c"))
        assert bar.bar.n == 3

    def test_errors_are_raised_past_the_bar(self) -> None:
        bar = CaseBar(1, file=io.StringIO())
        with pytest.raises(ValueError, match="no good"):
            evaluator(bar, fails=True).run(batches("a"))
        bar.close()


class TestLines:
    def test_lines_name_each_case_that_is_done(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="mri_seg"):
            evaluator(CaseLines(2)).run(batches("first", "second"))
        assert caplog.messages == ["first: done, 1 of 2", "second: done, 2 of 2"]
