"""Sort files into images, labels and others, and group slices into volumes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import tifffile

from mri_seg.io.label_names import Label, label_of
from mri_seg.io.nibabel_files import is_header, is_pair, other_half
from mri_seg.io.slice_reader import PICTURE_SUFFIXES, TIFF_SUFFIXES

__all__ = ["Image", "SortedFiles", "sort_files", "source_of", "stem_of"]

_VOLUME = re.compile(r"\.(nii|nii\.gz|nrrd|mha|mhd|mg[hz]|hdr|img|hdr\.gz|img\.gz)$", re.IGNORECASE)
_SLICES = {"tiff": TIFF_SUFFIXES, "picture": PICTURE_SUFFIXES}
_NUMBERED = re.compile(r"^(?P<stem>.*?)[ _.-]?(?P<number>\d+)$")


class Image(NamedTuple):
    """An image and its files.

    Attributes:
        name: its name without suffix; for slices, also without their number.
        files: its files in order; for a pair of header and image, only the image.
        source: ``volume``, ``tiff`` or ``picture``.
        error: why it cannot be read; None if it can.
    """

    name: str
    files: tuple[Path, ...]
    source: str
    error: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that contains it."""
        return self.files[0].parent


@dataclass
class SortedFiles:
    """Files by kind.

    Attributes:
        images: images of every kind.
        labels: labels by source: ``volume``, ``tiff`` and ``picture``.
        others: all other files, including DICOM.
    """

    images: list[Image] = field(default_factory=list)
    labels: dict[str, list[Label]] = field(default_factory=lambda: defaultdict(list))
    others: list[Path] = field(default_factory=list)


def sort_files(files: Sequence[Path], found: SortedFiles, root: Path | None) -> None:
    """Sort the files of one folder.

    Files in one folder whose names differ only in their last number are the slices of one image, in the order of the
    numbers. A TIFF file with several pages is an image, and so is a NIfTI, NRRD, MetaImage, MGH or MGZ file, or a pair
    of ``.hdr`` and ``.img``.

    Args:
        files: the files.
        found: where the sorted files are added.
        root: the folder that is searched; None for a file that the user named, which is never taken as a label.
    """
    slices: dict[str, list[Path]] = {source: [] for source in _SLICES}
    for file in files:
        source, stem = source_of(file), stem_of(file)
        if source is None:
            found.others.append(file)
        elif root is not None and (label := label_of(file, stem, root)):
            if not is_header(file):  # of a pair, only the image counts
                found.labels[source].append(label)
        elif source == "volume":
            if root is None or not is_header(file):
                found.images.append(Image(stem, (file,), source))
        else:
            slices[source].append(file)
    for source, of_source in slices.items():
        for name, members, error in _group(of_source):
            found.images.append(Image(name, tuple(members), source, error))


def stem_of(file: Path) -> str:
    """Name of an image file without its suffixes: ``a.v2.nii.gz`` gives ``a.v2``."""
    return _VOLUME.sub("", file.name) if _VOLUME.search(file.name) else file.stem


def source_of(file: Path) -> str | None:
    """Source of an image file; None for other files."""
    if _VOLUME.search(file.name):
        # A file named .img without a header may be DICOM.
        return "volume" if not is_pair(file) or other_half(file) is not None else None
    return next((source for source, suffixes in _SLICES.items() if file.suffix.lower() in suffixes), None)


def _group(images: Sequence[Path]) -> Iterator[tuple[str, list[Path], str | None]]:
    """Group slices into images by the name before the last number: yields name, files in order, and error if any."""
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    errors: dict[str, str] = {}
    for file in images:
        match = _NUMBERED.match(file.stem)
        if match is None:
            yield file.stem, [file], None
            continue
        slices, number = numbered[match["stem"]], int(match["number"])
        if number in slices:
            errors[match["stem"]] = f"{file}: has slice number {number}, like {slices[number]}. Keep only one of them."
        slices[number] = file
    for stem, slices in numbered.items():
        files = [slices[number] for number in sorted(slices)]
        if len(files) == 1 or _pages(files[0]) > 1:
            for file in files:
                yield (stem if len(files) == 1 and stem else file.stem), [file], errors.get(stem)
        else:
            yield stem or files[0].parent.resolve().name, files, errors.get(stem)


def _pages(file: Path) -> int:
    """Number of pages of a TIFF file; 1 if it cannot be read, since the reader raises a better error later."""
    if file.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    except Exception:
        return 1
