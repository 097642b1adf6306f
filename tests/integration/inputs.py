"""Files that inference is given: damaged, hostile and merely odd ones. A row says what is made and what comes of it."""

from __future__ import annotations

import gzip
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import itk
import nibabel
import numpy as np
import tifffile
from PIL import Image
from pydicom.uid import JPEGLosslessSV1

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dicom_series import ramp, write_multiframe, write_series

__all__ = ["BAD", "ODD", "Input"]

SHAPE = (32, 24)  # rows and columns
AFFINE = np.diag([0.9, 0.9, 5.0, 1.0])
GONE = "Copy the file again"  # what to do with most damaged files


class Input(NamedTuple):
    """A case: its name, how its files are made in its folder, and a pattern of its error (none for a good one)."""

    id: str
    make: Callable[[Path], Any]
    says: str = ""


def slice_pixels(dtype: Any = np.uint8, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A bright oval on black, with a little structure."""
    rows, columns = np.indices(shape[:2])
    radius = ((rows / shape[0] - 0.5) ** 2 + (columns / shape[1] - 0.5) ** 2) * 4
    pixels = np.where(radius < 0.8, 120 + 60 * np.sin(rows / 3) * np.cos(columns / 4), 0)
    return (pixels if len(shape) == 2 else np.repeat(pixels[..., None], shape[2], axis=-1)).astype(dtype)


def volume_voxels(dtype: Any = np.float32, slices: int = 3) -> np.ndarray:
    return slice_pixels(np.float64, (*SHAPE, slices)).astype(dtype)


def tiff(name: str, pixels: np.ndarray | None = None, cut: int | None = None, **options: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        tifffile.imwrite(folder / name, slice_pixels() if pixels is None else pixels, **options)
        cut_short(folder / name, cut)

    return make


def png(name: str, picture: Image.Image, cut: int | None = None) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        picture.save(folder / name)
        cut_short(folder / name, cut)

    return make


def nifti(
    name: str, voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE, cut: int | None = None, **header: Any
) -> Callable[[Path], Any]:
    """A NIfTI file; header fields are put into it as they are, sane or not."""

    def make(folder: Path) -> None:
        image = nibabel.Nifti1Image(volume_voxels() if voxels is None else voxels, affine, dtype="compat")
        if voxels is not None:
            image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
        content = bytearray(image.to_bytes())
        fields = np.frombuffer(content, dtype=nibabel.nifti1.header_dtype, count=1)
        for key, value in header.items():
            fields[key] = value
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        cut_short(folder / name, cut)

    return make


def by_itk(name: str, change: Callable[[bytes], bytes] = bytes, compressed: bool = False) -> Callable[[Path], Any]:
    """A file that ITK writes, its bytes changed."""

    def make(folder: Path) -> None:
        image = itk.image_from_array(volume_voxels(np.int16).transpose(2, 0, 1).copy())
        image.SetSpacing([0.9, 0.9, 5.0])
        itk.imwrite(image, str(folder / name), compression=compressed)
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return make


def by_nibabel(name: str, kind: type[nibabel.spatialimages.SpatialImage]) -> Callable[[Path], Any]:
    return lambda folder: nibabel.save(kind(volume_voxels(), AFFINE), folder / name)


def dicom(change: Callable[[bytes], bytes] = bytes, **options: Any) -> Callable[[Path], Any]:
    """A series of three images, named after its folder, the bytes of the middle one changed."""

    def make(folder: Path) -> None:
        files = write_series(folder, ramp(16, 16, 3), patient_id=folder.name, study_uid=None, **options)
        files[1].write_bytes(change(files[1].read_bytes()))

    return make


def frames(number: int) -> Callable[[Path], Any]:
    """A multi-frame file that declares another number of frames than it holds."""

    def make(folder: Path) -> None:
        file = write_multiframe(folder / f"{folder.name}.dcm", ramp(16, 16, 3), patient_id=folder.name)
        text = str(number).ljust(len(str(number)) + len(str(number)) % 2).encode()
        old = b"\x28\x00\x08\x00IS\x02\x00" + b"3 "
        assert old in file.read_bytes()
        new = b"\x28\x00\x08\x00IS" + struct.pack("<H", len(text)) + text
        file.write_bytes(file.read_bytes().replace(old, new))

    return make


def content(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


def several(*makers: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda folder: [make(folder) for make in makers]


def cut_short(file: Path, size: int | None) -> None:
    if size is not None:
        file.write_bytes(file.read_bytes()[:size])


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new)

    return change


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def huge_png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk += struct.pack(">I", zlib.crc32(chunk))
    data = imagecodecs.png_encode(slice_pixels())
    return data[:12] + chunk + data[12 + len(chunk) :]


def enlarged_jpeg(data: bytes) -> bytes:
    """JPEG data whose frame header says that it has 60,000 x 60,000 pixels."""
    place = data.index(re.search(rb"\xff[\xc0\xc3]\0", data)[0])
    return data[: place + 5] + struct.pack(">HH", 60000, 60000) + data[place + 9 :]


def huge_tiff(folder: Path) -> None:
    """A page of 60,000 x 60,000 whose strips are a few bytes of Deflate."""
    tifffile.imwrite(folder / "huge_tiff.tif", slice_pixels(), compression="deflate")
    with tifffile.TiffFile(folder / "huge_tiff.tif", mode="r+b") as file:
        for name in ("ImageLength", "ImageWidth"):
            file.pages[0].tags[name].overwrite(60000)


def jpeg_bomb_in_tiff(folder: Path) -> None:
    """A small page, whose JPEG data say that they are 60,000 x 60,000."""
    tifffile.imwrite(folder / "jpeg_bomb.tif", slice_pixels(), compression="jpeg")
    (folder / "jpeg_bomb.tif").write_bytes(enlarged_jpeg((folder / "jpeg_bomb.tif").read_bytes()))


def loop(folder: Path) -> None:
    nifti("loop.nii")(folder)
    (folder / "below").mkdir()
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "itself").symlink_to("itself")


def big_endian_nifti(folder: Path) -> None:
    image = nibabel.Nifti1Image(volume_voxels(), AFFINE, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(image, folder / "big_endian_nifti.nii")


def grey_palette() -> Image.Image:
    picture = Image.fromarray(slice_pixels()).convert("P")
    picture.putpalette([value // 3 for value in range(768)])
    return picture


def coloured_palette() -> Image.Image:
    picture = Image.fromarray(slice_pixels()).convert("P")
    picture.putpalette([value % 256 for value in range(768)])
    return picture


GREY = Image.fromarray(slice_pixels())
NAN = np.where(volume_voxels() > 0, volume_voxels(), np.nan).astype(np.float32)
RGB = np.zeros((*SHAPE, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
LARGE_PIXELS = np.resize(np.arange(251, dtype=np.uint8), (800, 800, 2))
HUGE = r"declares .*60000 x 60000.* voxels.*more than the 1,000,000,000 that max_voxels.*--max_voxels \d+"
GROWN = r"huge_pixels\.nii resampled from 99 x 99 mm to 0\.94 x 0\.94 mm: declares 84256 x 84256 x 2 voxels"

# What must be refused. Unless a row says otherwise, the file's name begins with the row's id.
BAD = [
    # Nothing, or not all of it.
    Input("empty_tiff", content("empty_tiff.tif", b""), rf"empty_tiff\.tif: cannot be read as TIFF .*{GONE}"),
    Input("empty_png", content("empty_png.png", b""), rf"empty_png\.png: cannot be read as a picture .*{GONE}"),
    Input("empty_nifti", content("empty_nifti.nii", b""), rf"empty_nifti\.nii: cannot be read .*{GONE}"),
    Input("empty_gz", content("empty_gz.nii.gz", b""), rf"empty_gz\.nii\.gz: cannot be read .*{GONE}"),
    Input("empty_mha", content("empty_mha.mha", b""), rf"empty_mha\.mha: cannot be read .*{GONE}"),
    Input("empty_nrrd", content("empty_nrrd.nrrd", b""), rf"empty_nrrd\.nrrd: cannot be read .*{GONE}"),
    Input("empty_dicom.dcm", content("empty_dicom.dcm", b""), r"empty_dicom\.dcm: cannot be read as DICOM .*[Cc]opy"),
    Input("cut_tiff", tiff("cut_tiff.tif", cut=400), rf"cut_tiff\.tif: cannot be read as TIFF .*{GONE}"),
    Input("cut_png", png("cut_png.png", GREY, cut=120), rf"cut_png\.png: cannot be read as a picture .*{GONE}"),
    Input("cut_jpeg", png("cut_jpeg.jpg", GREY, cut=400), rf"cut_jpeg\.jpg: cannot be read as a picture .*{GONE}"),
    Input("cut_nifti", nifti("cut_nifti.nii", cut=2000), r"cut_nifti\.nii: .*ends before its last voxel: \d+ bytes"),
    Input("cut_header", nifti("cut_header.nii", cut=100), rf"cut_header\.nii: cannot be read .*{GONE}"),
    Input("cut_gz", nifti("cut_gz.nii.gz", cut=700), rf"cut_gz\.nii\.gz: cannot be read .*{GONE}"),
    Input("cut_mha", by_itk("cut_mha.mha", half), r"cut_mha\.mha: .*ends before its last voxel"),
    Input("cut_packed", by_itk("cut_packed.mha", half, True), rf"cut_packed\.mha: cannot be read .*{GONE}"),
    Input("cut_nrrd", by_itk("cut_nrrd.nrrd", half), rf"cut_nrrd\.nrrd: cannot be read .*{GONE}"),
    Input("cut_dicom", dicom(lambda data: data[:-100]), r"cut_dicom/IM0001\.dcm: .*[Cc]opy (it|the file) again"),
    # Something else than the name says.
    Input("text", content("text.tif", b"not an image " * 50), rf"text\.tif: cannot be read as TIFF .*{GONE}"),
    Input("tiff_as_png", lambda f: tiff("a.tif")(f) or (f / "a.tif").rename(f / "tiff_as_png.png"), "as a picture"),
    Input("png_as_tiff", lambda f: png("a.png", GREY)(f) or (f / "a.png").rename(f / "png_as_tiff.tif"), "as TIFF"),
    Input("unpacked", lambda f: nifti("a.nii")(f) or (f / "a.nii").rename(f / "unpacked.nii.gz"), "cannot be read"),
    Input("other_mha", content("other_mha.mha", b"NDims = -1\n"), "gives NDims as -1, expected 1 to 5"),
    Input("typed_mha", by_itk("typed_mha.mha", replaced(b"MET_SHORT", b"MET_TENSOR")), "type MET_TENSOR"),
    # More than memory holds.
    Input("huge_tiff", huge_tiff, rf"huge_tiff\.tif: {HUGE}"),
    Input("jpeg_bomb", jpeg_bomb_in_tiff, rf"jpeg_bomb\.tif: {HUGE}"),
    Input("huge_png", content("huge_png.png", huge_png()), rf"huge_png\.png: {HUGE}"),
    Input(
        "huge_jpeg",
        content("huge_jpeg.jpg", enlarged_jpeg(imagecodecs.jpeg_encode(slice_pixels()))),
        rf"huge_jpeg\.jpg: {HUGE}",
    ),
    Input("huge_nifti", nifti("huge_nifti.nii", dim=[3, 2000, 2000, 2000, 1, 1, 1, 1]), "2000 x 2000 x 2000 voxels"),
    Input("huge_gz", nifti("huge_gz.nii.gz", dim=[3, 2000, 2000, 2000, 1, 1, 1, 1]), "2000 x 2000 x 2000 voxels"),
    Input("lying_gz", nifti("lying_gz.nii.gz", dim=[3, 900, 1000, 1000, 1, 1, 1, 1]), "ends before its last voxel"),
    Input("huge_mha", by_itk("huge_mha.mha", replaced(b"= 24 32 3\n", b"= 2400 3200 300\n")), "declares 2400 x 3200"),
    Input("huge_nrrd", by_itk("huge_nrrd.nrrd", replaced(b"24 32 3\n", b"2400 3200 300\n")), "declares 2400 x 3200"),
    Input("huge_frames", frames(2_000_000_000), "declares 2000000000 x 16 x 16 voxels"),
    Input("jpeg_in_dicom", dicom(enlarged_jpeg, transfer_syntax=JPEGLosslessSV1), rf"IM0001\.dcm: {HUGE}"),
    Input("huge_pixels", nifti("huge_pixels.nii", LARGE_PIXELS, np.diag([99.0, 99, 99, 1])), GROWN),
    Input("missing_frames", frames(50), "has 50 frames, but no PlanePositionSequence"),
    # Values that are none.
    Input("nan_tiff", tiff("nan_tiff.tif", np.full(SHAPE, np.nan, np.float32)), "not finite"),
    Input("inf_tiff", tiff("inf_tiff.tif", np.full(SHAPE, np.inf, np.float32)), "not finite"),
    Input("all_nan", nifti("all_nan.nii", np.full((*SHAPE, 3), np.nan, np.float32)), "holds only NaN and infinity"),
    Input("complex_tiff", tiff("complex_tiff.tif", np.zeros(SHAPE, np.complex64)), "type complex64, expected real"),
    Input("complex", nifti("complex.nii", np.zeros((*SHAPE, 3), np.complex64)), "type complex64, expected real"),
    Input("rgb_nifti", nifti("rgb_nifti.nii", RGB), r"rgb_nifti\.nii: .*expected real numbers"),
    Input("unknown_type", nifti("unknown_type.nii", datatype=7777), r"unknown_type\.nii: cannot be read"),
    Input("colours", png("colours.png", coloured_palette()), "has a color palette, expected gray values"),
    Input("cmyk", png("cmyk.jpg", GREY.convert("CMYK")), "pixels of mode CMYK, expected gray values"),
    # Shapes that are none.
    Input("no_rows", nifti("no_rows.nii", dim=[3, 0, 24, 3, 1, 1, 1, 1]), r"no_rows\.nii: .*0 x 24 x 3"),
    Input("minus_rows", nifti("minus_rows.nii", dim=[3, -32, 24, 3, 1, 1, 1, 1]), r"minus_rows\.nii: .*-32 x 24 x 3"),
    Input("four_d", nifti("four_d.nii", np.zeros((8, 8, 3, 2), np.float32)), "holds 2 volumes.*--volume"),
    Input("five_d", nifti("five_d.nii", np.zeros((8, 8, 3, 2, 2), np.float32)), r"five_d\.nii: .*expected"),
    Input(
        "sizes",
        several(tiff("sizes_1.tif"), tiff("sizes_2.tif", slice_pixels(shape=(20, 24)))),
        r"sizes_2\.tif: shape is \(20, 24\), but \(32, 24\) in .*sizes_1\.tif",
    ),
    Input("twice", several(tiff("twice_1.tif"), tiff("twice_01.tif"), tiff("twice_2.tif")), "has slice number 1, like"),
    Input(
        "reference",
        several(tiff("reference.tif"), tiff("reference_mask.tif", slice_pixels(shape=(16, 16)))),
        r"reference_mask\.tif: this label does not fit its image .*reference\.tif\.",
    ),
    # No image.
    Input(
        "one_pixel", tiff("one_pixel.tif", np.full((1, 1), 9, np.uint8)), r"one_pixel\.tif: its only value is 9, exp"
    ),
    Input(
        "one_bit",
        png("one_bit.png", GREY.convert("1")),
        r"one_bit\.png: its only values are 0 and (1|255), expected an",
    ),
    Input("bits", tiff("bits.tif", slice_pixels() > 100, photometric="minisblack"), "only values are 0 and 1.*a mask"),
    Input("constant", nifti("constant.nii", np.full((*SHAPE, 3), 7, np.float32)), "its only value is 7, expected an"),
    Input("zeros", nifti("zeros.nii", np.zeros((*SHAPE, 3), np.int16)), "its only value is 0, .*empty or a mask"),
    Input(
        "nan_and_one", nifti("nan_and_one.nii", np.where(NAN > 150, 1, np.nan).astype(np.float32)), "only value is 1"
    ),
    # No place in space.
    Input("zero_affine", nifti("zero_affine.nii", srow_x=0, srow_y=0, srow_z=0, sform_code=1), "affine"),
    Input("nan_affine", nifti("nan_affine.nii", srow_x=np.nan, sform_code=1), "affine"),
    Input("metres", nifti("metres.nii", affine=AFFINE * 1e-3), "voxels are 0.0009 x 0.0009 x 0.005 mm.*unit"),
    Input("kilometres", nifti("kilometres.nii", affine=np.diag([900.0, 900, 900, 1])), "voxels are 900 x 900 x 900 mm"),
    Input("needles", nifti("needles.nii", affine=np.diag([0.02, 20.0, 5, 1])), "sides within a factor of 200"),
    Input("no_positions", dicom(ImagePositionPatient=None), "ImagePositionPatient is missing"),
    Input("no_pixels", dicom(replaced(b"\xe0\x7f\x10\x00", b"\xe1\x7f\x10\x00")), "IM0001.dcm: holds no pixels"),
    Input("dangling", lambda folder: (folder / "dangling.nii").symlink_to("nowhere"), r"dangling\.nii: no such file"),
]

# What must work.
ODD = [
    Input("good", nifti("good.nii.gz")),
    Input("odd_sizes", tiff("odd_sizes.tif", slice_pixels(shape=(37, 53)))),
    Input("one_row", png("one_row.png", Image.fromarray(np.arange(40, dtype=np.uint8)[None]))),
    Input("large", tiff("large.tif", slice_pixels(shape=(4096, 4096)))),
    Input("grey_palette", png("grey_palette.png", grey_palette())),
    Input(
        "tiff_palette",
        tiff("tiff_palette.tif", photometric="palette", colormap=np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)),
    ),
    Input("rgba", png("rgba.png", GREY.convert("RGBA"))),
    Input("jpeg", png("jpeg.jpg", GREY)),
    Input("twelve_bit", tiff("twelve_bit.tif", slice_pixels(np.uint16) * 20)),
    Input("big_endian", tiff("big_endian.tif", slice_pixels(np.uint16), byteorder=">")),
    Input("float", tiff("float.tif", slice_pixels(np.float32) / 1000)),
    Input("big_tiff", tiff("big_tiff.tif", bigtiff=True)),
    Input("pages", tiff("pages.tif", np.stack([slice_pixels()] * 3), photometric="minisblack")),
    Input("upper", tiff("upper.TIF")),
    Input("Jürgen Größe 脑 1,5T", nifti("Jürgen Größe 脑 1,5T.nii")),
    Input("long_" + 150 * "x", nifti("long_" + 150 * "x" + ".nii.gz")),
    Input("loop", loop),
    Input("nan_around", nifti("nan_around.nii", NAN)),
    Input("one_slice", nifti("one_slice.nii", volume_voxels(slices=1)[..., 0])),
    Input("int64", nifti("int64.nii", volume_voxels(np.int64))),
    Input("big_endian_nifti", big_endian_nifti),
    Input("turned", nifti("turned.nii", affine=np.diag([-0.9, -0.9, -5.0, 1.0]))),
    Input("negative_spacing", nifti("negative_spacing.nii", pixdim=[1, -0.9, -0.9, -5, 0, 0, 0, 0])),
    Input("five_d_of_one", nifti("five_d_of_one.nii", volume_voxels()[..., None, None])),
    Input("packed_mha", by_itk("packed_mha.mha", compressed=True)),
    Input("nrrd", by_itk("nrrd.nrrd")),
    Input("mgz", by_nibabel("mgz.mgz", nibabel.MGHImage)),
    Input("pair", by_nibabel("pair.img", nibabel.Nifti1Pair)),
    Input("analyze", by_nibabel("analyze.img", nibabel.AnalyzeImage)),
    Input("dicom", dicom()),
]
