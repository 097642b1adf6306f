"""Check the files of a TCGA-LGG folder before training on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from mri_seg.utils.size_limit import SizeLimit

from .index import folder_name, institution, numbered_files, partner, require_patients

__all__ = ["CheckReport", "Counts", "Defect", "check"]


class Counts(NamedTuple):
    """Numbers of patients, of slices, and of slices with tumour in their mask."""

    patients: int = 0
    slices: int = 0
    tumor_slices: int = 0

    def plus(self, other: Counts) -> Counts:
        """Add the numbers of two counts."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Defect(NamedTuple):
    """Something wrong with a file or folder."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Attributes:
        institutions: counts by institution, sorted; a patient with two folders counts once.
        defects: all defects, by patient.
    """

    institutions: dict[str, Counts]
    defects: list[Defect]

    @property
    def total(self) -> Counts:
        """Counts over all institutions."""
        total = Counts()
        for counts in self.institutions.values():
            total = total.plus(counts)
        return total

    def lines(self) -> Iterator[str]:
        """The table, the defects and their number, as ``check`` prints them."""
        yield self.table()
        yield from map(str, self.defects)
        yield f"{len(self.defects) or 'no'} defect{'' if len(self.defects) == 1 else 's'}"

    def table(self) -> str:
        """The counts as a text table with one line per institution and one for the total."""
        lines = [f"{'institution':<12}{'patients':>10}{'slices':>10}{'tumour slices':>15}"]
        for name, counts in (*self.institutions.items(), ("total", self.total)):
            lines.append(f"{name:<12}{counts.patients:>10}{counts.slices:>10}{counts.tumor_slices:>15}")
        return "\n".join(lines)


class _Pixels(NamedTuple):
    """Properties of a decoded file that the check needs; the pixels themselves are not kept."""

    shape: tuple[int, ...]
    dtype: np.dtype
    values: np.ndarray  # distinct values, sorted; only for masks


def check(dataset_dir: str | PathLike[str]) -> CheckReport:
    """Decode every slice and mask of a folder, count them, and report all defects.

    Defects are: an image without a mask, or a mask without an image; a gap in the slice numbers, which run from 1; a
    file that cannot be decoded completely; an image that is not 8-bit with three channels ``(H, W, 3)`` or one, or
    differs in size from the patient's other images; a mask that is not 8-bit ``(H, W)`` with only the values 0 and 255,
    or differs in size from its image; a TCGA patient's folder without slices; and a patient with two folders.

    Args:
        dataset_dir: folder that contains the patient folders.

    Returns:
        the counts and the defects.

    Raises:
        FileNotFoundError: when the folder does not exist.
        NotADirectoryError: when it is a file.
        ValueError: when it contains no patient.
    """
    tree = require_patients(dataset_dir)
    institutions: dict[str, Counts] = {}
    defects = [Defect(folder, "a patient's folder without slices") for folder in tree.empty]
    with ThreadPoolExecutor() as pool:
        checks = {
            patient: [pool.submit(_check_patient, folder) for folder in folders]
            for patient, folders in tree.patients.items()
        }
        for patient, (first, *others) in checks.items():
            counts, found = first.result()
            name = institution(patient)
            institutions[name] = institutions.get(name, Counts()).plus(counts)
            defects += found
            original, *copies = tree.patients[patient]
            for folder, copy in zip(copies, others, strict=True):
                defects.append(Defect(folder, f"patient {patient} is there twice, also in {original}"))
                defects += copy.result()[1]
    return CheckReport(dict(sorted(institutions.items())), defects)


def _check_patient(folder: Path) -> tuple[Counts, list[Defect]]:
    try:
        images, masks = numbered_files(folder)
    except ValueError as error:  # two files for one slice; the message names them
        return Counts(patients=1), [Defect(folder, str(error))]
    defects = [
        *_unpaired(images, masks, "mask"),
        *_unpaired(masks, images, "image"),
        *_gaps(folder, images.keys() | masks.keys()),
    ]
    image_pixels = _decode_all(images, defects)
    mask_pixels = _decode_all(masks, defects, with_values=True)
    sizes = Counter(pixels.shape[:2] for pixels in image_pixels.values())
    size = sizes.most_common(1)[0][0] if sizes else None
    for number, pixels in image_pixels.items():
        defects += [Defect(images[number], problem) for problem in _image_problems(pixels, size)]
    for number, pixels in mask_pixels.items():
        image = image_pixels.get(number)
        defects += [Defect(masks[number], problem) for problem in _mask_problems(pixels, image)]
    tumor_slices = sum(bool(pixels.values.any()) for pixels in mask_pixels.values())
    return Counts(1, len(images), tumor_slices), defects


def _unpaired(files: Mapping[int, Path], partners: Mapping[int, Path], what: str) -> Iterator[Defect]:
    for number in sorted(files.keys() - partners.keys()):
        yield Defect(files[number], f"its {what} is missing, expected {partner(files[number]).name} beside it")


def _gaps(folder: Path, numbers: set[int]) -> Iterator[Defect]:
    """Yield a defect for each run of missing numbers, with the name of the first missing file."""
    for before, after in pairwise([0, *sorted(numbers)]):
        first, last = before + 1, after - 1
        if first <= last:
            slices = f"slice {first} is" if first == last else f"slices {first} to {last} are"
            yield Defect(
                folder / f"{folder_name(folder)}_{first}.tif",
                f"gap in the numbering, {slices} missing, expected 1 to {max(numbers)}",
            )


def _decode_all(files: Mapping[int, Path], defects: list[Defect], with_values: bool = False) -> dict[int, _Pixels]:
    """Decode the files in order of number; those that cannot be decoded become defects."""
    decoded = {}
    for number, path in sorted(files.items()):
        try:
            pixels = _decode(path)
        except Exception as error:  # tifffile and its codecs raise errors of many kinds for damaged files
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            defects.append(Defect(path, f"cannot be decoded, truncated or not a TIFF slice ({reason})"))
        else:
            decoded[number] = _Pixels(pixels.shape, pixels.dtype, np.unique(pixels) if with_values else np.empty(0))
    return decoded


def _decode(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != 1:
            raise ValueError(f"{len(tiff.pages)} images in the file, expected 1")
        page = tiff.pages[0]
        SizeLimit().add(path, page.shape)
        SizeLimit().add(path, page.chunks)
        pixels = page.asarray()
    if not pixels.size:
        raise ValueError("no pixels in the file")
    return pixels


def _image_problems(pixels: _Pixels, size: tuple[int, ...] | None) -> Iterator[str]:
    yield from _dtype_problems(pixels)
    channels = pixels.shape[2] if len(pixels.shape) == 3 else 1
    if channels not in (1, 3):  # a slice of one channel is FLAIR
        yield f"{channels} channels (shape {pixels.shape}), expected 3 (shape (H, W, 3)) or one"
    if pixels.shape[:2] != size:
        yield f"shape {pixels.shape}, but most of the patient's slices are {_by(size)}"


def _mask_problems(pixels: _Pixels, image: _Pixels | None) -> Iterator[str]:
    yield from _dtype_problems(pixels)
    if len(pixels.shape) != 2:
        yield f"shape {pixels.shape}, expected one channel (shape (H, W))"
    elif image and pixels.shape != image.shape[:2]:
        yield f"shape {pixels.shape}, but its image is {_by(image.shape[:2])}"
    others = [f"{value:g}" for value in pixels.values if value not in (0, 255)]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield f"values {', '.join(others[:5])}{more}, expected 0 and 255 only"


def _dtype_problems(pixels: _Pixels) -> Iterator[str]:
    if pixels.dtype != np.uint8:
        yield f"values of type {pixels.dtype}, expected uint8"


def _by(size: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, size or ()))
