"""Templates of HTML pages, and what is put into a page: pictures, scripts and data."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "json_for_script",
    "picture_uri",
    "script_hash",
    "template_environment",
    "template_source",
]


def template_environment() -> Environment:
    """The templates of ``mri_seg/templates``; text that they insert is escaped."""
    from jinja2 import Environment, PackageLoader  # not needed before the first page

    return Environment(loader=PackageLoader("mri_seg"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def template_source(environment: Environment, *names: str) -> str:
    """The text of styles or scripts among the templates, one after the other."""
    loader: Any = environment.loader  # of the package
    return "\n".join(loader.get_source(environment, name)[0].replace("\r\n", "\n") for name in names)


def script_hash(script: str) -> str:
    """SHA-256 of a script in base64, by which a page's Content-Security-Policy allows it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def json_for_script(content: Any) -> str:
    """JSON in which no text can close the HTML element around it."""
    return json.dumps(content, separators=(",", ":"), default=float).replace("<", "\\u003c")


def picture_uri(picture: np.ndarray, kind: str = "PNG", **options: Any) -> str:
    """Encode a picture as a data URI, for the ``src`` of an image.

    Args:
        picture: gray ``(H, W)`` or RGB ``(H, W, 3)``, uint8.
        kind: format, as Pillow calls it: ``PNG`` or ``WEBP``.
        options: Pillow's options of the format, such as ``quality``.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
