"""Volumes that nibabel reads besides NIfTI: FreeSurfer's MGH and MGZ, and pairs of files (Analyze, NIfTI)."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.utils import ensure_tuple
from nibabel.freesurfer.mghformat import DATA_OFFSET
from nibabel.freesurfer.mghformat import header_dtype as _MGH_HEADER
from nibabel.spm99analyze import Spm99AnalyzeImage

from mri_seg.utils.size_limit import LARGEST_DEFLATE_RATIO, SizeLimit

__all__ = ["VolumeReader", "check_volume_header", "is_header", "is_mgh", "is_pair", "load_image", "other_half"]

_MGH = re.compile(r"\.mg[hz]$", re.IGNORECASE)
_PAIR = re.compile(r"\.(?P<half>hdr|img)(?P<packed>\.gz)?$", re.IGNORECASE)
_LARGEST_HEADER = 2**20  # bytes
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}  # bytes per voxel, by the type in the header


class VolumeReader(NibabelReader):
    """MONAI's ``NibabelReader`` for all volumes that nibabel reads: NIfTI, MGH, MGZ, and pairs of files.

    In the metadata, ``orientation_known`` is False for files that do not say which side is left: Analyze, and MGH
    without direction cosines.
    """

    def verify_suffix(self, filename: Sequence[PathLike | str] | PathLike | str) -> bool:
        """Whether all files have a suffix of NIfTI, MGH, MGZ, or of a pair."""
        names = [str(name) for name in ensure_tuple(filename)]
        return super().verify_suffix(filename) or all(is_mgh(name) or is_pair(name) for name in names)

    def get_data(self, img: nibabel.spatialimages.SpatialImage) -> tuple[np.ndarray, dict]:
        """Return array and metadata of an image, as MONAI's reader does."""
        array, meta = super().get_data(img)
        file = str(self.filenames[0])
        if _is_analyze(img) or (is_mgh(file) and _mgh_header(Path(file))["goodRASFlag"] != 1):
            meta["orientation_known"] = False
        return array, meta


def is_mgh(name: PathLike | str) -> bool:
    """Whether a file has the suffix of FreeSurfer's MGH or MGZ."""
    return _MGH.search(str(name)) is not None


def is_pair(name: PathLike | str) -> bool:
    """Whether a file has the suffix of a pair, ``.hdr`` or ``.img``."""
    return _PAIR.search(str(name)) is not None


def is_header(name: PathLike | str) -> bool:
    """Whether a file has the suffix of the header of a pair, ``.hdr``."""
    match = _PAIR.search(str(name))
    return match is not None and match["half"].lower() == "hdr"


def other_half(file: Path) -> Path | None:
    """Find the header of an image, or the image of a header; None if it is missing or the file is not of a pair."""
    match = _PAIR.search(file.name)
    if match is None:
        return None
    stem, half = file.name[: match.start()], {"hdr": "img", "img": "hdr"}[match["half"].lower()]
    for ending in (half, half.upper(), f"{half}.gz"):
        if (other := file.with_name(f"{stem}.{ending}")).is_file():
            return other
    return None


def check_volume_header(file: Path, limit: SizeLimit) -> None:
    """Refuse a file before it is decoded if its header is damaged, or declares more than the limit or the file allows.

    Args:
        file: an MGH or MGZ file, or one file of a pair.
        limit: adds up the voxels that headers declare.

    Raises:
        TooLargeError: when the header declares too many voxels.
        ValueError: when the file is damaged, or the other file of the pair is missing; the message does not name the
            file.
    """
    if is_mgh(file):
        header, data = _mgh_header(file), file
        shape, size, offset = header["dims"].tolist(), _MGH_BYTES[int(header["type"])], DATA_OFFSET
    else:
        other = other_half(file)
        if other is None:
            raise ValueError("the other file of the pair of .hdr and .img is missing")
        headers, data = (file, other) if is_header(file) else (other, file)
        if headers.stat().st_size > _LARGEST_HEADER:
            raise ValueError(f"its header {headers.name} is larger than {_LARGEST_HEADER} bytes")
        image = nibabel.load(file)  # reads the header alone
        if not isinstance(image, nibabel.AnalyzeImage):
            raise ValueError("it is no Analyze or NIfTI image")
        dtype = image.get_data_dtype()
        shape, size, offset = image.shape, dtype.itemsize, int(image.header.get_data_offset())
        if dtype.kind not in "iuf":
            raise ValueError(f"it holds values of type {dtype}, expected real numbers")
    if min(shape, default=0) < 1:
        raise ValueError(f"it has {' x '.join(map(str, shape))} voxels, expected at least one along each axis")
    limit.add(file, shape)
    expected = math.prod(map(int, shape)) * size + max(offset, 0)
    packed = data.name.lower().endswith("z")  # .mgz, .gz
    found = data.stat().st_size * (LARGEST_DEFLATE_RATIO if packed else 1)
    if expected > found:
        raise ValueError(f"it ends before its last voxel: {expected} bytes expected, {found} at most")


def load_image(file: PathLike | str) -> nibabel.spatialimages.SpatialImage:
    """Open a volume by nibabel, whose own ``load`` may give something without an affine, such as a surface.

    Raises:
        ValueError: when it is no volume; the message does not name the file.
    """
    image = nibabel.load(file)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise ValueError(f"it holds a {type(image).__name__}, expected a volume")
    return image


def _mgh_header(file: Path) -> np.void:
    """Header of an MGH file, as a structured array with nibabel's field names."""
    with (gzip.open if file.name.lower().endswith("z") else open)(file, "rb") as stream:
        block = stream.read(_MGH_HEADER.itemsize)
    if len(block) < _MGH_HEADER.itemsize:
        raise ValueError(f"it ends within its header, after {len(block)} bytes")
    header = np.frombuffer(block, dtype=_MGH_HEADER)[0]
    if header["version"] != 1 or int(header["type"]) not in _MGH_BYTES:
        raise ValueError(f"its header gives version {header['version']} and type {header['type']}, expected MGH's")
    return header


def _is_analyze(image: nibabel.spatialimages.SpatialImage) -> bool:
    """Whether an image is Analyze (not NIfTI) without SPM's ``.mat`` file, which would give its position in space."""
    if not isinstance(image, nibabel.AnalyzeImage) or isinstance(image, nibabel.Nifti1Pair):
        return False
    matrix = getattr(image, "file_map", {}).get("mat")
    has_matrix = matrix is not None and matrix.filename is not None and Path(matrix.filename).is_file()
    return not (isinstance(image, Spm99AnalyzeImage) and has_matrix)
