"""FreeSurfer's and Analyze's volumes: what they hold, where they lie, and what is refused before it is decoded."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mri_seg.io.cases import find_cases
from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.volume import RequireImaged
from mri_seg.utils.case_flags import case_flags

AFFINE = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 6], [0, 0, 3, -7], [0, 0, 0, 1]])
VOXELS = np.arange(8 * 6 * 4, dtype=np.int16).reshape(8, 6, 4)


def mgh(file: Path, voxels: np.ndarray = VOXELS, dims: tuple[int, ...] | None = None) -> Path:
    """An MGH or MGZ file, whose header may declare another size than it has."""
    plain = file.with_suffix(".mgh")
    nib.save(nib.MGHImage(voxels, AFFINE), plain)
    content = bytearray(plain.read_bytes())
    plain.unlink()
    if dims is not None:
        content[4:16] = np.array(dims, ">i4").tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".mgz" else content)
    return file


def read(file: Path, **options: object):
    return LoadVolumed("image", **options)({"image": [str(file)]})["image"]


class TestMGH:
    @pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
    def test_mgh_gives_voxels_and_affine_of_the_file(self, tmp_path: Path, name: str, dtype: type) -> None:
        image = read(mgh(tmp_path / name, VOXELS.astype(dtype)))
        np.testing.assert_array_equal(image[0], VOXELS)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)

    def test_mgh_of_several_volumes_asks_for_one(self, tmp_path: Path) -> None:
        file = mgh(tmp_path / "a.mgz", np.stack([VOXELS, VOXELS + 1], axis=-1))
        with pytest.raises(ValueError, match=r"a\.mgz: holds 2 volumes"):
            read(file)
        np.testing.assert_array_equal(read(file, volume=1)[0], VOXELS + 1)

    @pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
    def test_mgh_that_declares_too_much_is_refused_by_its_header(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match=r"declares 5000 x 5000 x 5000 x 1 voxels.*--max_voxels"):
            read(mgh(tmp_path / name, dims=(5000, 5000, 5000)))

    @pytest.mark.parametrize("dims", [(500, 500, 500), (0, 6, 4), (-8, 6, 4)])
    def test_mgh_that_cannot_hold_what_it_declares_is_refused(self, tmp_path: Path, dims: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"a\.mgz: cannot be read"):
            read(mgh(tmp_path / "a.mgz", dims=dims))

    @pytest.mark.parametrize("size", [0, 50, 200])
    def test_mgh_cut_short_is_refused(self, tmp_path: Path, size: int) -> None:
        file = mgh(tmp_path / "a.mgh")
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"a\.mgh: cannot be read .*Copy the file again"):
            read(file)

    def test_mgh_without_directions_is_flagged(self, tmp_path: Path) -> None:
        file = mgh(tmp_path / "a.mgh")
        content = bytearray(file.read_bytes())
        content[28:30] = b"\0\0"  # goodRASFlag
        file.write_bytes(content)
        image = RequireImaged("image")({"image": read(file)})["image"]
        assert [flag["name"] for flag in case_flags(image.meta)] == ["orientation_unknown"]


class TestPairs:
    @pytest.mark.parametrize("half", ["img", "hdr"])
    @pytest.mark.parametrize("packed", ["", ".gz"])
    def test_pairs_of_nifti_give_voxels_and_affine_of_either_half(self, tmp_path: Path, half: str, packed: str) -> None:
        nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / f"a.img{packed}")
        image = read(tmp_path / f"a.{half}{packed}")
        np.testing.assert_array_equal(image[0], VOXELS)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
        assert not case_flags(RequireImaged("image")({"image": image})["image"].meta)

    def test_pairs_of_analyze_give_voxels_and_size_and_a_flag_that_the_side_is_not_known(self, tmp_path: Path) -> None:
        nib.save(nib.AnalyzeImage(VOXELS, np.diag([0.9, 0.8, 3, 1])), tmp_path / "a.img")
        image = RequireImaged("image")({"image": read(tmp_path / "a.img")})["image"]
        np.testing.assert_array_equal(image[0], VOXELS)
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine.numpy()), (0.9, 0.8, 3), rtol=1e-6)
        assert [flag["name"] for flag in case_flags(image.meta)] == ["orientation_unknown"]

    def test_pairs_that_declare_too_much_are_refused_by_their_header(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "a.img")
        header = bytearray((tmp_path / "a.hdr").read_bytes())
        header[42:48] = np.array([5000, 5000, 5000], "<i2").tobytes()
        (tmp_path / "a.hdr").write_bytes(header)
        with pytest.raises(ValueError, match="declares 5000 x 5000 x 5000 voxels"):
            read(tmp_path / "a.img")

    def test_pairs_whose_image_ends_early_are_refused(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "a.img")
        (tmp_path / "a.img").write_bytes(b"\0" * 100)
        with pytest.raises(ValueError, match="ends before its last voxel: 384 bytes expected, 100 at most"):
            read(tmp_path / "a.hdr")

    def test_pairs_without_the_other_half_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.img").write_bytes(b"\0" * 100)
        with pytest.raises(ValueError, match=r"a\.img: .*other file of the pair"):
            read(tmp_path / "a.img")


class TestFinding:
    def test_finding_gives_a_case_for_each_file_or_pair(self, tmp_path: Path) -> None:
        for name in ("a.mgz", "b.MGH", "c.hdr", "c.img", "d.img.gz", "d.hdr.gz"):
            (tmp_path / name).touch()
        assert [case["image"] for case in find_cases(tmp_path)] == [
            [str(tmp_path / name)] for name in ("a.mgz", "b.MGH", "c.img", "d.img.gz")
        ]

    @pytest.mark.parametrize("name", ["c.hdr", "c.img"])
    def test_finding_takes_either_half_of_a_pair_that_is_given(self, tmp_path: Path, name: str) -> None:
        nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "c.img")
        (case,) = find_cases(tmp_path / name)
        np.testing.assert_array_equal(LoadVolumed("image")(case)["image"][0], VOXELS)

    def test_finding_a_lone_image_file_may_give_dicom(self, tmp_path: Path) -> None:
        from dicom_series import ramp, write_series

        files = write_series(tmp_path, ramp(4, 3, 3), names="IM{}.img")
        (case,) = find_cases(tmp_path)
        assert (case["source"], sorted(case["image"])) == ("dicom", sorted(map(str, files)))
