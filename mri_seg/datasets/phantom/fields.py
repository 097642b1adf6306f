"""Smooth random fields for deformation, shading and lesion borders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["SmoothField"]


class SmoothField:
    """Random function of the position in the image, a sum of low-frequency cosines; mean 0, standard deviation 1.

    The coefficients are drawn once and do not depend on the grid, so a field looks the same at any image size, and its
    evaluation takes only a few small matrix products. The strength of a wave falls with 1 / frequency.

    Args:
        rng: random generator for the coefficients.
        waves: number of cosines along each axis; the finest detail is about 1 / ``waves`` of the axis.

    Example::

        >>> field = SmoothField(np.random.default_rng(0), waves=(4, 4, 3))
        >>> positions = np.linspace(0, 1, 32)
        >>> field(positions, positions, positions[:5]).shape
        (32, 32, 5)
    """

    def __init__(self, rng: np.random.Generator, waves: Sequence[int]) -> None:
        frequency = np.sqrt(sum(axis.astype(float) ** 2 for axis in np.indices(tuple(waves))))
        strength = 1 / np.maximum(frequency, 1)
        strength[0, 0, 0] = 0  # no constant part
        coefficients = rng.standard_normal(tuple(waves)) * strength / np.linalg.norm(strength)
        self.coefficients = coefficients.astype(np.float32)

    def __call__(self, *positions: np.ndarray) -> np.ndarray:
        """Values at the grid of three axes of relative positions in 0 to 1: ``(len(a), len(b), len(c))`` float32."""
        values = self.coefficients
        for position, waves in zip(positions, self.coefficients.shape, strict=True):
            # The first axis is contracted and its positions become the last axis; after three steps the order is right.
            # Not with BLAS, whose threads are slow for such small products if other programs use the cores.
            values = np.einsum("wab,wp->abp", values, _cosines(position, waves))
        return values

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at single points of relative positions, ``(3, N)``: ``(N,)`` float32."""
        first, second, third = (_cosines(p, waves) for p, waves in zip(points, self.coefficients.shape, strict=True))
        values = np.einsum("abc,cn->abn", self.coefficients, third)
        return np.einsum("an,an->n", np.einsum("abn,bn->an", values, second), first)


def _cosines(position: np.ndarray, waves: int) -> np.ndarray:
    """Orthogonal cosines ``(waves, len(position))`` of unit mean square."""
    basis = np.cos(np.pi * np.arange(waves)[:, None] * np.asarray(position)[None])
    basis[1:] *= np.sqrt(2)
    return basis.astype(np.float32)
