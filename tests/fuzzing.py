"""Feeds damaged files to the readers, in a process of its own: python tests/fuzzing.py FOLDER SECONDS SEED [TARGET ...]

Valid files are changed byte by byte, and what reads them must give a volume or an error that its documentation names,
within seconds and within memory. The input is written to FOLDER before it is tried, so that it is there when the
process crashes or hangs; the process ends with status 1 and a traceback at the first error that is not documented.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import logging
import random
import resource
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import itk
import nibabel
import numpy as np
import tifffile
import torch
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

sys.path.insert(0, str(Path(__file__).parent))

from dicom_series import ramp, write_multiframe, write_series

from mri_seg.datasets.lgg import check
from mri_seg.io.cases import find_cases
from mri_seg.io.load import LoadVolumed
from mri_seg.io.slice_reader import SliceReader

SECONDS_EACH = 60  # an input that takes longer counts as a hang
MEMORY = 10 * 2**30  # of addresses, most of which the libraries take without using them
LARGEST = 1_000_000  # voxels

_INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


def read_slice(path: Path) -> None:
    reader = SliceReader(max_voxels=LARGEST)
    reader.get_data(reader.read([path]))


def read_volume(path: Path) -> None:
    LoadVolumed("image", max_voxels=LARGEST)({"image": path})


def read_study(path: Path) -> None:
    for case in find_cases(path.parent):
        if "error" not in case:
            LoadVolumed("image", max_voxels=LARGEST)(case)


def check_patient(path: Path) -> None:
    check(path.parent)


def tiffs() -> dict[str, bytes]:
    grey = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
    colours = np.stack([grey.astype(np.uint8)] * 3, axis=-1)
    made = {}
    for name, pixels, options in (
        ("plain", grey, {}),
        ("colours", colours, {"photometric": "rgb", "compression": "deflate"}),
        ("lzw", grey, {"compression": "lzw", "predictor": True, "rowsperstrip": 8}),
        ("big", grey, {"bigtiff": True, "byteorder": ">", "compression": "zstd"}),
        ("tiles", grey, {"tile": (16, 16), "compression": "packbits"}),
        ("float", grey.astype(np.float32), {"resolution": (20, 10), "resolutionunit": "CENTIMETER"}),
        ("pages", np.stack([grey, grey]), {"photometric": "minisblack", "compression": "lzma"}),
        ("jpeg", colours, {"photometric": "rgb", "compression": "jpeg"}),
        ("jpeg2000", grey, {"compression": "jpeg2000"}),
        ("palette", grey.astype(np.uint8), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        ("bits", grey > 100, {"photometric": "minisblack"}),
    ):
        with io.BytesIO() as file:
            tifffile.imwrite(file, pixels, **options)
            made[f"{name}.tif"] = file.getvalue()
    return made


def pictures() -> dict[str, bytes]:
    made = {}
    for mode, suffix in (("L", "png"), ("RGBA", "png"), ("1", "png"), ("P", "png"), ("L", "jpg"), ("RGB", "jpg")):
        with io.BytesIO() as file:
            picture = Image.fromarray(np.arange(24 * 20, dtype=np.uint8).reshape(24, 20)).convert(mode)
            picture.save(file, "JPEG" if suffix == "jpg" else "PNG")
            made[f"{mode}.{suffix}"] = file.getvalue()
    return made


def volumes(folder: Path) -> dict[str, bytes]:
    made = {}
    image = nibabel.Nifti1Image(ramp(8, 6, 4, np.int16), np.diag([0.9, 0.9, 5, 1]))
    made["one.nii"] = image.to_bytes()
    made["two.nii"] = nibabel.Nifti2Image(image.dataobj, image.affine).to_bytes()
    made["one.nii.gz"] = gzip.compress(made["one.nii"])
    nibabel.save(image, folder / "source.nii")
    for name, compressed in (("a.nrrd", False), ("b.nrrd", True), ("a.mha", False), ("b.mha", True)):
        itk.imwrite(itk.imread(str(folder / "source.nii")), str(folder / name), compression=compressed)
        made[name] = (folder / name).read_bytes()
    for name in ("a.mgz", "a.mgh"):
        nibabel.save(nibabel.MGHImage(image.dataobj, image.affine), folder / name)
        made[name] = (folder / name).read_bytes()
    return made


def studies(folder: Path) -> dict[str, bytes]:
    made = {}
    for name, syntax in (
        ("plain", "1.2.840.10008.1.2.1"),
        ("deflated", "1.2.840.10008.1.2.1.99"),
        ("rle", RLELossless),
        ("jpeg", JPEGLosslessSV1),
        ("jpegls", JPEGLSLossless),
        ("j2k", JPEG2000Lossless),
    ):
        (file,) = write_series(folder / name, ramp(slices=1), transfer_syntax=syntax)
        made[f"{name}.dcm"] = file.read_bytes()
    made["frames.dcm"] = write_multiframe(folder / "frames.dcm", ramp()).read_bytes()
    return made


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with a few changes: bits, numbers, pieces cut, copied and inserted, or its end lost."""
    data = bytearray(content)
    # Headers lie at the start (and in TIFF at the end), so that most changes are made there.
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        reach = draw.choice((len(data), min(len(data), 400), min(len(data), 64)))
        place = draw.randrange(max(reach, 1))
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[place] = draw.randrange(256)
        elif kind in (2, 3):
            code = draw.choice("<>") + draw.choice("HIQ")
            number = draw.choice(_INTERESTING) % 2 ** (8 * struct.calcsize(code))
            data[place : place + struct.calcsize(code)] = struct.pack(code, number)
        elif kind == 4:
            del data[place : place + draw.choice((1, 2, 4, 16, 200))]
        elif kind == 5:
            piece = data[place : place + draw.choice((1, 4, 12, 64))]
            data[draw.randrange(len(data) + 1) :][:0] = piece
            data[place:place] = piece
        elif kind == 6 and draw.random() < 0.3:
            del data[place:]
    return bytes(data)


def damaged_text(content: bytes, draw: random.Random) -> bytes:
    """A text header with a number or word exchanged, or damaged as any other."""
    if draw.random() < 0.5:
        return damaged(content, draw)
    lines = content.split(b"\n")
    place = draw.randrange(min(len(lines), 14))
    words = lines[place].split(b" ")
    words[draw.randrange(len(words))] = draw.choice(
        (b"0", b"-1", b"nan", b"1e30", b"99999999999", b"4294967295", b"", b"double", b"gzip", b"LOCAL", b"3 3 3 3")
    )
    lines[place] = b" ".join(words)
    return b"\n".join(lines)


def damaged_volume(content: bytes, draw: random.Random) -> bytes:
    if content[:2] == b"\x1f\x8b" and draw.random() < 0.7:  # what is compressed, and compressed again
        return gzip.compress(damaged(gzip.decompress(content), draw), compresslevel=1)
    return damaged_text(content, draw) if content[:4] in (b"NRRD", b"Obje") else damaged(content, draw)


class Target:
    """What is tried, on which files, how they are damaged, and what it may raise."""

    def __init__(
        self,
        run: Callable[[Path], None],
        files: dict[str, bytes],
        damage: Callable[[bytes, random.Random], bytes] = damaged,
        errors: tuple[type[Exception], ...] = (ValueError,),
        name: str | None = None,
    ) -> None:
        self.run, self.files, self.damage, self.errors, self.name = run, files, damage, errors, name


def targets(folder: Path) -> dict[str, Target]:
    folder.mkdir(parents=True)
    tiff = tiffs()
    return {
        "slices": Target(read_slice, tiff | pictures()),
        "volumes": Target(read_volume, volumes(folder), damaged_volume),
        "studies": Target(read_study, studies(folder)),
        "check": Target(check_patient, {"colours.tif": tiff["colours.tif"]}, name="P_1/P_1_1.tif"),
    }


def fuzz(target: Target, folder: Path, seconds: float, draw: random.Random) -> int:
    """Try damaged files until the time is over; how many."""
    for name, content in target.files.items():  # whole, they are read; it loads what is loaded once
        path = folder / (target.name or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        target.run(path)
        path.unlink()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        name, content = draw.choice(list(target.files.items()))
        path = folder / (target.name or name)
        path.write_bytes(target.damage(content, draw))
        faulthandler.dump_traceback_later(SECONDS_EACH, exit=True)
        try:
            target.run(path)
        except target.errors:
            pass
        finally:
            faulthandler.cancel_dump_traceback_later()
        path.unlink()
        count += 1
    return count


def main(folder: Path, seconds: float, seed: int, names: Iterable[str] = ()) -> int:
    faulthandler.enable(all_threads=False)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    every = targets(folder / "valid")
    chosen = {name: every[name] for name in names or every}
    draw = random.Random(seed)
    for name, target in chosen.items():
        (folder / name).mkdir(parents=True)
        try:
            count = fuzz(target, folder / name, seconds / len(chosen), draw)
        except Exception:
            traceback.print_exc()
            return 1
        print(f"{name}: {count} inputs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
