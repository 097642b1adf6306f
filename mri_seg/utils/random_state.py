"""Save and restore the state of all random generators of the process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["load_random_state", "random_state"]


def random_state() -> dict[str, Any]:
    """Return every random state of the process: Python, NumPy, torch, and each CUDA device if CUDA is in use."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # a tuple, as the generator of np.random is MT19937
    kind, keys, *rest = legacy
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def load_random_state(state: Mapping[str, Any]) -> None:
    """Restore every random state that :py:func:`random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
