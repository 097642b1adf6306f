"""DICOM series read as a volume: every form of storing gives the same values in the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from dicom_series import AXIAL, OBLIQUE, ramp, write_multiframe, write_series
from monai.data import MetaTensor
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mri_seg.dicom.reader import DICOMReader

IMAGE = ramp(8, 6, 4) * 3
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
]


def read(files: list[Path] | Path | str) -> tuple[np.ndarray, dict]:
    reader = DICOMReader()
    return reader.get_data(reader.read(files))


class TestVolume:
    @pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
    def test_dicom_volume_and_affine_come_back(self, tmp_path: Path, affine: np.ndarray) -> None:
        volume, meta = read(write_series(tmp_path, IMAGE, affine, shuffled=True, reversed_numbers=True)[::-1])
        assert volume.dtype == np.uint16
        np.testing.assert_array_equal(volume, IMAGE)
        np.testing.assert_allclose(meta["affine"], affine, atol=1e-6)
        np.testing.assert_array_equal(meta["affine"], meta["original_affine"])
        np.testing.assert_array_equal(meta["spatial_shape"], IMAGE.shape)
        assert meta["space"] == "RAS"
        assert meta["spacing_known"]
        assert meta["slice_spacing_known"]

    def test_dicom_volume_is_read_of_frames_in_any_order(self, tmp_path: Path) -> None:
        volume, meta = read(write_multiframe(tmp_path / "a.dcm", IMAGE, frame_order=[2, 0, 3, 1]))
        np.testing.assert_array_equal(volume, IMAGE)
        np.testing.assert_allclose(meta["affine"], AXIAL)

    def test_dicom_volume_of_one_file_has_one_slice(self, tmp_path: Path) -> None:
        volume, _ = read(str(write_series(tmp_path, IMAGE)[2]))
        np.testing.assert_array_equal(volume, IMAGE[..., 2:3])

    def test_dicom_volume_of_unknown_spacing_says_so(self, tmp_path: Path) -> None:
        _, meta = read(write_series(tmp_path, IMAGE, PixelSpacing=None))
        assert not meta["spacing_known"]

    def test_dicom_volume_is_loaded_by_monai(self, tmp_path: Path) -> None:
        write_series(tmp_path, IMAGE)
        loaded = LoadImage(reader=DICOMReader(), ensure_channel_first=True)(tmp_path)
        assert isinstance(loaded, MetaTensor)
        assert loaded.shape == (1, 8, 6, 4)
        assert torch.equal(loaded[0].as_tensor(), torch.from_numpy(IMAGE.astype(np.float32)))
        np.testing.assert_allclose(loaded.affine, AXIAL)


class TestFolder:
    def test_dicom_folder_of_one_series_is_read(self, tmp_path: Path) -> None:
        write_series(tmp_path, IMAGE)
        (tmp_path / "notes.txt").touch()
        (tmp_path / "._IM0000.dcm").touch()
        np.testing.assert_array_equal(read(tmp_path)[0], IMAGE)

    def test_dicom_folder_of_several_series_is_refused(self, tmp_path: Path) -> None:
        write_series(tmp_path, IMAGE, names="a{}.dcm", study_uid="1.2", series_number=1)
        write_series(tmp_path, IMAGE, names="b{}.dcm", study_uid="1.2", series_number=2, description="T1")
        with pytest.raises(ValueError, match=r'holds 2 MR series, expected one.*\n.*"AX FLAIR".*\n.*"T1"'):
            read(tmp_path)

    def test_dicom_folder_without_series_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="holds 0 MR series"):
            read(tmp_path)


class TestVerifySuffix:
    def test_verify_suffix_takes_dicom_files_and_folders_alone(self, tmp_path: Path) -> None:
        reader = DICOMReader()
        files = write_series(tmp_path / "series", IMAGE, names="IM{}")
        (tmp_path / "empty").mkdir()
        assert reader.verify_suffix(files)
        assert reader.verify_suffix(str(files[0]))
        assert reader.verify_suffix(tmp_path / "series")
        assert reader.verify_suffix("a.dcm")
        assert not reader.verify_suffix(tmp_path / "empty")
        assert not reader.verify_suffix([*files, "a.nii.gz"])


class TestTransferSyntax:
    @pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
    @pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8])
    def test_transfer_syntax_makes_no_difference(self, tmp_path: Path, syntax: str, dtype: type) -> None:
        image = (IMAGE[..., :2] - (50 if dtype == np.int16 else 0)).astype(dtype)
        for files in (
            write_series(tmp_path, image, transfer_syntax=syntax),
            write_multiframe(tmp_path / "a.dcm", image, transfer_syntax=syntax, frame_order=[1, 0]),
        ):
            volume, _ = read(files)
            assert volume.dtype == dtype
            np.testing.assert_array_equal(volume, image)

    def test_transfer_syntax_that_is_not_decoded_is_named(self, tmp_path: Path) -> None:
        (file,) = write_series(tmp_path, IMAGE[..., :1], transfer_syntax=RLELossless)
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        data.save_as(file)
        message = r"IM0000\.dcm: .*High-Throughput JPEG 2000.*1\.2\.840\.10008\.1\.2\.4\.201.*Convert the file"
        with pytest.raises(ValueError, match=message):
            read(file)

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, RLELossless])
    @pytest.mark.parametrize("kept", [0.5, 0.95])
    def test_transfer_syntax_of_a_file_cut_short_is_refused(self, tmp_path: Path, syntax: str, kept: float) -> None:
        noise = np.random.default_rng(0).integers(0, 1000, (64, 64, 1)).astype(np.uint16)
        (file,) = write_series(tmp_path, noise, transfer_syntax=syntax)
        content = file.read_bytes()
        file.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(ValueError, match=r"IM0000\.dcm: .*truncated"):
            read(file)


class TestValues:
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=lambda syntax: syntax.keyword)
    def test_dicom_values_follow_the_rescale_of_each_file(self, tmp_path: Path, syntax: str) -> None:
        header = {"RescaleSlope": lambda k: 0.5 + k, "RescaleIntercept": lambda k: -3 * k}
        volume, _ = read(write_series(tmp_path, IMAGE, transfer_syntax=syntax, **header))
        assert volume.dtype == np.float32
        k = np.arange(4)
        np.testing.assert_allclose(volume, IMAGE * (0.5 + k) - 3 * k)

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=lambda syntax: syntax.keyword)
    def test_dicom_values_follow_the_rescale_of_each_frame(self, tmp_path: Path, syntax: str) -> None:
        rescale = [(2.0, 1.0), (2.0, 1.0), (1.0, 0.0), (0.25, -7.0)]
        file = write_multiframe(
            tmp_path / "a.dcm", IMAGE, transfer_syntax=syntax, rescale=rescale, frame_order=[3, 1, 0, 2]
        )
        slope, intercept = np.array(rescale).T
        np.testing.assert_allclose(read(file)[0], IMAGE * slope + intercept)

    def test_dicom_values_stay_integers_where_the_rescale_does_nothing(self, tmp_path: Path) -> None:
        volume, _ = read(write_series(tmp_path, IMAGE, RescaleSlope=1, RescaleIntercept=0))
        assert volume.dtype == np.uint16

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=lambda syntax: syntax.keyword)
    @pytest.mark.parametrize("dtype", [np.uint16, np.int16])
    def test_dicom_values_of_monochrome1_are_inverted(self, tmp_path: Path, syntax: str, dtype: type) -> None:
        image = IMAGE.astype(np.int64)
        image[0, 0, 0] = 30000  # inverting overflows 16 bits in between
        image[0, 1, 0] = -30000 if dtype == np.int16 else 0
        files = write_series(
            tmp_path, image.astype(dtype), transfer_syntax=syntax, PhotometricInterpretation="MONOCHROME1"
        )
        volume, _ = read(files)
        assert volume.dtype == dtype
        np.testing.assert_array_equal(volume, image.max() + image.min() - image)

    def test_dicom_values_of_both_kinds_of_monochrome_are_refused(self, tmp_path: Path) -> None:
        kinds = {"PhotometricInterpretation": lambda k: f"MONOCHROME{2 if k < 3 else 1}"}
        with pytest.raises(ValueError, match=r"IM0003\.dcm: differs from .*PhotometricInterpretation"):
            read(write_series(tmp_path, IMAGE, **kinds))

    @pytest.mark.parametrize("signed", [False, True])
    def test_dicom_values_are_free_of_overlays_in_unused_bits(self, tmp_path: Path, signed: bool) -> None:
        image = IMAGE.astype(np.int16) - (50 if signed else 0)
        stored = (image & 0x0FFF) | 0x7000
        header = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
        np.testing.assert_array_equal(read(write_series(tmp_path, stored, **header))[0], image)

    @pytest.mark.parametrize(
        "header", [{"PhotometricInterpretation": "PALETTE COLOR"}, {"SamplesPerPixel": 3}], ids=["palette", "RGB"]
    )
    def test_dicom_values_of_colours_are_refused(self, tmp_path: Path, header: dict) -> None:
        with pytest.raises(ValueError, match=r"IM0000\.dcm: is a color image"):
            read(write_series(tmp_path, IMAGE, **header))

    def test_dicom_values_that_are_missing_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"IM0000\.dcm: holds no pixels"):
            read(write_series(tmp_path, IMAGE, PixelData=None))


class TestFilesOfOthers:
    """Files that pydicom ships, one image in many forms."""

    @pytest.mark.parametrize(
        "name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]
    )
    def test_dicom_files_of_others_are_read_alike(self, name: str) -> None:
        path = _shipped(f"MR_small_{name}.dcm")
        reference = pydicom.dcmread(_shipped("MR_small.dcm")).pixel_array
        np.testing.assert_array_equal(read(path)[0][..., 0], reference)

    def test_dicom_files_of_others_that_are_cut_short_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"MR_truncated\.dcm: pixels cannot be decoded .*truncated"):
            read(_shipped("MR_truncated.dcm"))


def _shipped(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not ship {name} here")
    return Path(path)


def test_any_volume_and_affine_come_back(tmp_path: Path) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.settings(max_examples=25, deadline=None, database=None, derandomize=True)
    @hypothesis.given(
        quaternion=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
        spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.5, 10)),
        origin=st.tuples(*[st.floats(-300, 300)] * 3),
        shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 5)),
        dtype=st.sampled_from([np.uint8, np.int16, np.uint16]),
        mirrored=st.booleans(),
        shuffled=st.booleans(),
        multiframe=st.booleans(),
        seed=st.integers(0, 2**16),
    )
    def check(quaternion, spacing, origin, shape, dtype, mirrored, shuffled, multiframe, seed) -> None:
        affine = np.eye(4)
        affine[:3, :3] = _rotation(np.array(quaternion)) * spacing
        affine[:3, 3] = origin
        if mirrored:
            affine[:3, 2] *= -1
        draw = np.random.default_rng(seed)
        image = draw.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        if multiframe:
            order = draw.permutation(shape[2]) if shuffled else None
            files = write_multiframe(tmp_path / "a.dcm", image, affine, frame_order=order)
        else:
            files = write_series(tmp_path, image, affine, shuffled=shuffled)
        volume, meta = read(files)
        # The reader goes along rows x columns in LPS; in RAS that product, taken (columns, rows, slices), is positive.
        if np.linalg.det(affine[:3, [1, 0, 2]]) < 0:
            flip = np.diag([1.0, 1.0, -1.0, 1.0])
            flip[2, 3] = shape[2] - 1
            image, affine = image[..., ::-1], affine @ flip
        np.testing.assert_array_equal(volume, image)
        np.testing.assert_allclose(meta["affine"], affine, atol=1e-4)

    check()


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
