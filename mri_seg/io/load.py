"""Read a case of any supported format as one FLAIR volume."""

from __future__ import annotations

import gzip
import logging
import math
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, ITKReader, MetaTensor
from monai.data.utils import affine_to_spacing, to_affine_nd
from monai.transforms import LoadImage, MapTransform
from monai.utils import ImageMetaKey, ensure_tuple

from mri_seg.dicom.reader import DICOMReader
from mri_seg.dicom.segmentation_labels import is_segmentation, read_segmentation_label
from mri_seg.io.memory import ImageInMemory
from mri_seg.io.metaimage import check_meta_image
from mri_seg.io.nibabel_files import VolumeReader, check_volume_header, is_mgh, is_pair, load_image
from mri_seg.io.slice_reader import _VOXEL_SIZES, SliceReader
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.messages import reason
from mri_seg.utils.meta_tensors import as_meta_tensor
from mri_seg.utils.size_limit import LARGEST_DEFLATE_RATIO, MAX_VOXELS, SizeLimit, TooLargeError

__all__ = ["LoadVolumed"]


_CIFTI_INTENTS = range(3000, 3100)  # NIfTI's intent codes for connectivity


_LARGEST_RATIO = 200.0  # of the longest to the shortest side of a voxel


class LoadVolumed(MapTransform):
    """Read each case as a volume ``(1, H, W, D)``; its name and files go to the metadata.

    It uses MONAI's ``LoadImage`` with a reader that depends only on the files: slices (:py:class:`SliceReader`), DICOM
    (:py:class:`mri_seg.dicom.reader.DICOMReader`), formats of nibabel, such as NIfTI and MGZ
    (:py:class:`mri_seg.io.nibabel_files.VolumeReader`), and other formats of ITK, such as NRRD and MetaImage
    (``ITKReader``). On its own, ``LoadImage`` tries all other readers if one raises. For a damaged slice, this would
    show the error of an unrelated library, or read it in another geometry. A label may also be a DICOM SEG
    (:py:func:`mri_seg.dicom.segmentation_labels.read_segmentation_label`).

    Args:
        keys: keys of file names, lists of file names, or images in memory
            (:py:class:`mri_seg.io.memory.ImageInMemory`).
        volume: index of FLAIR in files with several volumes (4D), from 0; None for files with one volume, and for cases
            that give it under the key ``volume``. It applies to the first key; files of the other keys, such as labels,
            hold one volume.
        channel: see :py:class:`SliceReader`.
        spacing: see :py:class:`SliceReader`; a case that has it under the key ``spacing`` goes before.
        max_voxels: maximum number of voxels of a volume; files that declare more are refused before they are decoded.
        case_key: key of the case's name, which goes to the metadata as ``case``; without it, the name comes from the
            file. The names of the files go to the metadata as ``files``, one per line; images in memory have none.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: on loading, when a file cannot be read, declares more than ``max_voxels``, is not one volume, has no
            finite value, or has no usable affine. :py:class:`mri_seg.transforms.labels.LabelToImageGridd` checks if a
            label fits its image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        volume: int | None = None,
        channel: int = 1,
        spacing: Sequence[float] | None = None,
        max_voxels: int = MAX_VOXELS,
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        # Not a LoadImaged: MONAI Label would wrap it in its own loader, which fails if there is no reference.
        super().__init__(keys, allow_missing_keys)
        with _silence_plugin_warning():
            self._loader = LoadImage(ensure_channel_first=True, image_only=True)
        self.volume = volume
        self.case_key = case_key
        self.max_voxels = max_voxels
        self.own_readers = (
            SliceReader(channel=channel, spacing=spacing, max_voxels=max_voxels),
            DICOMReader(max_voxels=max_voxels),
        )
        # ITKReader takes all remaining files.
        self.other_readers = (VolumeReader(squeeze_non_spatial_dims=True), ITKReader())

    def __call__(self, data: Mapping[Any, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the volumes ``(1, H, W, D)``."""
        d = dict(data)
        spacing = d.pop("spacing", None)
        for key in self.key_iterator(d):
            index = d.get("volume") if self.volume is None else self.volume
            if isinstance(d[key], ImageInMemory):
                files: list[str] = []
                name = d[key].name
                volume = self._load_from_memory(d[key], index, is_label=key != self.keys[0])
            else:
                files = [str(name) for name in ensure_tuple(d[key])]
                name = files[0]
                if key != self.keys[0] and is_segmentation(name):
                    volume = _load_segmentation(name, d.get(self.keys[0]))
                else:
                    slice_reader = reader or self._slice_reader(files, spacing)
                    volume = self._load(files, slice_reader, index, is_label=key != self.keys[0])
            _check_voxel_size(volume, name)
            volume.meta["case"] = d.get(self.case_key) or Path(name).name.split(".")[0]
            volume.meta["files"] = "\n".join(files)  # as text, because collating splits lists
            d[key] = volume
        return d

    def _load(self, files: list[str], reader: ImageReader | None, index: int | None, *, is_label: bool) -> MetaTensor:
        own = next((own for own in self.own_readers if own.verify_suffix(files)), None)
        if reader or own:  # their errors already name the file and the fault
            return self._loader(files, reader or own)
        if not Path(files[0]).is_file():
            raise FileNotFoundError(f"{files[0]}: no such file.")
        _refuse_cifti(files[0])
        try:
            _check_size(files, SizeLimit(self.max_voxels))
            other = next(other for other in self.other_readers if other.verify_suffix(files))
            volume = self._loader(files, other)
            # MONAI replaces an affine that has NaN, so check the one in the file.
            affine = load_image(files[0]).affine if isinstance(other, VolumeReader) else volume.affine.numpy()
        except TooLargeError:
            raise
        except Exception as error:  # each library raises other errors for damaged files
            raise ValueError(
                f"{files[0]}: cannot be read ({reason(error)}). Copy the file again from its source, or leave it out."
            ) from error
        return self._one_volume(volume, affine, files[0], index, is_label=is_label)

    def _load_from_memory(self, image: ImageInMemory, index: int | None, *, is_label: bool) -> MetaTensor:
        SizeLimit(self.max_voxels).add(image.name, image.shape)
        volume = self._loader([image.name], image)
        return self._one_volume(volume, volume.affine.numpy(), image.name, index, is_label=is_label)

    def _slice_reader(self, files: list[str], spacing: Sequence[float] | None) -> SliceReader | None:
        """A reader for slices whose case gives their spacing; None for all others."""
        usual = self.own_readers[0]
        if spacing is None or not usual.verify_suffix(files):
            return None
        return SliceReader(channel=usual.channel, spacing=spacing, max_voxels=self.max_voxels)

    @staticmethod
    def _one_volume(
        volume: MetaTensor, affine: np.ndarray, file: str, index: int | None, *, is_label: bool
    ) -> MetaTensor:
        _check_affine(affine, file)
        if not torch.isfinite(volume).any():
            raise ValueError(f"{file}: holds only NaN and infinity. Export it again, or leave it out.")
        if volume.ndim == 3:  # one slice
            volume = as_meta_tensor(volume[..., None])
            volume.affine = to_affine_nd(3, volume.affine)
        if volume.ndim != 4:
            raise ValueError(f"{file}: has {volume.ndim - 1} dimensions, expected three. Give one 3D volume.")
        count = len(volume)
        if count <= 1:
            return volume
        if is_label:
            raise ValueError(f"{file}: holds {count} volumes, expected one label. Save the label as one volume.")
        if index is None:
            raise ValueError(
                f"{file}: holds {count} volumes, expected one. Say which is FLAIR with `--volume`, 0 to {count - 1}."
            )
        if not isinstance(index, int):
            raise ValueError(f"--volume: {index!r}, expected a whole number, 0 to {count - 1}.")
        if not 0 <= index < count:
            raise ValueError(f"{file}: holds {count} volumes, so `--volume` must be 0 to {count - 1}, got {index}.")
        return as_meta_tensor(volume[[index]])


def _load_segmentation(file: str, image: Any) -> MetaTensor:
    """Read a DICOM SEG as a label ``(1, H, W, D)``; the image flags segments that overlap."""
    grid: dict[str, Any] = (
        {"affine": np.asarray(image.affine), "shape": tuple(image.shape[1:])} if isinstance(image, MetaTensor) else {}
    )
    label = read_segmentation_label(file, **grid)
    if label.overlapping and isinstance(image, MetaTensor):
        add_flag(
            image.meta,
            "segments_overlap",
            f"{label.overlapping} voxels of its label {file} belong to several segments; each counts as the one with "
            "the highest number. This matters only if label_values chooses some of them.",
        )
    meta = {"spacing_known": True, "slice_spacing_known": True, ImageMetaKey.FILENAME_OR_OBJ: file}
    return MetaTensor(
        torch.from_numpy(label.values.copy())[None], affine=torch.from_numpy(label.affine.copy()), meta=meta
    )


@contextmanager
def _silence_plugin_warning() -> Iterator[None]:
    """Silence the warning of one of MONAI's readers, all of which LoadImage creates, that a GPU decoder is missing."""
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
            if offset > limit.largest:  # nibabel would read all of it as extensions of the header
                raise ValueError(f"its header says that the voxels begin after {offset} bytes, more than allowed")
            expected = voxels * dtype.itemsize + offset
            found = Path(file).stat().st_size * (LARGEST_DEFLATE_RATIO if file.lower().endswith(".gz") else 1)
            if expected > found:
                raise ValueError(f"it ends before its last voxel: {expected} bytes expected, {found} at most")
        elif is_mgh(file) or is_pair(file):
            check_volume_header(Path(file), limit)
        elif file.lower().endswith((".mha", ".mhd")):
            check_meta_image(Path(file), limit)
        else:
            image = itk.ImageIOFactory.CreateImageIO(file, itk.CommonEnums.IOFileMode_ReadMode)
            if image is not None:  # otherwise reading raises the error
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
        raise ValueError(f"its datatype is {int(header['datatype'])}, which NIfTI does not define")
    return header


def _refuse_cifti(file: str) -> None:
    """Refuse CIFTI-2, which has the suffix and header of NIfTI, but holds values on surfaces and not an image."""
    if not file.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        intent = int(_nifti_header(file)["intent_code"])
    except Exception:  # reading raises the error
        return
    if intent in _CIFTI_INTENTS:
        raise ValueError(
            f"{file}: is CIFTI (intent code {intent}), which holds values on the brain's surface, expected a volume of "
            "voxels. Give the FLAIR image as volumetric NIfTI, for example converted from DICOM with dcm2niix."
        )


def _check_voxel_size(volume: MetaTensor, file: str) -> None:
    """Refuse voxel sizes that no image has: resampling would leave almost nothing, or a huge volume."""
    if not volume.meta.get("spacing_known", True):
        return
    sizes = affine_to_spacing(volume.affine).numpy()
    if min(sizes) < _VOXEL_SIZES[0] or max(sizes) > _VOXEL_SIZES[1] or max(sizes) > _LARGEST_RATIO * min(sizes):
        raise ValueError(
            f"{file}: its voxels are {' x '.join(f'{size:.3g}' for size in sizes)} mm, expected {_VOXEL_SIZES[0]:g} to "
            f"{_VOXEL_SIZES[1]:g} mm and sides within a factor of {_LARGEST_RATIO:g}. It may be in another unit than "
            "mm. Save it again with the affine of its source."
        )


def _check_affine(affine: np.ndarray, file: str) -> None:
    """Check that the affine is finite and invertible, since all geometry depends on it."""
    axes = affine[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < 1e-9:
        raise ValueError(
            f"{file}: its affine {affine[:3].round(3).tolist()} does not give voxels a size. "
            "Save the file again with the affine of its source."
        )
