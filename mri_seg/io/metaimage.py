"""Check the header of a MetaImage file (MHA, MHD) before ITK reads it, because some damaged headers crash ITK."""

from __future__ import annotations

import math
from pathlib import Path

from mri_seg.utils.size_limit import LARGEST_DEFLATE_RATIO, SizeLimit

__all__ = ["check_meta_image", "meta_image_data"]

_LARGEST_HEADER = 2**20  # bytes
_LONGEST_NAME, _LONGEST_VALUE = 200, 2000  # ITK copies both into buffers of fixed length
_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_BYTES |= {f"U{name}": size for name, size in _BYTES.items() if name not in ("FLOAT", "DOUBLE")}
_ONE_EACH_AXIS = {"DimSize", "ElementSpacing", "ElementSize", "Offset", "Origin", "Position", "CenterOfRotation"}
_SQUARE = {"TransformMatrix", "Rotation", "Orientation"}
_WHOLE = {"HeaderSize", "CompressedDataSize", "ElementNumberOfChannels", "ID", "ParentID"}


def check_meta_image(file: Path, limit: SizeLimit) -> None:
    """Check that a header is complete and within the limit, and that the file can hold what it declares.

    Args:
        file: the file.
        limit: adds up the voxels that headers declare.

    Raises:
        TooLargeError: when the header declares too many voxels.
        ValueError: when the header or the file is damaged; the message does not name the file.
    """
    with file.open("rb") as stream:
        start = stream.read(_LARGEST_HEADER)
    fields: dict[str, str] = {}
    for line in start.split(b"\n"):
        name, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if not equals or not name or not name.isascii() or len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE:
            raise ValueError(f"its header has the line {line[:40]!r}, expected a name and a value")
        if name in fields:
            raise ValueError(f"its header gives {name} twice")
        fields[name] = value
        if name in _WHOLE | {"NDims"}:
            _axes(fields) if name == "NDims" else _numbers(fields, name, int)
        if name in _ONE_EACH_AXIS | _SQUARE:
            axes = _axes(fields)
            _numbers(fields, name, int if name == "DimSize" else float, axes if name in _ONE_EACH_AXIS else axes**2)
        if name == "ElementDataFile":
            break
    for name in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(name):
            raise ValueError(f"its header lacks {name}")
    sizes = _numbers(fields, "DimSize", int, _axes(fields))
    if min(sizes) < 1:
        raise ValueError(f"its header gives DimSize as {fields['DimSize']}, expected sizes above 0")
    (channels,) = _numbers(fields, "ElementNumberOfChannels", int) if "ElementNumberOfChannels" in fields else [1]
    kind = fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in _BYTES or channels < 1:
        raise ValueError(
            f"it holds {channels} values of type {fields['ElementType']} per voxel, expected a real number"
        )
    limit.add(file, sizes, channels)
    data = file if fields["ElementDataFile"].upper() == "LOCAL" else file.parent / fields["ElementDataFile"]
    if not data.is_file():
        raise ValueError(f"its header says that the voxels are in {data}, which is not a file")
    expected = math.prod(sizes) * channels * _BYTES[kind]
    compressed = fields.get("CompressedData", "False").lower() in ("true", "1")
    found = data.stat().st_size * (LARGEST_DEFLATE_RATIO if compressed else 1)
    if expected > found:
        raise ValueError(f"it ends before its last voxel: {expected} bytes expected, {found} at most")


def meta_image_data(file: Path) -> Path | None:
    """Find the separate file that holds a header's voxels; None if they are in the same file, or it is missing."""
    with file.open("rb") as stream:
        start = stream.read(_LARGEST_HEADER)
    for line in start.split(b"\n"):
        name, _, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if name == "ElementDataFile":
            data = file.parent / value
            return data if value.upper() != "LOCAL" and data.is_file() else None
    return None


def _axes(fields: dict[str, str]) -> int:
    if "NDims" not in fields:
        raise ValueError("its header does not begin with NDims")
    (axes,) = _numbers(fields, "NDims", int)
    if not 1 <= axes <= 5:
        raise ValueError(f"its header gives NDims as {axes}, expected 1 to 5")
    return axes


def _numbers(fields: dict[str, str], name: str, kind: type, count: int = 1) -> list:
    try:
        numbers = [kind(word) for word in fields[name].split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) > 2**53:
        raise ValueError(f"its header gives {name} as {fields[name]!r:.80}, expected {count} numbers")
    return numbers
