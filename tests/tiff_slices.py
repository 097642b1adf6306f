"""TIFF slices whose every pixel is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

SHAPE = (6, 5)  # rows and columns differ, so that no test passes on a transposed slice


def grey(number: int = 0, dtype: type = np.uint8, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A slice whose every pixel differs, and which differs from those of other numbers."""
    return (np.arange(np.prod(shape)).reshape(shape) + 40 * number).astype(dtype)


def colours(number: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Three channels ``(H, W, 3)``, FLAIR the middle one."""
    return np.stack([grey(number, dtype) + 100, grey(number, dtype), grey(number, dtype) + 150], axis=-1)


def write(path: Path, pixels: np.ndarray, photometric: str = "minisblack", **options: object) -> Path:
    tifffile.imwrite(path, pixels, photometric=photometric, **options)
    return path


def write_slices(folder: Path, count: int = 3) -> list[Path]:
    return [write(folder / f"case_{n}.tif", colours(n), photometric="rgb") for n in range(count)]
