"""TIFF slices read as a volume: what is taken, what is refused, and where the volume lies in space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage, SaveImage
from PIL import Image
from tiff_slices import SHAPE, colours, grey, write, write_slices

from mri_seg.io.slice_reader import SliceReader


def read(files: Sequence[Path | str] | Path | str, **options: object) -> tuple[np.ndarray, dict]:
    reader = SliceReader(**options)
    return reader.get_data(reader.read(files))


class TestVolume:
    def test_slice_reader_stacks_a_list_of_files_in_the_order_given(self, tmp_path: Path) -> None:
        files = write_slices(tmp_path)
        volume, _ = read([files[2], files[0], files[1]])
        np.testing.assert_array_equal(volume, np.stack([grey(2), grey(0), grey(1)], axis=-1))

    @pytest.mark.parametrize("kind", [Path, str])
    def test_slice_reader_takes_one_file_as_a_volume_of_one_slice(self, tmp_path: Path, kind: type) -> None:
        (file,) = write_slices(tmp_path, 1)
        volume, _ = read(kind(file))
        np.testing.assert_array_equal(volume, grey()[..., None])

    def test_slice_reader_takes_every_page_of_one_file(self, tmp_path: Path) -> None:
        pages = np.stack([grey(n) for n in range(5)])
        volume, _ = read(write(tmp_path / "case.tif", pages))
        np.testing.assert_array_equal(volume, pages.transpose(1, 2, 0))

    def test_slice_reader_takes_every_page_of_files_of_several_pages(self, tmp_path: Path) -> None:
        files = [write(tmp_path / f"{n}.tif", np.stack([grey(2 * n), grey(2 * n + 1)])) for n in range(2)]
        volume, _ = read(files)
        np.testing.assert_array_equal(volume, np.stack([grey(n) for n in range(4)], axis=-1))

    def test_slice_reader_takes_pages_with_channels(self, tmp_path: Path) -> None:
        pages = np.stack([colours(n) for n in range(2)])
        volume, _ = read(write(tmp_path / "case.tif", pages, photometric="rgb"))
        np.testing.assert_array_equal(volume, np.stack([grey(0), grey(1)], axis=-1))

    def test_slice_reader_does_not_mind_how_the_file_is_named(self, tmp_path: Path) -> None:
        assert read(write(tmp_path / "CASE.1 (a) é.TIFF", grey()))[0].shape == (*SHAPE, 1)

    @pytest.mark.parametrize(("name", "taken"), [("a.tif", True), ("A.TIFF", True), ("a.nii.gz", False), ("a", False)])
    def test_slice_reader_verifies_names_of_tiff_alone(self, name: str, taken: bool) -> None:
        assert SliceReader().verify_suffix(name) is taken
        assert SliceReader().verify_suffix(["first.tif", name]) is taken


class TestChannel:
    def test_slice_reader_takes_flair_by_default(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", colours(), photometric="rgb")
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    @pytest.mark.parametrize(("channel", "offset"), [(0, 100), (2, 150)])
    def test_slice_reader_takes_the_channel_asked_for(self, tmp_path: Path, channel: int, offset: int) -> None:
        file = write(tmp_path / "a.tif", colours(), photometric="rgb")
        np.testing.assert_array_equal(read(file, channel=channel)[0][..., 0], grey() + offset)

    @pytest.mark.parametrize("channel", [0, 1, 7])
    def test_slice_reader_takes_a_single_channel_as_flair_whatever_is_asked_for(
        self, tmp_path: Path, channel: int
    ) -> None:
        file = write(tmp_path / "a.tif", grey())
        np.testing.assert_array_equal(read(file, channel=channel)[0][..., 0], grey())

    def test_slice_reader_passes_over_the_opacity_of_a_grey_image(self, tmp_path: Path) -> None:
        pixels = np.stack([grey(), np.full(SHAPE, 255, np.uint8)], axis=-1)
        file = write(tmp_path / "a.tif", pixels, planarconfig="contig", extrasamples=["unassalpha"])
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    def test_slice_reader_passes_over_the_opacity_of_a_colour_image(self, tmp_path: Path) -> None:
        pixels = np.concatenate([colours(), np.full((*SHAPE, 1), 255, np.uint8)], axis=-1)
        file = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    def test_slice_reader_takes_channels_one_after_the_other(self, tmp_path: Path) -> None:
        pixels = np.moveaxis(colours(), -1, 0).copy()
        file = write(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="separate")
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    @pytest.mark.parametrize("layout", ["contig", "separate"])
    def test_slice_reader_takes_flair_of_three_sequences_not_marked_as_colours(
        self, tmp_path: Path, layout: str
    ) -> None:
        pixels = colours() if layout == "contig" else np.moveaxis(colours(), -1, 0).copy()
        file = write(tmp_path / "a.tif", pixels, planarconfig=layout)
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    @pytest.mark.parametrize("channel", [3, -1])
    def test_slice_reader_names_the_file_without_the_channel(self, tmp_path: Path, channel: int) -> None:
        file = write(tmp_path / "a.tif", colours(), photometric="rgb")
        with pytest.raises(ValueError, match=rf"a\.tif: has 3 channels, expected FLAIR in channel {channel}"):
            read(file, channel=channel)


class TestForms:
    @pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd", "lzma"])
    def test_slice_reader_reads_any_lossless_compression(self, tmp_path: Path, compression: str | None) -> None:
        file = write(tmp_path / "a.tif", grey(), compression=compression)
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
    def test_slice_reader_keeps_the_type_of_the_file(self, tmp_path: Path, dtype: type) -> None:
        pixels = grey(dtype=dtype) * dtype(7 if dtype == np.uint8 else 500.5)
        volume, _ = read(write(tmp_path / "a.tif", pixels))
        assert volume.dtype == dtype
        np.testing.assert_array_equal(volume[..., 0], pixels)

    @pytest.mark.parametrize(
        "options", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}, {"rowsperstrip": 1}]
    )
    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_slice_reader_reads_any_layout(self, tmp_path: Path, options: dict, compression: str | None) -> None:
        pixels = grey(dtype=np.uint16) * 500
        volume, _ = read(write(tmp_path / "a.tif", pixels, compression=compression, **options))
        np.testing.assert_array_equal(volume[..., 0], pixels)

    def test_big_endian_files_reach_torch(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", grey(dtype=np.float32), byteorder=">")
        loaded = LoadImage(reader=SliceReader(), image_only=True)(file)
        np.testing.assert_array_equal(loaded.numpy()[..., 0], grey(dtype=np.float32))

    def test_slice_reader_reads_horizontal_differences(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", grey(), compression="lzw", predictor=True)
        np.testing.assert_array_equal(read(file)[0][..., 0], grey())

    def test_slice_reader_reads_bilevel(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", grey() > 9)
        np.testing.assert_array_equal(read(file)[0][..., 0] > 0, grey() > 9)


class TestWhiteIsZero:
    """Files that count from white to black are turned, so that bright tissue has high values."""

    def test_white_is_zero_turns_intensities(self, tmp_path: Path) -> None:
        volume, _ = read(write(tmp_path / "a.tif", grey(), photometric="miniswhite"))
        np.testing.assert_array_equal(np.diff(volume[..., 0].astype(int)), np.full((6, 4), -1))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_white_is_zero_turns_all_slices_alike(self, tmp_path: Path, dtype: type) -> None:
        slices = [grey(0, dtype), grey(1, dtype)]  # with largest values of their own
        files = [write(tmp_path / f"{n}.tif", s, photometric="miniswhite") for n, s in enumerate(slices)]
        volume = read(files)[0].astype(float)
        np.testing.assert_array_equal(volume[..., 0] - volume[..., 1], np.full(SHAPE, 40))

    def test_white_is_zero_turns_signed_values_without_overflow(self, tmp_path: Path) -> None:
        pixels = np.array([[-30000, 0, 30000]], dtype=np.int16)
        volume, _ = read(write(tmp_path / "a.tif", pixels, photometric="miniswhite"))
        assert (np.diff(volume[0, :, 0].astype(int)) < 0).all()

    def test_white_is_zero_turns_bilevel_values(self, tmp_path: Path) -> None:
        volume, _ = read(write(tmp_path / "a.tif", grey() > 9, photometric="miniswhite"))
        np.testing.assert_array_equal(volume[..., 0] > 0, grey() <= 9)


class TestRefuses:
    def test_slice_reader_refuses_a_palette_of_colours(self, tmp_path: Path) -> None:
        colormap = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256)
        file = write(tmp_path / "a.tif", grey(), photometric="palette", colormap=colormap)
        with pytest.raises(ValueError, match=r"a\.tif: has a color palette"):
            read(file)

    def test_slice_reader_refuses_complex_values(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.tif: holds values of type complex64, expected real numbers"):
            read(write(tmp_path / "a.tif", grey(dtype=np.complex64)))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_slice_reader_refuses_values_that_are_not_finite(self, tmp_path: Path, value: float) -> None:
        pixels = grey(dtype=np.float32)
        pixels[2, 3] = value
        with pytest.raises(ValueError, match=r"b\.tif: .*not finite"):
            read([write(tmp_path / "a.tif", grey(dtype=np.float32)), write(tmp_path / "b.tif", pixels)])

    def test_slice_reader_refuses_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"b\.tif: no such file"):
            read([*write_slices(tmp_path, 1), tmp_path / "b.tif"])

    @pytest.mark.parametrize(
        "content", [b"", b"II", b"II*\0\x08\0\0\0", b"not a TIFF file at all", b"\x89PNG\r\n\x1a\n"]
    )
    def test_slice_reader_refuses_what_is_not_a_tiff(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "a.tif"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tif: .*Copy the file again"):
            read(file)

    @pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_slice_reader_refuses_a_file_cut_short(self, tmp_path: Path, compression: str | None, share: float) -> None:
        noise = np.random.default_rng(0).integers(256, size=(64, 48), dtype=np.uint8)
        file = write(tmp_path / "a.tif", noise, compression=compression, rowsperstrip=8)
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=r"a\.tif: cannot be read as TIFF"):
            read(file)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    @pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"compression": "deflate"}])
    def test_slice_reader_refuses_pages_cut_short(self, tmp_path: Path, options: dict, share: float) -> None:
        noise = np.random.default_rng(0).integers(256, size=(5, 64, 48), dtype=np.uint8)
        file = write(tmp_path / "a.tif", noise, **options)
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=r"a\.tif: .*Copy the file again"):
            read(file)

    def test_slice_reader_refuses_damaged_pixels(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(256, size=(64, 48), dtype=np.uint8)
        file = write(tmp_path / "a.tif", noise, compression="deflate")
        data = bytearray(file.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.tif: cannot be read as TIFF"):
            read(file)

    def test_slice_reader_refuses_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(tmp_path)

    def test_slice_reader_refuses_slices_of_different_shapes(self, tmp_path: Path) -> None:
        files = [write(tmp_path / "a.tif", grey()), write(tmp_path / "b.tif", grey(shape=(5, 6)))]
        with pytest.raises(ValueError, match=r"b\.tif: shape is \(5, 6\), but \(6, 5\) in .*a\.tif"):
            read(files)

    def test_slice_reader_refuses_slices_of_different_spacings(self, tmp_path: Path) -> None:
        options = {"resolutionunit": "CENTIMETER"}
        files = [
            write(tmp_path / f"{name}.tif", grey(), resolution=(dots, dots), **options)
            for name, dots in (("a", 10), ("b", 20))
        ]
        with pytest.raises(
            ValueError, match=r"b\.tif: pixel spacing is \(0\.5, 0\.5\), but \(1\.0, 1\.0\) in .*a\.tif"
        ):
            read(files)

    def test_slice_reader_refuses_a_slice_without_spacing_among_slices_with_one(self, tmp_path: Path) -> None:
        known = write(tmp_path / "a.tif", grey(), resolution=(10, 10), resolutionunit="CENTIMETER")
        with pytest.raises(ValueError, match=r"b\.tif: pixel spacing is None"):
            read([known, write(tmp_path / "b.tif", grey())])


class TestGeometry:
    def test_rows_run_to_posterior_columns_to_the_left_slices_to_superior(self, tmp_path: Path) -> None:
        _, meta = read(write_slices(tmp_path))
        # In RAS terms the patient's left is the negative end of the first axis: columns run towards it.
        assert nib.aff2axcodes(meta["affine"]) == ("P", "L", "S")

    def test_spacing_is_1_and_said_to_be_unknown_without_tags(self, tmp_path: Path) -> None:
        _, meta = read(write_slices(tmp_path))
        assert nib.affines.voxel_sizes(meta["affine"]).tolist() == [1, 1, 1]
        assert meta["spacing_known"] is False

    @pytest.mark.parametrize(
        ("unit", "resolution", "spacing"),
        [
            ("CENTIMETER", (20, 10), (1.0, 0.5)),  # resolution is columns' then rows'
            ("INCH", (25.4, 12.7), (2.0, 1.0)),
            ("INCH", (50.8, 50.8), (0.5, 0.5)),
        ],
    )
    def test_spacing_comes_from_the_resolution_tags(
        self, tmp_path: Path, unit: str, resolution: tuple[float, float], spacing: tuple[float, float]
    ) -> None:
        file = write(tmp_path / "a.tif", grey(), resolution=resolution, resolutionunit=unit)
        _, meta = read(file)
        np.testing.assert_allclose(nib.affines.voxel_sizes(meta["affine"]), (*spacing, 1), rtol=1e-6)
        assert meta["spacing_known"] is True
        assert meta["slice_spacing_known"] is False

    def test_spacing_given_to_the_slice_reader_wins(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", grey(), resolution=(20, 10), resolutionunit="CENTIMETER")
        _, meta = read(file, spacing=(0.7, 0.8, 5))
        np.testing.assert_allclose(nib.affines.voxel_sizes(meta["affine"]), (0.7, 0.8, 5), rtol=1e-6)
        assert meta["spacing_known"] is True
        assert meta["slice_spacing_known"] is True

    @pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 5), (1, 1, -5)])
    def test_spacing_that_is_none_is_refused(self, spacing: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="expected three positive numbers"):
            SliceReader(spacing=spacing)

    def test_resolution_without_a_unit_is_no_spacing(self, tmp_path: Path) -> None:
        _, meta = read(write(tmp_path / "a.tif", grey(), resolution=(72, 36), resolutionunit="NONE"))
        assert meta["spacing_known"] is False

    def test_a_resolution_of_zero_is_no_spacing(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tif", grey(), resolution=((0, 1), (0, 1)), resolutionunit="INCH")
        assert read(file)[1]["spacing_known"] is False

    def test_geometry_and_values_survive_nifti(self, tmp_path: Path) -> None:
        options = {"resolution": (20, 10), "resolutionunit": "CENTIMETER"}
        files = [write(tmp_path / f"{n}.tif", grey(n), **options) for n in range(3)]
        volume = LoadImage(reader=SliceReader(spacing=(0.5, 1.0, 4)), ensure_channel_first=True)(files)
        SaveImage(tmp_path, output_postfix="", separate_folder=False, resample=False, print_log=False)(volume)
        reread = nib.load(tmp_path / "0.nii.gz")
        np.testing.assert_allclose(reread.affine, volume.affine, atol=1e-6)
        np.testing.assert_array_equal(reread.get_fdata(), np.stack([grey(n) for n in range(3)], axis=-1))


class TestPictures:
    @pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "RGB", "RGBA"])
    def test_pictures_of_any_kind_give_grey_values(self, tmp_path: Path, mode: str) -> None:
        pixels = np.zeros(SHAPE, np.uint16 if mode == "I;16" else np.uint8)
        pixels[1, 2] = 1 if mode != "1" else 255
        picture = Image.fromarray(pixels)
        (picture if mode == "I;16" else picture.convert(mode)).save(tmp_path / "a.png")
        volume, meta = read(tmp_path / "a.png")
        assert volume.shape == (*SHAPE, 1)
        assert np.argwhere(volume[..., 0]).tolist() == [[1, 2]]
        assert meta["spacing_known"] is False

    def test_pictures_in_colours_give_the_flair_channel(self, tmp_path: Path) -> None:
        Image.fromarray(np.dstack([grey(n) for n in (1, 2, 3)])).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read(tmp_path / "a.png")[0][..., 0], grey(2))

    def test_pictures_with_a_palette_of_greys_give_them(self, tmp_path: Path) -> None:
        picture = Image.fromarray(grey()).convert("P")
        picture.putpalette([255 - value // 3 for value in range(768)])
        picture.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read(tmp_path / "a.png")[0][..., 0], 255 - grey())

    def test_pictures_with_a_palette_of_colours_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.dstack([grey(n) for n in (1, 2, 3)])).quantize(8).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png: has a color palette"):
            read(tmp_path / "a.png")

    def test_pictures_as_jpeg_make_a_volume(self, tmp_path: Path) -> None:
        for n in (1, 2):
            Image.fromarray(np.full(SHAPE, 50 * n, np.uint8)).save(tmp_path / f"{n}.jpg")
        volume, _ = read([tmp_path / "1.jpg", tmp_path / "2.jpg"])
        np.testing.assert_allclose(volume.mean(axis=(0, 1)), [50, 100], atol=2)


class TestInLoadImage:
    def test_slice_reader_is_found_by_name(self, tmp_path: Path) -> None:
        load = LoadImage(reader="mri_seg.io.slice_reader.SliceReader", ensure_channel_first=True)
        volume = load(write_slices(tmp_path))
        assert volume.shape == (1, *SHAPE, 3)
        assert volume.dtype == torch.float32
        assert nib.aff2axcodes(volume.affine.numpy()) == ("P", "L", "S")

    def test_slice_reader_is_registered_beside_the_readers_of_monai(self, tmp_path: Path) -> None:
        load = LoadImage(ensure_channel_first=True)
        load.register(SliceReader())
        assert load(write_slices(tmp_path)).shape == (1, *SHAPE, 3)
        nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.float32), np.eye(4)), tmp_path / "a.nii")
        assert load(tmp_path / "a.nii").shape == (1, 4, 3, 2)
