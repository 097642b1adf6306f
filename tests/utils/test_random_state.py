"""The state of all random generators comes back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from mri_seg.utils.random_state import load_random_state, random_state


class TestRandomState:
    def test_random_state_comes_back(self, tmp_path: Path) -> None:
        torch.save(random_state(), tmp_path / "state.pt")
        first = random.random(), np.random.rand(), torch.rand(1)
        load_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
        assert (random.random(), np.random.rand(), torch.rand(1)) == first
