"""Read a DICOM series as one volume."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from mri_seg.dicom.geometry import GEOMETRY_TAGS, FrameGrid, arrange_frames
from mri_seg.dicom.headers import read_dataset
from mri_seg.dicom.pixels import PIXEL_TAGS, Image, decode_image, without_deflated_pixels
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.dicom.series import find_series, is_dicom
from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit

__all__ = ["DICOMReader"]

_TAGS = tuple(dict.fromkeys((*GEOMETRY_TAGS, *PIXEL_TAGS)))


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
        headers = {file: without_deflated_pixels(read_dataset(file, _TAGS)) for file in files}
        grid = arrange_frames(headers, limit)
        paths = dict.fromkeys(frame.path for frame in grid.frames)
        with tempfile.TemporaryDirectory() as scratch:  # one for all, since making a folder takes longer than an image
            images = {path: decode_image(path, headers.pop(path), Path(scratch), limit.largest) for path in paths}
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


def _volume(grid: FrameGrid, images: dict[Path, Image]) -> np.ndarray:
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
