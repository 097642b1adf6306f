"""Commands run in this process leave what other tests log to as it was."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from logging.config import fileConfig

import absl.logging
import pytest
from command_line import ROOT, SMALL, bundle


class ClosesItsStream(logging.StreamHandler):
    """A handler as absl has it."""

    def close(self) -> None:
        self.stream.close()
        super().close()


@pytest.fixture
def handler() -> ClosesItsStream:
    return ClosesItsStream(io.StringIO())


def test_handlers_of_others_stay_open(handler: ClosesItsStream) -> None:
    logger = logging.getLogger("mri_seg.tests.another")
    logger.addHandler(handler)
    try:
        assert bundle("inference", "inference.json", dataset_dir="nowhere", **SMALL).status == 1
        logger.warning("still here")
    finally:
        logger.removeHandler(handler)
    assert handler.stream.getvalue() == "still here\n"


def test_standard_error_outlives_a_log_set_up_while_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert absl.logging.get_absl_handler() is not None  # one that closes what it did not open
    root, former = logging.getLogger(), sys.stderr
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    with contextlib.redirect_stderr(io.StringIO()):
        fileConfig(ROOT / "bundle" / "configs" / "logging.conf", disable_existing_loggers=False)
    assert not former.closed
