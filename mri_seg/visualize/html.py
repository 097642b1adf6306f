"""Templates of HTML pages, and pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["png_base64", "png_uri", "template_environment"]


def template_environment() -> Environment:
    """The templates of ``mri_seg/templates``; text that they insert is escaped."""
    from jinja2 import Environment, PackageLoader  # not needed before the first page

    return Environment(loader=PackageLoader("mri_seg"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def png_base64(picture: np.ndarray, *, compress_level: int = 6) -> str:
    """Encode a picture as PNG in base64.

    Args:
        picture: gray ``(H, W)`` or RGB ``(H, W, 3)``, uint8.
        compress_level: 0 to 9; higher levels take longer and save space.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG", compress_level=compress_level)
    return base64.b64encode(file.getvalue()).decode("ascii")


def png_uri(picture: np.ndarray, *, compress_level: int = 6) -> str:
    """Encode a picture as a data URI, for the ``src`` of an image; see :py:func:`png_base64`."""
    return f"data:image/png;base64,{png_base64(picture, compress_level=compress_level)}"
