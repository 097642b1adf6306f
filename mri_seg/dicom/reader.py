"""Read a DICOM series as one volume."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_fragments
from pydicom.pixels import pixel_array

from mri_seg.dicom.geometry import GEOMETRY_TAGS, FrameGrid, arrange_frames
from mri_seg.dicom.headers import frame_count, functional_group, number_of, read_dataset
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.dicom.series import find_series, is_dicom
from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit, TooLargeError, codestream_size

__all__ = ["DICOMReader", "read_values"]

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
_TAGS = (
    *GEOMETRY_TAGS,
    *_IMAGE_PIXEL_MODULE,
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "RescaleSlope",
    "RescaleIntercept",
)


class _Image(NamedTuple):
    """The frames of a file: stored values ``(frames, H, W)``, slope and intercept of each, and whether 0 is white."""

    stored: np.ndarray
    rescale: list[tuple[float, float]]
    inverted: bool


class _Stack(NamedTuple):
    """The values of a series ``(H, W, D)`` and its geometry."""

    volume: np.ndarray
    grid: FrameGrid


class DICOMReader(ImageReader):
    """Read a DICOM series as one volume ``(H, W, D)``: rows, columns and slices.

    Input is the files of a series in any order, one file, or a folder with one MR series. Images may be single-frame or
    multi-frame, uncompressed or compressed as JPEG, JPEG-LS, JPEG 2000 or RLE. Slices are ordered by their position in
    space, and the affine (RAS, mm) comes from the headers. The rescale slope and intercept of each image are applied
    (float32); if no image has them, values are the stored integers. MONOCHROME1 is inverted, so that high values are
    bright.

    Args:
        max_voxels: maximum number of voxels of a volume; files that declare more are refused before they are decoded.

    Example::

        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader="mri_seg.dicom.reader.DICOMReader", ensure_channel_first=True)
        >>> load("study/flair").shape  # doctest: +SKIP
        torch.Size([1, 256, 256, 26])
    """

    def __init__(self, max_voxels: int = MAX_VOXELS) -> None:
        super().__init__()
        self.max_voxels = max_voxels

    def verify_suffix(self, filename: Sequence[PathLike | str] | PathLike | str) -> bool:
        """Whether all names are DICOM files, or folders that contain some."""
        names = [Path(name) for name in ensure_tuple(filename)]
        return all(bool(_files_in(name)) if name.is_dir() else is_dicom(name) for name in names)

    @quiet_pydicom()
    def read(self, data: Sequence[PathLike | str] | PathLike | str, **kwargs: Any) -> _Stack:
        """Read a series.

        Args:
            data: files of one series, one file, or a folder.
            kwargs: not used.

        Raises:
            FileNotFoundError: when a file or folder does not exist.
            ValueError: when a folder does not hold exactly one MR series, when the frames do not form a volume (see
                :func:`mri_seg.dicom.geometry.order_frames`), when an image is in color, is damaged, or has a
                compression that cannot be decoded, or when the files declare more than ``max_voxels``.
        """
        files = [file for name in ensure_tuple(data) for file in _series_files(Path(name))]
        limit = SizeLimit(self.max_voxels)
        headers = {file: _without_deflated_pixels(read_dataset(file, _TAGS)) for file in files}
        grid = arrange_frames(headers, limit)
        paths = dict.fromkeys(frame.path for frame in grid.frames)
        with tempfile.TemporaryDirectory() as scratch:  # one for all, since making a folder takes longer than an image
            images = {path: _image(path, headers.pop(path), Path(scratch), limit.largest) for path in paths}
        return _Stack(_volume(grid, images), grid)

    def get_data(self, img: _Stack) -> tuple[np.ndarray, dict]:
        """Return the volume and its geometry.

        Returns:
            array ``(H, W, D)``, and metadata with ``affine`` (mm), ``original_affine``, ``spatial_shape``, ``space``,
            ``original_channel_dim``, ``spacing_known`` and ``slice_spacing_known``.
        """
        volume, grid = img
        return volume, {
            MetaKeys.AFFINE: grid.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: grid.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's mark for "no channel"
            "spacing_known": grid.spacing_known,
            "slice_spacing_known": grid.slice_spacing_known,
        }


def _without_deflated_pixels(data: Dataset) -> Dataset:
    """Drop pixels that had to be read with the header, so that memory does not hold those of a whole series."""
    if _is_deflated(data):
        data.pop("PixelData", None)
    return data


def _is_deflated(data: Dataset) -> bool:
    return data.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if not file.name.startswith(".") and is_dicom(file))


def _series_files(path: Path) -> Sequence[Path]:
    """The file itself, or the files of the only series in a folder."""
    if not path.is_dir():
        return [path]
    series = find_series(_files_in(path))
    if len(series) != 1:
        listed = "".join(f"\n  {one}" for one in series)
        raise ValueError(f"{path}: holds {len(series)} MR series, expected one. Give the files of one series.{listed}")
    return series[0].files


def _volume(grid: FrameGrid, images: dict[Path, _Image]) -> np.ndarray:
    """Stack frames into a volume ``(H, W, D)`` of modality values."""
    first = next(iter(images))
    for path, image in images.items():
        if image.inverted != images[first].inverted:
            raise ValueError(
                f"{path}: differs from {first} in PhotometricInterpretation (MONOCHROME1 and MONOCHROME2). "
                "All slices of a volume must have the same. Export the series again."
            )
    volume = np.stack([images[frame.path].stored[frame.number] for frame in grid.frames], axis=-1)
    rescale = [images[frame.path].rescale[frame.number] for frame in grid.frames]
    if any(pair != (1.0, 0.0) for pair in rescale):
        slope, intercept = np.array(rescale).T
        volume = (volume * slope + intercept).astype(np.float32)
    if images[first].inverted:
        # The same constant for all slices; the range stays, so an integer overflow in between cancels out.
        volume = volume.min() + (volume.max() - volume)
    return volume


def read_values(path: Path) -> np.ndarray:
    """Read the values of an image after rescaling, ``(frames, H, W)``, without inversion.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file cannot be read or decoded, or declares more than ``MAX_VOXELS``.
    """
    data = read_dataset(path, _TAGS)
    size = [int(number_of(data, keyword) or 0) for keyword in ("Rows", "Columns")]
    SizeLimit().add(path, (frame_count(data), *size))
    with tempfile.TemporaryDirectory() as scratch:
        image = _image(path, data, Path(scratch), MAX_VOXELS)
    slope, intercept = np.array(image.rescale).T[..., None, None]
    return image.stored * slope + intercept


def _image(path: Path, data: Dataset, scratch: Path, max_voxels: int) -> _Image:
    if _is_deflated(data):
        data = read_dataset(path, _TAGS)
    if "PixelData" not in data:
        raise ValueError(f"{path}: holds no pixels and may be truncated. Copy it again from its source.")
    count = frame_count(data)
    photometric = data.get("PhotometricInterpretation", "MONOCHROME2")
    if data.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path}: is a color image ({photometric}), expected gray values. Give the original MR series, not a "
            "screenshot or a color map."
        )
    return _Image(
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
    """Fill the bits above BitsStored with the sign bit or 0, since old files store overlays there."""
    unused = stored.dtype.itemsize * 8 - int(data.get("BitsStored", stored.dtype.itemsize * 8))
    if unused <= 0 or data.get("HighBit", data.BitsStored - 1) != data.BitsStored - 1:
        return stored
    return (stored << unused) >> unused


def _reason(error: Exception) -> str:
    """Last line of an error, without the location in ITK's source and the address of an object before it."""
    return re.sub(r"^ITK ERROR: \w+\(\w+\): ", "", str(error).strip().rpartition("\n")[2])
