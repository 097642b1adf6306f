"""What every test rests on: one thread, so that figures and times repeat, and the same draws each time."""

from __future__ import annotations

import contextlib
import sys

import pytest
import torch

# absl, which openvino and TensorBoard import, logs to what sys.stderr is at its import, and closes that when MONAI sets
# up the log, if sys.stderr has become another. Here it would be pytest's, on which all later tests rely.
with contextlib.redirect_stderr(sys.__stderr__):
    import absl.logging  # noqa: F401

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)
