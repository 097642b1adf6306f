"""Find the plane between the hemispheres, and mirror volumes about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

__all__ = ["midline", "mirrored"]

# Side of the blocks of pixels compared, and rotations in degrees that are tried around the best so far.
_SEARCH = ((4, np.arange(-24.0, 25.0, 3.0)), (2, np.arange(-2.0, 2.5, 1.0)), (1, np.array([-0.5, 0.0, 0.5])))


def mirrored(volume: np.ndarray) -> np.ndarray:
    """A volume mirrored left to right and laid over itself, so that each voxel meets its partner of the other side.

    Args:
        volume: intensities ``(H, W, D)``, columns from one side of the head to the other.

    Returns:
        the mirrored volume, of the same shape.
    """
    flipped = volume[:, ::-1]
    angle, rows, columns = _alignment(volume.mean(-1), flipped.mean(-1))
    if angle or rows or columns:
        matrix, offset = _rigid(angle, rows, columns, volume.shape[:2])
        full = np.eye(3)
        full[:2, :2] = matrix
        return ndimage.affine_transform(flipped, full, (*offset, 0.0), order=1, mode="nearest")
    return flipped.copy()


def midline(volume: np.ndarray) -> tuple[np.ndarray, float]:
    """The plane between the hemispheres, found as :py:func:`mirrored` finds it but to two pixels.

    Args:
        volume: intensities or a mask ``(H, W, D)``, columns from one side of the head to the other.

    Returns:
        its normal ``(rows, columns)``, of length 1 and towards higher columns, and an offset: a pixel has the signed
        distance ``normal @ (row, column) + offset`` from the plane, in pixels.
    """
    angle, rows, columns = _alignment(volume.mean(-1), volume[:, ::-1].mean(-1), _SEARCH[:2])
    half = np.deg2rad(angle) / 2
    normal = np.array([np.sin(half), np.cos(half)])
    middle = (np.array(volume.shape[:2]) - 1) / 2
    return normal, float(-normal @ (middle + np.array([rows, columns]) / 2))


def _alignment(
    fixed: np.ndarray, moving: np.ndarray, search: Sequence[tuple[int, np.ndarray]] = _SEARCH
) -> tuple[float, float, float]:
    """Rotation in degrees and shift in pixels by which two pictures agree best, from coarse to fine."""
    angle, rows, columns = 0.0, 0.0, 0.0
    for step, angles in search:
        if min(fixed.shape) < 4 * step:
            continue
        pair = _blocks(fixed, step), _blocks(moving, step)
        _, angle, rows, columns = max(_score(*pair, angle + turn) for turn in angles)
        rows, columns = rows * step, columns * step
    return angle, rows, columns


def _score(fixed: np.ndarray, moving: np.ndarray, angle: float) -> tuple[float, float, float, float]:
    matrix, offset = _rigid(angle, 0.0, 0.0, fixed.shape)
    turned = ndimage.affine_transform(moving, matrix, offset, order=1, mode="nearest")
    product = np.fft.irfft2(
        np.fft.rfft2(fixed - fixed.mean()) * np.fft.rfft2(turned - turned.mean()).conj(), fixed.shape
    )
    place = np.unravel_index(product.argmax(), product.shape)
    rows, columns = (p - n if p > n // 2 else p for p, n in zip(place, product.shape))
    return float(product.max()), float(angle), float(rows), float(columns)


def _rigid(angle: float, rows: float, columns: float, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset of ``scipy.ndimage.affine_transform`` that turn about the middle, then shift."""
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = (np.array(shape) - 1) / 2
    return matrix, middle - matrix @ (middle + np.array([rows, columns]))


def _blocks(picture: np.ndarray, step: int) -> np.ndarray:
    rows, columns = (n // step * step for n in picture.shape)
    return picture[:rows, :columns].reshape(rows // step, step, columns // step, step).mean((1, 3))
