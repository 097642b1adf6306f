"""Images that a program holds in memory, read like files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import itk
import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.data.utils import correct_nifti_header_if_necessary, orientation_ras_lps, to_affine_nd
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys
from nibabel.spatialimages import SpatialImage

from mri_seg.io.image_files import stem_of
from mri_seg.io.nibabel_files import VolumeReader
from mri_seg.io.slice_reader import slice_affine

__all__ = ["ImageInMemory"]

_ACCEPTED = (
    "the path of a file or of a folder, a list of slice files, an image of nibabel, SimpleITK or ITK, a MetaTensor, or "
    "an array or tensor with affine= or spacing="
)
_ITK_METHODS = ("GetSpacing", "GetOrigin", "GetDirection", "GetNumberOfComponentsPerPixel")
_GEOMETRY_KNOWN = ("spacing_known", "slice_spacing_known", "has_geometry")


class ImageInMemory(ImageReader):
    """A reader of one image that is in memory: it gives the array and metadata that the readers of files would give.

    Axes are those of the library: nibabel's and ITK's are x, y, z, where ITK's NumPy views have z, y, x. Arrays,
    tensors and MetaTensors are a slice ``(H, W)``, a volume ``(H, W, D)``, or several volumes ``(C, H, W, D)``. Voxels
    are copied. Of the metadata, only what says where the voxels lie is taken: the rest may be out of date.

    Args:
        image: an image of nibabel, SimpleITK or ITK, a MetaTensor, an array, or a tensor.
        affine: for an array or tensor, the matrix ``(4, 4)`` from voxels to RAS coordinates in mm.
        spacing: for an array or tensor without an affine, the distance between rows, columns and slices in mm. Rows
            then run to posterior, columns to the patient's left, and slices to superior, as
            :py:class:`~mri_seg.io.slice_reader.SliceReader` has it.

    Attributes:
        name: what messages call the image.

    Raises:
        TypeError: when ``image`` is something else.
        ValueError: when an array has no geometry, another image is given a second one, or the voxels are not real
            numbers.
    """

    def __init__(self, image: Any, *, affine: Sequence | None = None, spacing: Sequence[float] | None = None) -> None:
        super().__init__()
        self.name = f"{type(image).__name__} in memory"
        self.image = image
        given = [name for name, value in (("affine", affine), ("spacing", spacing)) if value is not None]
        if isinstance(image, (SpatialImage, MetaTensor)) or _is_itk(image):
            if given:
                raise ValueError(f"{self.name}: has an affine of its own. Leave out {' and '.join(given)}.")
        elif isinstance(image, (np.ndarray, torch.Tensor)):
            if len(given) != 1:
                raise ValueError(
                    f"{self.name}: does not say where its voxels lie, expected either affine= (4 x 4, from voxels to "
                    "RAS coordinates in mm) or spacing= (distance between rows, columns and slices in mm), got "
                    f"{' and '.join(given) or 'neither'}."
                )
        else:
            raise TypeError(f"found {type(image).__name__}, expected {_ACCEPTED}.")
        self.affine = np.eye(4) if affine is None else self._checked(affine)  # of an array that has no spacing
        self.spacing = None if spacing is None else np.array(spacing, dtype=np.float64)
        if self.spacing is not None and (self.spacing.shape != (3,) or not (self.spacing > 0).all()):
            raise ValueError(f"spacing is {spacing}, expected three positive numbers: rows, columns and slices, in mm.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes, before anything is decoded."""
        return tuple(self.image.GetSize()) if hasattr(self.image, "GetSize") else tuple(np.shape(self.image))

    @property
    def case(self) -> str | None:
        """Name of the file that the image comes from, without suffix; None if it is not known."""
        if isinstance(self.image, SpatialImage):
            file = self.image.get_filename()
        else:
            file = getattr(self.image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ)
        return stem_of(Path(file)) if isinstance(file, str) and file else None

    def verify_suffix(self, filename: Any) -> bool:
        """Whether this reader reads a file: never, since it has its image already."""
        return False

    def read(self, data: Any, **kwargs: Any) -> ImageInMemory:
        """Nothing is read."""
        return self

    def get_data(self, img: Any = None) -> tuple[np.ndarray, dict]:
        """Return the voxels, as a copy in float32, and the metadata, as MONAI's readers do."""
        if isinstance(self.image, SpatialImage):
            array, meta = _from_nibabel(self.image)
        elif _is_itk(self.image):
            array, meta = _from_itk(self.image)
        elif isinstance(self.image, MetaTensor):
            array, meta = _from_meta_tensor(self.image)
        elif self.spacing is None:
            array, meta = _from_array(self.image, self.affine)
        else:
            array, meta = _from_array(self.image, slice_affine(self.spacing.tolist()))
            meta |= {"spacing_known": True, "slice_spacing_known": True, "has_geometry": False}
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{self.name}: holds values of type {array.dtype}, expected real numbers.")
        return np.array(array, dtype=np.float32), meta

    def _checked(self, affine: Any) -> np.ndarray:
        matrix = np.array(affine, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise ValueError(
                f"{self.name}: the affine is {matrix.tolist()}, expected an invertible matrix, 4 x 4, from voxels to "
                "RAS coordinates in mm."
            )
        return matrix


class _NibabelImage(VolumeReader):
    """The reader of nibabel's files, for an image that is not read but given."""

    def __init__(self, image: SpatialImage) -> None:
        super().__init__(squeeze_non_spatial_dims=True)
        file = image.get_filename()
        self.filenames = (file if file and Path(file).is_file() else "",)


def _from_nibabel(image: SpatialImage) -> tuple[np.ndarray, dict]:
    if image.affine is None:
        raise ValueError(f"{type(image).__name__} in memory: has no affine, expected one from voxels to RAS in mm.")
    with_own_header = type(image)(image.dataobj, image.affine, image.header, file_map=image.file_map)
    array, meta = _NibabelImage(image).get_data(correct_nifti_header_if_necessary(with_own_header))
    return np.asanyarray(array), meta


def _is_itk(image: Any) -> bool:
    """Whether it is an image of ITK or SimpleITK; the latter is not among the packages that are installed."""
    return all(hasattr(image, method) for method in _ITK_METHODS)


def _from_itk(image: Any) -> tuple[np.ndarray, dict]:
    """As MONAI's ``ITKReader``, which does not take images of SimpleITK."""
    direction = image.GetDirection()
    if isinstance(direction, tuple):  # SimpleITK
        matrix = np.reshape(direction, (image.GetDimension(), -1))
        view = sys.modules[type(image).__module__.partition(".")[0]].GetArrayViewFromImage(image)
    else:
        matrix = itk.array_from_matrix(direction)
        view = itk.array_view_from_image(image, keep_axes=False)
    array = view.T if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(view.T, 0, -1)
    rank = min(len(matrix), 3)
    affine = np.eye(rank + 1)
    affine[:rank, :rank] = matrix[:rank, :rank] @ np.diag(list(image.GetSpacing())[:rank])
    affine[:rank, -1] = list(image.GetOrigin())[:rank]
    return array, _meta(array.shape[:rank], orientation_ras_lps(affine), None if array.ndim == rank else -1)


def _from_meta_tensor(image: MetaTensor) -> tuple[np.ndarray, dict]:
    affine = to_affine_nd(3, np.asarray(image.affine.cpu(), dtype=np.float64))
    if image.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:
        affine = orientation_ras_lps(affine)
    array, meta = _from_array(image.as_tensor(), affine)
    return array, meta | {key: image.meta[key] for key in _GEOMETRY_KNOWN if key in image.meta}


def _from_array(image: np.ndarray | torch.Tensor, affine: np.ndarray) -> tuple[np.ndarray, dict]:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()  # which NumPy does not have
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim not in (3, 4):
        raise ValueError(
            f"{type(image).__name__} in memory: has {image.ndim} dimensions, expected a slice (H, W), a volume "
            "(H, W, D) or volumes (C, H, W, D)."
        )
    return image, _meta(image.shape[-3:], affine, None if image.ndim == 3 else 0)


def _meta(shape: Sequence[int], affine: np.ndarray, channel_axis: int | None) -> dict[str, Any]:
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if channel_axis is None else channel_axis,  # NaN: no channel
    }
