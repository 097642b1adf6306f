"""The files that hold an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mri_seg.io.metaimage import meta_image_data

__all__ = ["file_parts"]


def file_parts(path: Path) -> Iterator[Path]:
    """The file and, for formats with two files, the one that holds its voxels."""
    yield path
    suffix = path.suffix.lower()
    if suffix == ".mhd" and (data := meta_image_data(path)):
        yield data
    for one, other in ((".hdr", ".img"), (".img", ".hdr")):
        if suffix == one and (pair := path.with_suffix(other)).is_file():
            yield pair
