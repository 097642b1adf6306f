"""What every test rests on: one thread, so that figures and times repeat, and the same draws each time."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)
