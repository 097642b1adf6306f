"""Read TIFF slices as one FLAIR volume."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import LoadImaged
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple, optional_import

__all__ = ["LoadVolumed", "TIFFReader"]

_MM_PER_UNIT = {2: 25.4, 3: 10.0}  # TIFF 6.0, tag ResolutionUnit: inch, centimetre
_SCREEN_AND_PRINT = (72, 96, 150, 300, 600)  # pixels an inch that programs write without having measured anything


class _Slice(NamedTuple):
    """One page of a TIFF file: its FLAIR pixels ``(H, W)`` and the row and column spacing in mm, if the file says."""

    path: Path
    pixels: np.ndarray
    spacing: tuple[float, float] | None


class TIFFReader(ImageReader):
    """Read TIFF slices, given in order from the lowest to the highest, as one FLAIR volume ``(H, W, D)``.

    Takes a list of slice files, one file, or one multi-page file; any compression, 8 or 16 bit or floating point.
    The affine puts rows anterior to posterior, columns patient right to left (as a radiologist sees them) and slices
    inferior to superior in RAS terms. In-plane spacing in mm comes from the resolution tags where they carry a unit and
    are not one of the resolutions of screens and printers; otherwise it is 1 and the metadata's ``spacing_known`` is
    False. TIFF says nothing of the distance of slices.

    Args:
        channel: index of FLAIR in files with several channels (TCGA-LGG: pre-contrast, FLAIR, post-contrast); files
            with one channel are taken as FLAIR.
        slice_spacing: distance of neighbouring slices in mm.

    Example::

        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader="mri_seg.reader.TIFFReader", ensure_channel_first=True)
        >>> load(["case_1.tif", "case_2.tif"]).shape  # doctest: +SKIP
        torch.Size([1, 256, 256, 2])
    """

    def __init__(self, channel: int = 1, slice_spacing: float = 1.0) -> None:
        super().__init__()
        self.channel = channel
        self.slice_spacing = slice_spacing

    def verify_suffix(self, filename: Sequence[PathLike | str] | PathLike | str) -> bool:
        """Tell whether all the files are named as TIFF."""
        return all(Path(name).suffix.lower() in (".tif", ".tiff") for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike | str] | PathLike | str, **kwargs: Any) -> list[_Slice]:
        """Read every page of the files.

        Raises:
            ValueError: when a file is not a TIFF, cannot be decoded, has no such channel, has a palette, or holds
                values that are not finite real numbers.
        """
        return [page for name in ensure_tuple(data) for page in self._read_file(Path(name))]

    def get_data(self, img: Sequence[_Slice]) -> tuple[np.ndarray, dict]:
        """Stack pages into a volume.

        Returns:
            array ``(H, W, D)`` of the files' type, and metadata with ``affine`` (mm), ``spatial_shape``, ``space``,
            ``original_channel_dim`` and ``spacing_known``.

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
                        f"{other.path}: {what} is {found}, but {expected} in {first.path}. "
                        "Slices of one volume must agree: give the slices of each series in a folder of their own."
                    )
        volume = np.stack([page.pixels for page in img], axis=-1)
        row_spacing, column_spacing = first.spacing or (1.0, 1.0)
        affine = np.zeros((4, 4))
        affine[1, 0] = -row_spacing  # rows run towards posterior
        affine[0, 1] = -column_spacing  # columns run towards the patient's left
        affine[2, 2] = self.slice_spacing
        affine[3, 3] = 1.0
        return volume, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's mark for "no channel"
            "spacing_known": first.spacing is not None,
        }

    def _read_file(self, path: Path) -> list[_Slice]:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file.")
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [(page.asarray(), page) for page in tiff.pages if not page.is_reduced]  # no thumbnails
                if _next_page(tiff):
                    raise ValueError("it ends before its last page")
        except Exception as error:  # tifffile and its codecs raise errors of many kinds for damaged files
            raise ValueError(
                f"{path}: cannot be read as TIFF ({error}). Copy the file again from its source, or leave it out."
            ) from error
        if not pages:
            raise ValueError(f"{path}: a TIFF file without an image. Copy the file again from its source.")
        return [_Slice(path, self._flair(path, pixels, page), _spacing(page)) for pixels, page in pages]

    def _flair(self, path: Path, pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise ValueError(f"{path}: has a colour palette, expected grey values. Save it as greyscale.")
        if pixels.dtype.kind not in "buif":
            raise ValueError(f"{path}: holds values of type {pixels.dtype}, expected real numbers.")
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ValueError(f"{path}: has the axes {page.axes}, expected rows and columns, with or without channels.")
        if pixels.ndim == 3:
            # One extra sample beside a grey value is opacity; more are channels of no stated meaning.
            channels = 1 if pixels.shape[-1] == 2 and page.extrasamples else pixels.shape[-1]
            if channels > 1 and not 0 <= self.channel < channels:
                raise ValueError(
                    f"{path}: has {channels} channels, expected FLAIR as channel {self.channel} counted from 0. "
                    "Set the reader's `channel`."
                )
            pixels = pixels[..., self.channel if channels > 1 else 0]
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(f"{path}: holds values that are not finite (NaN or infinity). Repair or leave it out.")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = -pixels if pixels.dtype.kind == "f" else ~pixels  # the same for every slice, without overflow
        return pixels


def _next_page(tiff: tifffile.TiffFile) -> int:
    """Place of the page after the last one read: 0 in a whole file. tifffile stops where a file was cut short."""
    tiff.filehandle.seek(tiff.pages.next_page_offset)
    return struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))[0]


def _spacing(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Row and column spacing in mm from the resolution tags, None where they carry no unit."""
    tags = page.tags
    unit = _MM_PER_UNIT.get(tags.valueof("ResolutionUnit", default=1))
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    rows, columns = (_ratio(tags.valueof(name)) for name in ("YResolution", "XResolution"))  # pixels a unit
    if rows <= 0 or columns <= 0 or (unit == 25.4 and rows == columns and rows in _SCREEN_AND_PRINT):
        return None
    return unit / rows, unit / columns


def _ratio(value: tuple[int, int] | float) -> float:
    """Value of a resolution tag, which is a fraction, but a single number in some files."""
    if not isinstance(value, tuple):
        return float(value)
    return value[0] / value[1] if value[1] else 0.0


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` with the reader chosen by file name alone; the case and its files stay with the volume.

    ``LoadImaged`` given a reader tries every other reader when that one raises, so a damaged slice would surface as
    some other library's error, or be read in another geometry. Here the error is the reader's own.

    Args:
        keys: keys of file names, lists of file names or folders.
        reader: dotted name of a reader for the suffixes it verifies; other files go to MONAI's own readers.
        case_key: key of the case's name, written to the metadata as ``case``; without it, the name comes from the file.
            The names of the files go to the metadata as ``files``, a line each.
        allow_missing_keys: whether to pass over missing keys.
        kwargs: further arguments of ``LoadImaged``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reader: str = "mri_seg.reader.TIFFReader",
        *,
        case_key: str = "case",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, ensure_channel_first=True, image_only=True, allow_missing_keys=allow_missing_keys)
        module, _, name = reader.rpartition(".")
        self._loader.register(optional_import(module, name=name)[0](**kwargs))
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the volumes ``(1, H, W, D)``."""
        loaded = super().__call__(data, reader)
        for key in self.key_iterator(loaded):
            if isinstance(loaded[key], MetaTensor):
                files = [str(name) for name in ensure_tuple(data[key])]
                loaded[key].meta["case"] = data.get(self.case_key) or Path(files[0]).name.split(".")[0]
                loaded[key].meta["files"] = "\n".join(files)  # one text, because batching takes lists apart
        return loaded
