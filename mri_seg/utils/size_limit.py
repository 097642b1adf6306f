"""Limit the size that files declare, so that a small file cannot use up all memory (decompression bomb)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from os import PathLike

__all__ = ["LARGEST_DEFLATE_RATIO", "MAX_VOXELS", "SizeLimit", "TooLargeError", "codestream_size"]

MAX_VOXELS = 1_000_000_000
"""Default limit: ten times the voxels of a head at 0.5 mm (512 x 512 x 384), and 4 GB in float32."""

LARGEST_DEFLATE_RATIO = 1032
"""How many times its size a file compressed by deflate (gzip, zlib) can unpack to, by its format."""

_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1; T.87 for JPEG-LS
_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1, A.5.1


class TooLargeError(ValueError):
    """A file declares more voxels than the limit."""


class SizeLimit:
    """Adds up the voxels that the files of a volume declare, and refuses more than a limit.

    Args:
        largest: maximum number of voxels of a volume.

    Raises:
        ValueError: when ``largest`` is not above 0.

    Example::

        >>> SizeLimit(1000).add("a.png", (100, 100))
        Traceback (most recent call last):
        ...
        mri_seg.utils.size_limit.TooLargeError: a.png: declares 100 x 100 voxels, ... 1,000 that max_voxels allows. ...
    """

    def __init__(self, largest: int = MAX_VOXELS) -> None:
        if not largest > 0:
            raise ValueError(f"max_voxels is {largest}, expected a number above 0.")
        self.largest = int(largest)
        self.total = 0

    def add(self, file: PathLike | str, shape: Sequence[int], channels: int = 1) -> None:
        """Count the voxels of a file before it is decoded.

        Args:
            file: the file.
            shape: the shape that its header declares.
            channels: number of values per voxel; they count for the file, whose values are all decoded, not the volume.

        Raises:
            TooLargeError: when the file, or the volume with it, is too large.
        """
        voxels = math.prod(int(size) for size in shape)
        self.total += voxels
        found = max(voxels * channels, self.total)
        if found > self.largest:
            raise TooLargeError(
                f"{file}: declares {' x '.join(map(str, shape))} voxels"
                + (f" of {channels} channels" if channels > 1 else "")
                + f", {found:,} in all, more than the {self.largest:,} that "
                f"max_voxels allows. If this size is correct, allow it with --max_voxels {found}"
            )


def codestream_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and channels that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None for other data.

    Decoders use these values, and not those of the TIFF or DICOM file around the codestream.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    sizes = []
    for found in re.finditer(re.escape(_JPEG_2000_SIZE), data):  # there may be several, if the file is malicious
        header = data[found.start() + 8 : found.start() + 42]
        if len(header) == 34:
            right, lower, left, upper = struct.unpack(">4I", header[:16])
            (channels,) = struct.unpack(">H", header[32:])
            sizes.append((max(lower - upper, 0), max(right - left, 0), channels))
    return max(sizes, key=math.prod, default=None)


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """Size in the frame header of a JPEG or JPEG-LS codestream."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # fill byte
            place += 1
            continue
        length, _, rows, columns, channels = struct.unpack(">HBHHB", data[place + 2 : place + 10])
        if kind in _JPEG_FRAMES:
            return rows, columns, channels
        place += 2 + length
    return None
