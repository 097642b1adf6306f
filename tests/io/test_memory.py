"""Images in memory: they are read as files of the same content are."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from nibabel.eulerangles import euler2mat
from tiff_slices import grey, write

from mri_seg.io.load import LoadVolumed
from mri_seg.io.memory import ImageInMemory

SHAPE = (6, 5, 4)
AFFINE = np.eye(4)
AFFINE[:3, :3] = euler2mat(x=0.12, y=-0.08, z=0.05) @ np.array([[0, -0.75, 0], [-1.5, 0, 0], [0, 0, 4.0]])
AFFINE[:3, 3] = (3, 5, -7)
SPACING = (0.75, 0.5, 4.0)


def voxels(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 3 - 20).astype(dtype)


def load(image: Any, **options: Any) -> MetaTensor:
    return LoadVolumed("image", **options)({"image": image})["image"]


def from_memory(image: Any, affine: Any = None, spacing: Any = None, **options: Any) -> MetaTensor:
    return load(ImageInMemory(image, affine=affine, spacing=spacing), **options)


def simple_itk(image: Any) -> Any:
    """An image with the methods of SimpleITK's, which return tuples, of an image of ITK."""

    class Image:
        def GetDimension(self) -> int:
            return image.GetImageDimension()

        def GetNumberOfComponentsPerPixel(self) -> int:
            return image.GetNumberOfComponentsPerPixel()

        def GetSize(self) -> tuple:
            return tuple(itk.size(image))

        def GetSpacing(self) -> tuple:
            return tuple(image.GetSpacing())

        def GetOrigin(self) -> tuple:
            return tuple(image.GetOrigin())

        def GetDirection(self) -> tuple:
            return tuple(itk.array_from_matrix(image.GetDirection()).ravel())

    Image.__module__ = "SimpleITK"
    return Image()


@pytest.fixture
def no_simple_itk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in place of SimpleITK, for those who do not have it."""
    module = types.ModuleType("SimpleITK")
    module.GetArrayViewFromImage = lambda image: voxels(*SHAPE).T  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "SimpleITK", module)


def nifti(folder: Path, code: int = 1) -> Path:
    image = nib.Nifti1Image(voxels(*SHAPE), AFFINE)
    image.set_sform(AFFINE, code=code)
    image.set_qform(AFFINE, code=code)
    nib.save(image, folder / "a.nii.gz")
    return folder / "a.nii.gz"


def mgz(folder: Path) -> Path:
    nib.save(nib.MGHImage(voxels(*SHAPE, dtype=np.float32), AFFINE), folder / "a.mgz")
    return folder / "a.mgz"


def analyze(folder: Path) -> Path:
    nib.save(nib.AnalyzeImage(voxels(*SHAPE), AFFINE), folder / "a.img")
    return folder / "a.img"


def nrrd(folder: Path) -> Path:
    itk.imwrite(itk.imread(str(nifti(folder))), str(folder / "a.nrrd"))
    return folder / "a.nrrd"


IMAGES: dict[str, tuple[Callable, Callable]] = {
    "NIfTI by nibabel": (nifti, nib.load),
    "NIfTI without orientation": (lambda folder: nifti(folder, code=0), nib.load),
    "NIfTI made in memory": (nifti, lambda file: nib.Nifti1Image(voxels(*SHAPE), nib.load(file).affine)),
    "MGZ by nibabel": (mgz, nib.load),
    "Analyze by nibabel": (analyze, nib.load),
    "ITK": (nrrd, lambda file: itk.imread(str(file))),
    "MetaTensor": (nifti, lambda file: LoadImage()(file)),
    "MetaTensor of ITK's axes": (nrrd, lambda file: LoadImage(reader="ITKReader", affine_lps_to_ras=False)(file)),
    "MetaTensor with a channel": (nifti, lambda file: LoadImage(ensure_channel_first=True)(file)),
}


class TestGeometry:
    @pytest.mark.parametrize("kind", IMAGES)
    def test_image_in_memory_gives_the_volume_of_its_file(self, kind: str, tmp_path: Path) -> None:
        make, read = IMAGES[kind]
        file = make(tmp_path)
        expected, found = load(file), from_memory(read(file))
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_array_equal(found.affine, expected.affine)
        assert found.dtype == expected.dtype
        assert found.meta.get("orientation_known") == expected.meta.get("orientation_known")

    @pytest.mark.parametrize("code", [0, 1])
    def test_image_of_nibabel_keeps_what_its_file_says_of_its_orientation(self, code: int, tmp_path: Path) -> None:
        found = from_memory(nib.load(nifti(tmp_path, code=code)))
        assert (int(found.meta["qform_code"]), int(found.meta["sform_code"])) == (code, code)

    def test_image_of_simple_itk_gives_the_volume_of_its_file(self, tmp_path: Path, no_simple_itk: None) -> None:
        file = nrrd(tmp_path)
        expected, found = load(file), from_memory(simple_itk(itk.imread(str(file))))
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_array_equal(found.affine, expected.affine)

    def test_image_of_the_real_simple_itk_gives_the_volume_of_its_file(self, tmp_path: Path) -> None:
        sitk = pytest.importorskip("SimpleITK")
        file = nrrd(tmp_path)
        expected, found = load(file), from_memory(sitk.ReadImage(str(file)))
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-12)

    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_array_with_an_affine_gives_the_volume_of_a_file_with_it(self, make: Callable, tmp_path: Path) -> None:
        expected, found = load(nifti(tmp_path)), from_memory(make(voxels(*SHAPE)), affine=AFFINE)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)

    def test_array_with_a_spacing_lies_as_slices_do(self, tmp_path: Path) -> None:
        slices = [grey(n) for n in range(3)]
        files = [write(tmp_path / f"x_{n}.tif", pixels) for n, pixels in enumerate(slices)]
        expected, found = load(files, spacing=SPACING), from_memory(np.stack(slices, axis=-1), spacing=SPACING)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_array_equal(found.affine, expected.affine)
        for key in ("spacing_known", "slice_spacing_known", "has_geometry"):
            assert found.meta[key] == expected.meta[key]

    def test_one_slice_is_a_volume_of_one_slice(self) -> None:
        assert from_memory(grey(), spacing=SPACING).shape == (1, *grey().shape, 1)

    def test_metadata_of_an_image_that_was_turned_are_not_taken_for_its_affine(self, tmp_path: Path) -> None:
        image = LoadImage()(nifti(tmp_path))
        affine = np.asarray(image.affine) @ np.diag([-1.0, 1, 1, 1])
        turned = MetaTensor(image.as_tensor().flip(0), meta={**image.meta, "affine": torch.from_numpy(affine)})
        found = from_memory(turned)
        np.testing.assert_array_equal(found.affine, turned.affine)
        assert "qform_code" not in found.meta  # that of the file is of another grid


class TestVolumes:
    @pytest.mark.parametrize(
        ("make", "options"),
        [
            (lambda array: nib.Nifti1Image(array, AFFINE), {}),
            (lambda array: np.moveaxis(array, -1, 0), {"affine": AFFINE}),
        ],
        ids=["nibabel, volumes last", "array, volumes first"],
    )
    def test_volume_chooses_from_several_in_memory(self, make: Callable, options: dict) -> None:
        array = voxels(*SHAPE, 2)
        np.testing.assert_array_equal(from_memory(make(array), **options, volume=1)[0], array[..., 1])
        with pytest.raises(ValueError, match="in memory: holds 2 volumes, expected one"):
            from_memory(make(array), **options)


class TestVoxels:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, ">i2", ">f4", np.float32])
    def test_voxels_of_any_type_are_copied_as_float32(self, dtype: Any) -> None:
        array = voxels(*SHAPE).clip(0).astype(dtype)
        found = from_memory(array, affine=AFFINE)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found[0], array.astype(np.float32))
        before = array.copy()
        found[:] = 0
        np.testing.assert_array_equal(array, before)

    def test_tensor_in_bfloat16_is_read(self) -> None:
        tensor = torch.arange(120.0).reshape(SHAPE).to(torch.bfloat16)
        assert from_memory(tensor, affine=AFFINE).equal(tensor.float()[None])

    def test_large_image_beyond_the_limit_is_refused_before_it_is_copied(self) -> None:
        array = np.broadcast_to(np.zeros(1, np.uint8), (2000, 2000, 2000))
        with pytest.raises(ValueError, match=r"2000 x 2000 x 2000 voxels.*max_voxels"):
            from_memory(array, affine=AFFINE)


class TestErrors:
    @pytest.mark.parametrize(
        ("image", "options", "message"),
        [
            (voxels(*SHAPE), {}, "ndarray in memory: does not say where its voxels lie.*neither"),
            (voxels(*SHAPE), {"affine": AFFINE, "spacing": SPACING}, "got affine and spacing"),
            (voxels(*SHAPE), {"affine": np.eye(3)}, "expected an invertible matrix, 4 x 4"),
            (voxels(*SHAPE), {"affine": np.zeros((4, 4))}, "expected an invertible matrix"),
            (voxels(*SHAPE), {"spacing": (1, 0, 5)}, "expected three positive numbers"),
            (voxels(*SHAPE), {"spacing": 5}, "expected three positive numbers"),
            (voxels(*SHAPE).astype(complex), {"affine": AFFINE}, "values of type complex128, expected real numbers"),
            (np.full(SHAPE, np.nan), {"affine": AFFINE}, "only NaN and infinity"),
            (voxels(120), {"affine": AFFINE}, "has 1 dimensions"),
            (voxels(*SHAPE), {"affine": np.diag([900.0, 900, 900, 1])}, "voxels are 900 x 900 x 900 mm"),
            (nib.Nifti1Image(voxels(*SHAPE), AFFINE), {"affine": AFFINE}, "an affine of its own. Leave out affine"),
            (MetaTensor(torch.ones(SHAPE)), {"spacing": SPACING}, "Leave out spacing"),
        ],
    )
    def test_what_is_no_volume_in_space_is_refused(self, image: Any, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            from_memory(image, **options)

    @pytest.mark.parametrize("image", [3.0, {"image": 1}, nib.Cifti2Image], ids=["number", "dict", "class"])
    def test_what_is_no_image_is_a_type_error_that_says_what_is_taken(self, image: Any) -> None:
        with pytest.raises(TypeError, match=r"expected the path of a file.*MetaTensor"):
            ImageInMemory(image)
