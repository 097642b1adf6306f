"""Masks drawn by hand and by chance."""

from __future__ import annotations

import math

import numpy as np


def ellipse(
    long: float, wide: float, angle: float = 0.0, centre: tuple[float, float] = (45.0, 45.0), size: int = 90
) -> np.ndarray:
    """Pixels whose centres lie in an ellipse of these half axes; the angle, in degrees, is from the rows."""
    rows, columns = np.mgrid[:size, :size] - np.array(centre)[:, None, None]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return ((rows * cos + columns * sin) / long) ** 2 + ((columns * cos - rows * sin) / wide) ** 2 <= 1


def ragged(seed: int, shape: tuple[int, ...] = (9, 8, 4), share: float = 0.35) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share
