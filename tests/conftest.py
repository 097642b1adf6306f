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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files that start interpreters to the front.

    Workers that had run hundreds of tests have died there, without a word and only now and then; why is not known.
    """
    early = {item.path for item in items if item.get_closest_marker("interpreter")}
    items.sort(key=lambda item: item.path not in early)
