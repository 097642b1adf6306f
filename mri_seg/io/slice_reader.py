"""Read numbered TIFF, PNG or JPEG slices as one FLAIR volume."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit, TooLargeError, codestream_size

__all__ = ["PICTURE_SUFFIXES", "TIFF_SUFFIXES", "SliceReader", "slice_affine"]


TIFF_SUFFIXES = (".tif", ".tiff")


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


_MM_PER_UNIT = {2: 25.4, 3: 10.0}  # TIFF 6.0, tag ResolutionUnit: inch, centimetre


_VOXEL_SIZES = (0.01, 100.0)  # mm; outside this range, a file has another unit than mm or is damaged


_SCREEN_AND_PRINT = (72, 96, 150, 300, 600)  # pixels per inch that programs write by default, without a measurement


# TIFF compressions that decode to the size of the page, and those that may decode to another size.
_SIZE_OF_PAGE = {1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 34926, 50000}  # none, fax, LZW, Deflate, LZMA, ZSTD, ...


_SIZE_OF_ITS_OWN = {7, 33003, 33004, 33005, 33007, 34712}  # JPEG, JPEG 2000


class _Slice(NamedTuple):
    """One page of a file: its FLAIR pixels ``(H, W)``, and the row and column spacing in mm if the file gives it."""

    path: Path
    pixels: np.ndarray
    spacing: tuple[float, float] | None


class SliceReader(ImageReader):
    """Read slices, given in order from the lowest to the highest, as one FLAIR volume ``(H, W, D)``.

    Input is a list of TIFF, PNG or JPEG files, a single file, or a multi-page TIFF file, with any compression and 8
    bits, 16 bits or floating point. In the affine, rows run from anterior to posterior, columns from the patient's
    right to left (as a radiologist sees them), and slices from inferior to superior. In-plane spacing in mm comes from
    TIFF's resolution tags, if they have a unit and are not a default resolution of screens or printers. Otherwise it is
    1, and ``spacing_known`` in the metadata is False. None of the formats carries the distance between slices, so it is
    1, and ``slice_spacing_known`` is False.

    Args:
        channel: index of FLAIR in files with several channels (TCGA-LGG: pre-contrast, FLAIR, post-contrast); files
            with one channel are taken as FLAIR.
        spacing: distance between rows, columns and slices in mm; it overrides the tags of the files.
        max_voxels: maximum number of voxels of a volume; files that declare more are refused before they are decoded.

    Raises:
        ValueError: when ``spacing`` is not three positive numbers.

    Example::

        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader="mri_seg.io.slice_reader.SliceReader", ensure_channel_first=True)
        >>> load(["case_1.tif", "case_2.tif"]).shape  # doctest: +SKIP
        torch.Size([1, 256, 256, 2])
    """

    def __init__(self, channel: int = 1, spacing: Sequence[float] | None = None, max_voxels: int = MAX_VOXELS) -> None:
        super().__init__()
        if spacing is not None and (len(spacing) != 3 or not all(step > 0 for step in spacing)):
            raise ValueError(f"spacing is {spacing}, expected three positive numbers: rows, columns and slices, in mm.")
        self.channel = channel
        self.spacing = spacing
        self.max_voxels = max_voxels

    def verify_suffix(self, filename: Sequence[PathLike | str] | PathLike | str) -> bool:
        """Whether all files have a suffix of TIFF, PNG or JPEG."""
        suffixes = TIFF_SUFFIXES + PICTURE_SUFFIXES
        return all(Path(name).suffix.lower() in suffixes for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike | str] | PathLike | str, **kwargs: Any) -> list[_Slice]:
        """Read every page of the files.

        Raises:
            ValueError: when a file is not what its suffix says, cannot be decoded, does not have the channel, has a
                color palette, holds values that are not finite real numbers, or declares more than ``max_voxels``.
        """
        limit = SizeLimit(self.max_voxels)
        return [page for name in ensure_tuple(data) for page in self._read_file(Path(name), limit)]

    def get_data(self, img: Sequence[_Slice]) -> tuple[np.ndarray, dict]:
        """Stack pages into a volume.

        Returns:
            array ``(H, W, D)`` of the type of the files, and metadata with ``affine`` (mm), ``spatial_shape``,
            ``space``, ``original_channel_dim``, ``spacing_known``, ``slice_spacing_known`` and ``has_geometry``.

        Raises:
            ValueError: when the slices differ in shape or in spacing.
        """
        first = img[0]
        for other in img[1:]:
            for what, found, expected in (
                ("shape", other.pixels.shape, first.pixels.shape),
                ("pixel spacing", other.spacing, first.spacing),
            ):
                if found != expected:
                    raise ValueError(
                        f"{other.path}: {what} is {found}, but {expected} in {first.path}. All slices of a volume must "
                        "have the same. Put the slices of each series in a folder of their own."
                    )
        volume = np.stack([page.pixels for page in img], axis=-1)
        affine = slice_affine(self.spacing or (*(first.spacing or (1.0, 1.0)), 1.0))
        return volume, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's mark for "no channel"
            "spacing_known": self.spacing is not None or first.spacing is not None,
            "slice_spacing_known": self.spacing is not None,
            "has_geometry": False,  # none of the formats says where in space slices lie
        }

    def _read_file(self, path: Path, limit: SizeLimit) -> list[_Slice]:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file.")
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return [self._read_picture(path, limit)]
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [page for page in _pages(tiff) if not page.is_reduced]  # no thumbnails
                if _next_page(tiff):
                    raise ValueError("it ends before its last page")
                decoded = [(_decode(path, page, limit), page) for page in pages]
        except TooLargeError:
            raise
        except Exception as error:  # tifffile and its codecs raise errors of many kinds for damaged files
            raise ValueError(
                f"{path}: cannot be read as TIFF ({error}). Copy the file again from its source, or leave it out."
            ) from error
        if not pages:
            raise ValueError(f"{path}: is a TIFF file without an image. Copy the file again from its source.")
        return [_Slice(path, self._flair(path, pixels, page), _spacing(page)) for pixels, page in decoded]

    def _read_picture(self, path: Path, limit: SizeLimit) -> _Slice:
        try:
            # Not Image.open: it would try dozens of formats, and has its own size limit for the whole process.
            with path.open("rb") as file:
                kind = PngImageFile if file.read(4) == b"\x89PNG" else JpegImageFile
            with kind(path) as picture:
                limit.add(path, picture.size[::-1], len(picture.getbands()))
                picture.load()
        except TooLargeError:
            raise
        except Exception as error:  # Pillow raises errors of many kinds for damaged files
            raise ValueError(
                f"{path}: cannot be read as a picture ({error}). Copy the file again from its source, or leave it out."
            ) from error
        if picture.mode == "P":
            return _Slice(path, _gray_from_palette(path, np.asarray(picture.convert("RGB"))), None)
        if picture.mode not in ("1", "L", "LA", "I", "I;16", "I;16B", "F", "RGB", "RGBA"):
            raise ValueError(f"{path}: has pixels of mode {picture.mode}, expected gray values. Save it as grayscale.")
        pixels = np.asarray(picture)
        if picture.mode in ("LA", "RGBA"):  # the last channel is opacity
            pixels = pixels[..., :-1]
        return _Slice(path, self._channel(path, pixels) if pixels.ndim == 3 else pixels, None)

    def _channel(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        channels = pixels.shape[-1]
        if channels > 1 and not 0 <= self.channel < channels:
            raise ValueError(
                f"{path}: has {channels} channels, expected FLAIR in channel {self.channel}, counted from 0. "
                "Set the reader's `channel`."
            )
        return pixels[..., self.channel if channels > 1 else 0]

    def _flair(self, path: Path, pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _gray_from_palette(path, pixels)
        if pixels.dtype.kind not in "buif":
            raise ValueError(f"{path}: holds values of type {pixels.dtype}, expected real numbers.")
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ValueError(f"{path}: has the axes {page.axes}, expected rows and columns, with or without channels.")
        if pixels.ndim == 3:
            # One extra sample beside a gray value is opacity; if there are more, they are channels.
            opacity = pixels.shape[-1] == 2 and page.extrasamples
            pixels = self._channel(path, pixels[..., :1] if opacity else pixels)
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(f"{path}: holds values that are not finite (NaN or infinity). Repair or leave it out.")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = -pixels if pixels.dtype.kind == "f" else ~pixels  # the same in every slice, without overflow
        return pixels


def slice_affine(spacing: Sequence[float]) -> np.ndarray:
    """Affine of a volume of slices that are as a radiologist sees them, the lowest first: ``(4, 4)``, to RAS in mm.

    Args:
        spacing: distance between rows, columns and slices in mm.
    """
    row_spacing, column_spacing, slice_spacing = spacing
    affine = np.zeros((4, 4))
    affine[1, 0] = -row_spacing  # rows run towards posterior
    affine[0, 1] = -column_spacing  # columns run towards the patient's left
    affine[2, 2] = slice_spacing
    affine[3, 3] = 1.0
    return affine


def _decode(path: Path, page: tifffile.TiffPage, limit: SizeLimit) -> np.ndarray:
    """Decode a page, unless it is larger than the limit."""
    shape = page.imagelength, page.imagewidth
    limit.add(path, shape, math.prod(page.shape) // max(math.prod(shape), 1))
    SizeLimit(limit.largest).add(path, page.chunks)  # strips and tiles are decoded as a whole
    if page.compression in _SIZE_OF_ITS_OWN:
        for start, count in zip(page.dataoffsets, page.databytecounts):
            page.parent.filehandle.seek(start)
            own_size = codestream_size(page.parent.filehandle.read(count))
            if own_size is None:
                raise ValueError(f"its data are not compressed as it says, by {page.compression!s}")
            SizeLimit(limit.largest).add(path, own_size[:2], own_size[2])
    elif page.compression not in _SIZE_OF_PAGE:
        raise ValueError(f"compressed as {page.compression!s}, expected none, Deflate, LZW, ZSTD, JPEG or JPEG 2000")
    pixels = page.asarray()
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        if page.colormap is None:
            raise ValueError("it has a palette without colours")
        pixels = np.moveaxis(page.colormap, 0, -1)[pixels]
    return pixels


def _gray_from_palette(path: Path, colors: np.ndarray) -> np.ndarray:
    """Gray values ``(H, W)`` of the colors ``(H, W, 3)`` from a palette."""
    if (colors != colors[..., :1]).any():
        raise ValueError(f"{path}: has a color palette, expected gray values. Save it as grayscale.")
    return colors[..., 0]


def _pages(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Pages of a file; if it is damaged, a page may point back to an earlier one, and tifffile would never stop."""
    offsets = set()
    for page in tiff.pages:
        if page.offset in offsets:
            raise ValueError("its list of pages has a loop")
        offsets.add(page.offset)
        yield page  # type: ignore[misc]  # frames, which lack tags, come only where useframes asks for them


def _next_page(tiff: tifffile.TiffFile) -> int:
    """Offset of the page after the last one read: 0 in an intact file; tifffile stops where a file is truncated."""
    place = tiff.pages.next_page_offset
    if place is None:
        raise ValueError("it does not say where its pages end")
    tiff.filehandle.seek(place)
    return struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))[0]


def _spacing(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Row and column spacing in mm from the resolution tags; None if they have no unit or are not plausible."""
    tags = page.tags
    unit = _MM_PER_UNIT.get(tags.valueof("ResolutionUnit", default=1))
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    rows, columns = (_ratio(tags.valueof(name)) for name in ("YResolution", "XResolution"))  # pixels per unit
    if not all(_VOXEL_SIZES[0] <= unit / number <= _VOXEL_SIZES[1] for number in (rows, columns) if number > 0):
        return None
    if rows <= 0 or columns <= 0 or (unit == 25.4 and rows == columns and rows in _SCREEN_AND_PRINT):
        return None
    return unit / rows, unit / columns


def _ratio(value: tuple[int, int] | float) -> float:
    """Value of a resolution tag: a fraction, or in some files a single number."""
    if not isinstance(value, tuple):
        return float(value)
    return value[0] / value[1] if value[1] else 0.0
