"""Volumes of any format as the configs load them, with their case and files."""

from __future__ import annotations

import gzip
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from tiff_slices import SHAPE, grey, write, write_slices

from mri_seg.io.load import LoadVolumed


class TestLoadVolumed:
    @pytest.fixture
    def nifti(self, tmp_path: Path) -> Path:
        affine = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 6], [0, 0, 3, -7], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(4, 3, 2), affine), tmp_path / "head.v2.nii.gz")
        return tmp_path / "head.v2.nii.gz"

    def test_load_volume_gives_volumes_with_their_case_and_files(self, tmp_path: Path) -> None:
        files = write_slices(tmp_path)
        image = LoadVolumed("image")({"case": "patient 1", "image": files})["image"]
        assert image.shape == (1, *SHAPE, 3)
        assert image.meta["case"] == "patient 1"
        assert image.meta["files"].split("\n") == [str(file) for file in files]
        assert image.meta["spacing_known"] is False

    def test_load_volume_names_the_case_after_the_file_where_none_is_given(self, nifti: Path) -> None:
        assert LoadVolumed("image")({"image": nifti})["image"].meta["case"] == "head"

    def test_load_volume_takes_the_case_from_the_key_asked_for(self, nifti: Path) -> None:
        loaded = LoadVolumed("image", case_key="subject")({"subject": "S1", "image": nifti})
        assert loaded["image"].meta["case"] == "S1"

    def test_load_volume_reads_dicom_folders_as_itk_does(self, tmp_path: Path) -> None:
        volume = np.arange(5 * 8 * 6, dtype=np.uint16).reshape(5, 8, 6)  # (D, H, W), as ITK counts
        for k, pixels in enumerate(volume):
            image = itk.image_from_array(pixels[None])
            image.SetSpacing([0.8, 0.9, 5.0])
            image.SetOrigin([0.0, 0.0, 5.0 * k])
            tags = image.GetMetaDataDictionary()
            tags["0020|000e"], tags["0020|000d"], tags["0008|0018"] = "1.2.3.4.5", "1.2.3.4", f"1.2.3.4.5.{k}"
            tags["0008|0060"], tags["0008|0021"] = "MR", "20200101"
            tags["0020|0032"], tags["0020|0037"] = f"0\\0\\{5 * k}", "1\\0\\0\\0\\1\\0"
            dicom = itk.GDCMImageIO.New()
            dicom.KeepOriginalUIDOn()
            itk.imwrite(image, str(tmp_path / f"{k}.dcm"), imageio=dicom)
        image = LoadVolumed("image")({"case": "d", "image": tmp_path})["image"]
        np.testing.assert_array_equal(image[0].numpy().transpose(2, 0, 1), volume)
        assert nib.aff2axcodes(image.affine.numpy()) == ("P", "L", "S")
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine.numpy()), (0.9, 0.8, 5.0))

    def test_load_volume_leaves_other_files_to_monai_with_their_geometry(self, nifti: Path) -> None:
        image = LoadVolumed("image")({"image": str(nifti)})["image"]
        np.testing.assert_allclose(image.affine, nib.load(nifti).affine, atol=1e-6)
        np.testing.assert_array_equal(image[0], nib.load(nifti).get_fdata())
        assert image.meta.get("spacing_known", True)

    def test_load_volume_reads_image_and_label(self, tmp_path: Path) -> None:
        image, label = write_slices(tmp_path, 2), [write(tmp_path / f"m{n}.tif", grey(n)) for n in range(2)]
        loaded = LoadVolumed(["image", "label"])({"image": image, "label": label})
        assert loaded["label"].shape == loaded["image"].shape
        assert isinstance(loaded["label"], MetaTensor)

    def test_load_volume_passes_arguments_to_the_reader(self, tmp_path: Path) -> None:
        case = {"image": write_slices(tmp_path, 1)}
        image = LoadVolumed("image", channel=2, spacing=(1, 1, 5.0))(case)["image"]
        assert image[0, 0, 0, 0] == 150
        assert image.affine[2, 2] == 5

    @pytest.mark.parametrize("content", [b"", b"II*\0damaged"])
    def test_load_volume_gives_the_error_of_the_tiff_reader_for_a_damaged_slice(
        self, tmp_path: Path, content: bytes
    ) -> None:
        files = write_slices(tmp_path)
        files[1].write_bytes(content)
        with pytest.raises(ValueError, match=r"case_1\.tif: .*Copy the file again"):
            LoadVolumed("image")({"image": files})

    def test_load_volume_names_a_missing_slice(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"gone\.tif: no such file"):
            LoadVolumed("image")({"image": [*write_slices(tmp_path), tmp_path / "gone.tif"]})

    @pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
    def test_load_volume_reads_other_formats_in_the_same_geometry(
        self, tmp_path: Path, nifti: Path, suffix: str
    ) -> None:
        itk.imwrite(itk.imread(str(nifti)), str(tmp_path / f"copy.{suffix}"))
        expected, image = (LoadVolumed("image")({"image": f})["image"] for f in (nifti, tmp_path / f"copy.{suffix}"))
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-5)
        np.testing.assert_array_equal(image, expected)

    def test_load_volume_takes_one_slice_as_a_volume(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Image(np.ones((5, 4), np.float32), np.diag([2.0, 3, 4, 1])), tmp_path / "a.nii")
        image = LoadVolumed("image")({"image": tmp_path / "a.nii"})["image"]
        assert image.shape == (1, 5, 4, 1)
        assert image.affine.shape == (4, 4)

    def test_load_volume_asks_which_of_several_volumes(self, tmp_path: Path) -> None:
        volumes = np.arange(5 * 4 * 3 * 2, dtype=np.float32).reshape(5, 4, 3, 2)
        nib.save(nib.Nifti1Image(volumes, np.eye(4)), tmp_path / "a.nii")
        case = {"image": tmp_path / "a.nii"}
        with pytest.raises(ValueError, match=r"a\.nii: holds 2 volumes, expected one.*`--volume`, 0 to 1"):
            LoadVolumed("image")(case)
        with pytest.raises(ValueError, match="must be 0 to 1, got 2"):
            LoadVolumed("image", volume=2)(case)
        np.testing.assert_array_equal(LoadVolumed("image", volume=1)(case)["image"][0], volumes[..., 1])

    @pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1, 1, np.nan, 1])])
    def test_load_volume_refuses_an_affine_without_size(self, tmp_path: Path, affine: np.ndarray) -> None:
        image = nib.Nifti1Image(np.ones((4, 4, 2), np.float32), None)
        image.header["sform_code"] = 1
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = affine[row]
        nib.save(image, tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"a\.nii: .*affine"):
            LoadVolumed("image")({"image": tmp_path / "a.nii"})

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.dcm"])
    @pytest.mark.parametrize("content", [b"", b"damaged"])
    def test_load_volume_names_a_damaged_file_of_any_kind(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: .*[Cc]opy the file again"):
            LoadVolumed("image")({"image": [tmp_path / name]})

    def test_load_volume_passes_over_missing_keys_where_allowed(self, tmp_path: Path) -> None:
        case = {"image": write_slices(tmp_path)}
        loaded = LoadVolumed(["image", "label"], allow_missing_keys=True)(case)
        assert "label" not in loaded
        assert loaded["image"].shape == (1, *SHAPE, 3)

    def test_load_volume_refuses_missing_keys_otherwise(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError, match="label"):
            LoadVolumed(["image", "label"])({"image": write_slices(tmp_path)})


class TestCifti:
    @pytest.mark.parametrize("name", ["a.dscalar.nii", "a.dtseries.nii", "renamed.nii.gz"])
    def test_cifti_is_refused_by_what_it_is(self, tmp_path: Path, name: str) -> None:
        from nibabel import cifti2

        brain = cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2)), affine=np.eye(4), name="thalamus_left")
        rows = cifti2.SeriesAxis(0, 1, 3) if "dtseries" in name else cifti2.ScalarAxis(["a", "b", "c"])
        cifti2.Cifti2Image(np.zeros((3, 8), np.float32), (rows, brain)).to_filename(tmp_path / "a.nii")
        content = (tmp_path / "a.nii").read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(ValueError, match=rf"{name}: is CIFTI .*expected a volume of voxels\. Give the FLAIR image"):
            LoadVolumed("image")({"image": tmp_path / name})
