"""Decode the pixels of a DICOM image."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_fragments
from pydicom.pixels import pixel_array

from mri_seg.dicom.headers import frame_count, functional_group, number_of, read_dataset
from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit, TooLargeError, codestream_size

__all__ = ["PIXEL_TAGS", "Image", "decode_image", "read_values", "without_deflated_pixels"]

_BY_PYDICOM = (  # uncompressed, or decoded by pydicom without other libraries
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
)
_BY_GDCM = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)
_IMAGE_PIXEL_MODULE = (
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "PixelData",
)
PIXEL_TAGS = (
    *_IMAGE_PIXEL_MODULE,
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""Attributes that :func:`decode_image` needs."""


class Image(NamedTuple):
    """The frames of a file: stored values ``(frames, H, W)``, slope and intercept of each, and whether 0 is white."""

    stored: np.ndarray
    rescale: list[tuple[float, float]]
    inverted: bool


def read_values(path: Path) -> np.ndarray:
    """Read the values of an image after rescaling, ``(frames, H, W)``, without inversion.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file cannot be read or decoded, or declares more than ``MAX_VOXELS``.
    """
    data = read_dataset(path, PIXEL_TAGS)
    size = [int(number_of(data, keyword) or 0) for keyword in ("Rows", "Columns")]
    SizeLimit().add(path, (frame_count(data), *size))
    with tempfile.TemporaryDirectory() as scratch:
        image = decode_image(path, data, Path(scratch), MAX_VOXELS)
    slope, intercept = np.array(image.rescale).T[..., None, None]
    return image.stored * slope + intercept


def decode_image(path: Path, data: Dataset, scratch: Path, max_voxels: int) -> Image:
    """Decode the frames of an image.

    Args:
        path: the file.
        data: its attributes, at least :py:data:`PIXEL_TAGS`.
        scratch: folder for temporary files.
        max_voxels: maximum number of voxels that its compressed frames may declare.

    Raises:
        ValueError: when the image holds no pixels, is in color, is damaged, or has a compression that cannot be
            decoded.
    """
    if _is_deflated(data):
        data = read_dataset(path, PIXEL_TAGS)
    if "PixelData" not in data:
        raise ValueError(f"{path}: holds no pixels and may be truncated. Copy it again from its source.")
    count = frame_count(data)
    photometric = data.get("PhotometricInterpretation", "MONOCHROME2")
    if data.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path}: is a color image ({photometric}), expected gray values. Give the original MR series, not a "
            "screenshot or a color map."
        )
    return Image(
        _decode(path, data, scratch, max_voxels),
        [_rescale(data, number) for number in range(count)],
        photometric == "MONOCHROME1",
    )


def _rescale(data: Dataset, number: int) -> tuple[float, float]:
    """Slope and intercept of a frame."""
    item = functional_group(data, "PixelValueTransformationSequence", number) or data
    return number_of(item, "RescaleSlope") or 1.0, number_of(item, "RescaleIntercept") or 0.0


def _decode(path: Path, data: Dataset, scratch: Path, max_voxels: int) -> np.ndarray:
    """Stored values of all frames."""
    syntax = getattr(data, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax not in _BY_PYDICOM + _BY_GDCM:
        raise ValueError(
            f"{path}: pixels are stored as {syntax.name if syntax else 'unknown'} (TransferSyntaxUID {syntax}), which "
            "cannot be decoded. Convert the file to Explicit VR Little Endian, for example with `gdcmconv --raw` or "
            "in your PACS."
        )
    try:
        if syntax in _BY_PYDICOM:
            return _frames(pixel_array(data, raw=True), data)
        for frame in generate_fragments(data.PixelData):
            if own_size := codestream_size(frame):
                SizeLimit(max_voxels).add(path, own_size[:2], own_size[2])
        return _frames(_decompress(data, scratch), data)
    except TooLargeError:
        raise
    except Exception as error:  # decoders raise errors of many kinds
        raise ValueError(
            f"{path}: pixels cannot be decoded ({_reason(error)}; {syntax.name}). The file is damaged or truncated: "
            "copy it again from its source, or leave it out."
        ) from error


def _frames(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Stored values as frames ``(frames, H, W)``, with the unused bits cleared."""
    return _clear_unused_bits(stored.reshape(frame_count(data), data.Rows, data.Columns), data)


def _decompress(data: Dataset, scratch: Path) -> np.ndarray:
    """Decode with GDCM. It gets only the pixels, because it would apply some rescaling and inversion by itself."""
    import itk  # takes seconds to load

    bare = Dataset()
    for keyword in _IMAGE_PIXEL_MODULE:
        if keyword in data:
            bare[keyword] = data[keyword]
    bare.PhotometricInterpretation = "MONOCHROME2"
    bare.SOPClassUID = uid.SecondaryCaptureImageStorage
    bare.SOPInstanceUID = uid.generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    file = scratch / "image.dcm"
    bare.save_as(file, enforce_file_format=True)
    return itk.array_from_image(itk.imread(str(file), imageio=itk.GDCMImageIO.New()))


def _clear_unused_bits(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Fill the bits above BitsStored with the sign bit or 0, since old files store overlays there.

    pydicom does so for the images that it decodes (``correct_unused_bits``); GDCM does not.
    """
    unused = stored.dtype.itemsize * 8 - int(data.get("BitsStored", stored.dtype.itemsize * 8))
    if unused <= 0 or data.get("HighBit", data.BitsStored - 1) != data.BitsStored - 1:
        return stored
    return (stored << unused) >> unused


def _reason(error: Exception) -> str:
    """Last line of an error, without the location in ITK's source and the address of an object before it."""
    return re.sub(r"^ITK ERROR: \w+\(\w+\): ", "", str(error).strip().rpartition("\n")[2])


def without_deflated_pixels(data: Dataset) -> Dataset:
    """Drop pixels that had to be read with the header, so that memory does not hold those of a whole series."""
    if _is_deflated(data):
        data.pop("PixelData", None)
    return data


def _is_deflated(data: Dataset) -> bool:
    return data.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian
