"""Read a case as one FLAIR volume: slices as TIFF, PNG or JPEG, DICOM series, NIfTI, NRRD and MetaImage files."""

from __future__ import annotations

import gzip
import logging
import math
import struct
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import itk
import nibabel
import numpy as np
import tifffile
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, ITKReader, MetaTensor
from monai.data.utils import affine_to_spacing, to_affine_nd
from monai.transforms import LoadImage, MapTransform
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mri_seg.dicom.reader import DICOMReader
from mri_seg.errors import reason
from mri_seg.limits import LARGEST_VOLUME, SizeLimit, TooLargeError, codestream_size
from mri_seg.metaimage import check_meta_image
from mri_seg.nibabel_files import VolumeReader, check_volume_header, is_mgh, is_pair

__all__ = ["PICTURE_SUFFIXES", "TIFF_SUFFIXES", "LoadVolumed", "SliceReader"]

TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

_MM_PER_UNIT = {2: 25.4, 3: 10.0}  # TIFF 6.0, tag ResolutionUnit: inch, centimetre
_CIFTI_INTENTS = range(3000, 3100)  # NIfTI's codes of connectivity
_VOXEL_SIZES = (0.01, 100.0)  # mm; beyond, a file has another unit than mm or is damaged
_LARGEST_RATIO = 200.0  # of the sides of a voxel
_LARGEST_DEFLATE_RATIO = 1032  # of gzip, by its format
_SCREEN_AND_PRINT = (72, 96, 150, 300, 600)  # pixels an inch that programs write without having measured anything


# TIFF compressions that decode to the size of the page, and those that may decode to a size of their own.
_SIZE_OF_PAGE = {1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 34926, 50000}  # none, fax, LZW, Deflate, LZMA, ZSTD, ...
_SIZE_OF_ITS_OWN = {7, 33003, 33004, 33005, 33007, 34712}  # JPEG, JPEG 2000


class _Slice(NamedTuple):
    """One page of a file: its FLAIR pixels ``(H, W)`` and the row and column spacing in mm, if the file says."""

    path: Path
    pixels: np.ndarray
    spacing: tuple[float, float] | None


class SliceReader(ImageReader):
    """Read slices, given in order from the lowest to the highest, as one FLAIR volume ``(H, W, D)``.

    Takes a list of TIFF, PNG or JPEG files, one file, or one multi-page TIFF file; any compression, 8 or 16 bit or
    floating point. The affine puts rows anterior to posterior, columns patient right to left (as a radiologist sees
    them) and slices inferior to superior in RAS terms. In-plane spacing in mm comes from TIFF's resolution tags where
    they carry a unit and are not one of the resolutions of screens and printers; otherwise it is 1 and the metadata's
    ``spacing_known`` is False. None of the formats says the distance of slices: it is 1 and ``slice_spacing_known`` is
    False.

    Args:
        channel: index of FLAIR in files with several channels (TCGA-LGG: pre-contrast, FLAIR, post-contrast); files
            with one channel are taken as FLAIR.
        spacing: distance of rows, columns and slices in mm, for files that do not say it; it wins over their tags.
        largest_volume: voxels a volume may have; files that declare more are refused before they are decoded.

    Raises:
        ValueError: when ``spacing`` is not three positive numbers.

    Example::

        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader="mri_seg.reader.SliceReader", ensure_channel_first=True)
        >>> load(["case_1.tif", "case_2.tif"]).shape  # doctest: +SKIP
        torch.Size([1, 256, 256, 2])
    """

    def __init__(
        self, channel: int = 1, spacing: Sequence[float] | None = None, largest_volume: int = LARGEST_VOLUME
    ) -> None:
        super().__init__()
        if spacing is not None and (len(spacing) != 3 or not all(step > 0 for step in spacing)):
            raise ValueError(f"spacing is {spacing}, expected three positive numbers: rows, columns and slices, in mm.")
        self.channel = channel
        self.spacing = spacing
        self.largest_volume = largest_volume

    def verify_suffix(self, filename: Sequence[PathLike | str] | PathLike | str) -> bool:
        """Tell whether all the files are named as TIFF, PNG or JPEG."""
        suffixes = TIFF_SUFFIXES + PICTURE_SUFFIXES
        return all(Path(name).suffix.lower() in suffixes for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike | str] | PathLike | str, **kwargs: Any) -> list[_Slice]:
        """Read every page of the files.

        Raises:
            ValueError: when a file is not what its name says, cannot be decoded, has no such channel, has a palette of
                colours, holds values that are not finite real numbers, or declares more than ``largest_volume``.
        """
        limit = SizeLimit(self.largest_volume)
        return [page for name in ensure_tuple(data) for page in self._read_file(Path(name), limit)]

    def get_data(self, img: Sequence[_Slice]) -> tuple[np.ndarray, dict]:
        """Stack pages into a volume.

        Returns:
            array ``(H, W, D)`` of the files' type, and metadata with ``affine`` (mm), ``spatial_shape``, ``space``,
            ``original_channel_dim``, ``spacing_known``, ``slice_spacing_known`` and ``has_geometry``.

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
        row_spacing, column_spacing, slice_spacing = self.spacing or (*(first.spacing or (1.0, 1.0)), 1.0)
        affine = np.zeros((4, 4))
        affine[1, 0] = -row_spacing  # rows run towards posterior
        affine[0, 1] = -column_spacing  # columns run towards the patient's left
        affine[2, 2] = slice_spacing
        affine[3, 3] = 1.0
        return volume, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's mark for "no channel"
            "spacing_known": self.spacing is not None or first.spacing is not None,
            "slice_spacing_known": self.spacing is not None,
            "has_geometry": False,  # none of the formats says where slices lie
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
            raise ValueError(f"{path}: a TIFF file without an image. Copy the file again from its source.")
        return [_Slice(path, self._flair(path, pixels, page), _spacing(page)) for pixels, page in decoded]

    def _read_picture(self, path: Path, limit: SizeLimit) -> _Slice:
        try:
            # Not Image.open, which would try dozens of formats, and has a limit of its own for the whole process.
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
            return _Slice(path, _grey_of_palette(path, np.asarray(picture.convert("RGB"))), None)
        if picture.mode not in ("1", "L", "LA", "I", "I;16", "I;16B", "F", "RGB", "RGBA"):
            raise ValueError(
                f"{path}: has pixels of the kind {picture.mode}, expected grey values. Save it as greyscale."
            )
        pixels = np.asarray(picture)
        if picture.mode in ("LA", "RGBA"):  # the last is opacity
            pixels = pixels[..., :-1]
        return _Slice(path, self._channel(path, pixels) if pixels.ndim == 3 else pixels, None)

    def _channel(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        channels = pixels.shape[-1]
        if channels > 1 and not 0 <= self.channel < channels:
            raise ValueError(
                f"{path}: has {channels} channels, expected FLAIR as channel {self.channel} counted from 0. "
                "Set the reader's `channel`."
            )
        return pixels[..., self.channel if channels > 1 else 0]

    def _flair(self, path: Path, pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _grey_of_palette(path, pixels)
        if pixels.dtype.kind not in "buif":
            raise ValueError(f"{path}: holds values of type {pixels.dtype}, expected real numbers.")
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ValueError(f"{path}: has the axes {page.axes}, expected rows and columns, with or without channels.")
        if pixels.ndim == 3:
            # One extra sample beside a grey value is opacity; more are channels of no stated meaning.
            opacity = pixels.shape[-1] == 2 and page.extrasamples
            pixels = self._channel(path, pixels[..., :1] if opacity else pixels)
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ValueError(f"{path}: holds values that are not finite (NaN or infinity). Repair or leave it out.")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = -pixels if pixels.dtype.kind == "f" else ~pixels  # the same for every slice, without overflow
        return pixels


def _decode(path: Path, page: tifffile.TiffPage, limit: SizeLimit) -> np.ndarray:
    """Decode a page, unless it is larger than the limit."""
    shape = page.imagelength, page.imagewidth
    limit.add(path, shape, math.prod(page.shape) // max(math.prod(shape), 1))
    SizeLimit(limit.largest).add(path, page.chunks)  # strips and tiles, decoded whole
    if page.compression in _SIZE_OF_ITS_OWN:
        for start, count in zip(page.dataoffsets, page.databytecounts):
            page.parent.filehandle.seek(start)
            own_size = codestream_size(page.parent.filehandle.read(count))
            if own_size is None:
                raise ValueError("it does not hold what it is compressed as")
            SizeLimit(limit.largest).add(path, own_size[:2], own_size[2])
    elif page.compression not in _SIZE_OF_PAGE:
        raise ValueError(f"compressed as {page.compression!s}, expected none, Deflate, LZW, ZSTD, JPEG or JPEG 2000")
    pixels = page.asarray()
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        pixels = np.moveaxis(page.colormap, 0, -1)[pixels]
    return pixels


def _grey_of_palette(path: Path, colours: np.ndarray) -> np.ndarray:
    """Grey values ``(H, W)`` of the colours ``(H, W, 3)`` that a palette gives."""
    if (colours != colours[..., :1]).any():
        raise ValueError(f"{path}: has a colour palette, expected grey values. Save it as greyscale.")
    return colours[..., 0]


def _pages(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Pages of a file; in a damaged one the last may refer back to one before, and tifffile would never end."""
    offsets = set()
    for page in tiff.pages:
        if page.offset in offsets:
            raise ValueError("its pages follow one another in a circle")
        offsets.add(page.offset)
        yield page


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
    if not all(_VOXEL_SIZES[0] <= unit / number <= _VOXEL_SIZES[1] for number in (rows, columns) if number > 0):
        return None
    if rows <= 0 or columns <= 0 or (unit == 25.4 and rows == columns and rows in _SCREEN_AND_PRINT):
        return None
    return unit / rows, unit / columns


def _ratio(value: tuple[int, int] | float) -> float:
    """Value of a resolution tag, which is a fraction, but a single number in some files."""
    if not isinstance(value, tuple):
        return float(value)
    return value[0] / value[1] if value[1] else 0.0


class LoadVolumed(MapTransform):
    """Read each case as a volume ``(1, H, W, D)``, whatever its files are, and keep its name and files with it.

    MONAI's ``LoadImage`` with the reader chosen by the files alone: slices (:py:class:`SliceReader`), DICOM
    (:py:class:`mri_seg.dicom.reader.DICOMReader`), what nibabel reads, such as NIfTI and MGZ
    (:py:class:`mri_seg.nibabel_files.VolumeReader`), and whatever else ITK reads, such as NRRD and MetaImage
    (``ITKReader``). ``LoadImage`` alone tries every other reader when one raises, so a
    damaged slice would surface as some other library's error, or be read in another geometry.

    Args:
        keys: keys of file names or lists of file names.
        volume: which volume of a file with several (4D) is FLAIR, counted from 0; None for files with one volume, and
            for cases that say it themselves, by a number of the key ``volume``. It is for the first of the keys: files
            of the others, such as labels, hold one volume.
        channel: see :py:class:`SliceReader`.
        spacing: see :py:class:`SliceReader`.
        largest_volume: voxels a volume may have; files that declare more are refused before they are decoded.
        case_key: key of the case's name, written to the metadata as ``case``; without it, the name comes from the file.
            The names of the files go to the metadata as ``files``, a line each.
        allow_missing_keys: whether to pass over missing keys.

    Raises:
        ValueError: on loading, when a file cannot be read, declares more than ``largest_volume``, is not one volume,
            holds no number, or has no usable affine. Whether a label fits its image is for
            :py:class:`mri_seg.labels.LabelToImageGridd` to see.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        volume: int | None = None,
        channel: int = 1,
        spacing: Sequence[float] | None = None,
        largest_volume: int = LARGEST_VOLUME,
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        # Not a LoadImaged: MONAI Label would wrap it in a loader of its own, which fails where there is no reference.
        super().__init__(keys, allow_missing_keys)
        with _no_word_of_missing_plugins():
            self._loader = LoadImage(ensure_channel_first=True, image_only=True)
        self.volume = volume
        self.case_key = case_key
        self.largest_volume = largest_volume
        self.own_readers = (
            SliceReader(channel=channel, spacing=spacing, largest_volume=largest_volume),
            DICOMReader(largest_volume=largest_volume),
        )
        # ITKReader takes whatever is left.
        self.other_readers = (VolumeReader(squeeze_non_spatial_dims=True), ITKReader())

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the volumes ``(1, H, W, D)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            files = [str(name) for name in ensure_tuple(d[key])]
            index = d.get("volume") if self.volume is None else self.volume
            volume = self._load(files, reader, index, is_label=key != self.keys[0])
            _check_voxel_size(volume, files[0])
            volume.meta["case"] = d.get(self.case_key) or Path(files[0]).name.split(".")[0]
            volume.meta["files"] = "\n".join(files)  # one text, because batching takes lists apart
            d[key] = volume
        return d

    def _load(self, files: list[str], reader: ImageReader | None, index: int | None, *, is_label: bool) -> MetaTensor:
        own = next((own for own in self.own_readers if own.verify_suffix(files)), None)
        if reader or own:  # their errors say what is wrong and where
            return self._loader(files, reader or own)
        if not Path(files[0]).is_file():
            raise FileNotFoundError(f"{files[0]}: no such file.")
        _refuse_cifti(files[0])
        try:
            _check_size(files, SizeLimit(self.largest_volume))
            other = next(other for other in self.other_readers if other.verify_suffix(files))
            volume = self._loader(files, other)
            # MONAI puts another affine in place of one with NaN, so look at the file's own.
            affine = nibabel.load(files[0]).affine if isinstance(other, VolumeReader) else volume.affine.numpy()
        except TooLargeError:
            raise
        except Exception as error:  # each library raises errors of its own for damaged files
            raise ValueError(
                f"{files[0]}: cannot be read ({reason(error)}). Copy the file again from its source, or leave it out."
            ) from error
        _check_affine(affine, files[0])
        if not torch.isfinite(volume).any():
            raise ValueError(f"{files[0]}: holds no number but NaN and infinity. Export it again, or leave it out.")
        return self._one_volume(volume, files[0], index, is_label=is_label)

    @staticmethod
    def _one_volume(volume: MetaTensor, file: str, index: int | None, *, is_label: bool) -> MetaTensor:
        if volume.ndim == 3:  # one slice
            volume = volume[..., None]
            volume.affine = to_affine_nd(3, volume.affine)
        if volume.ndim != 4:
            raise ValueError(f"{file}: has {volume.ndim - 1} dimensions, expected a volume of three.")
        count = len(volume)
        if count > 1 and is_label:
            raise ValueError(f"{file}: holds {count} volumes, expected one label. Write the label as one volume.")
        if count > 1 and index is None:
            raise ValueError(
                f"{file}: holds {count} volumes, expected one. Say which is FLAIR by `--volume`, 0 to {count - 1}."
            )
        if count > 1 and not isinstance(index, int):
            raise ValueError(f"--volume: {index!r}, expected a whole number, 0 to {count - 1}.")
        if count > 1 and not 0 <= index < count:
            raise ValueError(f"{file}: holds {count} volumes, so `--volume` goes from 0 to {count - 1}, not {index}.")
        return volume[[index]] if count > 1 else volume


@contextmanager
def _no_word_of_missing_plugins() -> Iterator[None]:
    """LoadImage makes one of each of MONAI's readers, one of which warns that a GPU decoder is not installed."""
    log = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            yield
    finally:
        log.setLevel(level)


def _check_size(files: Sequence[str], limit: SizeLimit) -> None:
    """Refuse files whose headers declare more than the limit, or more than the file can hold."""
    for file in files:
        if file.lower().endswith((".nii", ".nii.gz")):
            header = _nifti_header(file)
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            if min(shape, default=0) < 1 or dtype.kind not in "iuf":
                raise ValueError(f"{' x '.join(map(str, shape))} voxels of type {dtype}, expected real numbers")
            limit.add(file, shape)
            voxels = math.prod(map(int, shape))
            offset = max(int(header.get_data_offset()), 0)
            if offset > limit.largest:  # all of it would be read, as extensions of the header
                raise ValueError(f"its voxels are to begin after {offset} bytes")
            expected = voxels * dtype.itemsize + offset
            found = Path(file).stat().st_size * (_LARGEST_DEFLATE_RATIO if file.lower().endswith(".gz") else 1)
            if expected > found:
                raise ValueError(f"it ends before its last voxel: {expected} bytes expected, {found} at most")
        elif is_mgh(file) or is_pair(file):
            check_volume_header(Path(file), limit)
        elif file.lower().endswith((".mha", ".mhd")):
            check_meta_image(Path(file), limit)
        else:
            image = itk.ImageIOFactory.CreateImageIO(file, itk.CommonEnums.IOFileMode_ReadMode)
            if image is not None:  # else the error is given on reading
                image.SetFileName(file)
                image.ReadImageInformation()
                sizes = [image.GetDimensions(axis) for axis in range(image.GetNumberOfDimensions())]
                limit.add(file, sizes, image.GetNumberOfComponents())


def _nifti_header(file: str) -> nibabel.Nifti1Header | nibabel.Nifti2Header:
    """Header of a NIfTI file, without the extensions that may follow it."""
    with (gzip.open if file.lower().endswith(".gz") else open)(file, "rb") as stream:
        block = stream.read(nibabel.Nifti2Header.sizeof_hdr)
    if len(block) < nibabel.Nifti1Header.sizeof_hdr:
        raise ValueError(f"it ends within its header, after {len(block)} bytes")
    kind = nibabel.Nifti2Header if nibabel.Nifti2Header.may_contain_header(block) else nibabel.Nifti1Header
    header = kind(block[: kind.sizeof_hdr], check=False)
    if int(header["datatype"]) not in nibabel.nifti1.data_type_codes.code:
        raise ValueError(f"its datatype is {int(header['datatype'])}, which NIfTI does not know")
    return header


def _refuse_cifti(file: str) -> None:
    """Refuse CIFTI-2, which has NIfTI's name and header, but holds values of surfaces and no image."""
    if not file.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        intent = int(_nifti_header(file)["intent_code"])
    except Exception:  # what is wrong with it is told on reading
        return
    if intent in _CIFTI_INTENTS:
        raise ValueError(
            f"{file}: is CIFTI (intent code {intent}), values on the brain's surface and its connections, expected a "
            "volume of voxels. Give the FLAIR image as volumetric NIfTI, as the scanner's series gives it by dcm2niix."
        )


def _check_voxel_size(volume: MetaTensor, file: str) -> None:
    """Refuse voxels of a size that no image has: resampling to mm would empty or blow up the volume."""
    if not volume.meta.get("spacing_known", True):
        return
    sizes = affine_to_spacing(volume.affine).numpy()
    if min(sizes) < _VOXEL_SIZES[0] or max(sizes) > _VOXEL_SIZES[1] or max(sizes) > _LARGEST_RATIO * min(sizes):
        raise ValueError(
            f"{file}: its voxels are {' x '.join(f'{size:.3g}' for size in sizes)} mm, expected {_VOXEL_SIZES[0]:g} to "
            f"{_VOXEL_SIZES[1]:g} mm and sides within a factor of {_LARGEST_RATIO:g}. Perhaps it is in another unit "
            "than mm: write it again with the affine of its source."
        )


def _check_affine(affine: np.ndarray, file: str) -> None:
    """Make sure that the affine places voxels in space, since all geometry rests on it."""
    axes = affine[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < 1e-9:
        raise ValueError(
            f"{file}: its affine {affine[:3].round(3).tolist()} does not give voxels a size. "
            "Write the file again with the affine of its source."
        )
