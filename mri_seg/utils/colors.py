"""Colors of masks, the same in pictures, pages and DICOM."""

from __future__ import annotations

__all__ = ["PREDICTION", "REFERENCE", "Color"]

Color = tuple[int, int, int]
"""Red, green and blue, each from 0 to 255."""

# Okabe and Ito's colors, which color-blind people can tell apart, on gray too.
REFERENCE: Color = (86, 180, 233)
"""Color of the manual mask: sky blue."""

PREDICTION: Color = (230, 159, 0)
"""Color of the prediction: orange."""
