"""Read the headers of DICOM files: only the requested parts, with damaged values treated as missing."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import pydicom
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial, read_preamble, read_sequence_item
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DICOMSequence
from pydicom.tag import BaseTag, Tag

from mri_seg.dicom.quiet import quiet_pydicom

__all__ = [
    "FileCache",
    "bare_sop_class",
    "frame_count",
    "functional_group",
    "number_of",
    "read_dataset",
    "read_header",
    "sequence_of",
    "source_headers",
    "value_of",
]

_MARK = b"DICM"  # after a preamble of 128 bytes
_BEGINNING = 4096  # bytes; the SOP class is among the first elements of a data set
_LARGEST_DEFLATED = 2**30  # bytes
_PIECE = 2**20
_DEFERRED = 2**16  # bytes; longer values, such as pixels, stay in the file until they are needed
_PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")
_PIXELS = 0x7FE0  # group
_KEPT_SOURCES = 1  # series

# The functional groups of the source images that a SEG or a report needs.
_SOURCE_GROUPS = frozenset(
    Tag(keyword)
    for keyword in (
        "FrameContentSequence",
        "PixelMeasuresSequence",
        "PlaneOrientationSequence",
        "PlanePositionSequence",
    )
)

_T = TypeVar("_T")


class FileCache(Generic[_T]):
    """Cache of values that were computed from files; valid while the files are unchanged. The oldest are dropped first.

    Threads share it without a lock, so that a process forked meanwhile cannot hang on one. Each step is a single
    operation on a dictionary; at worst, two threads compute the same value.

    Args:
        largest: maximum number of values.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._kept: dict[Hashable, _T] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, files: Iterable[Path], make: Callable[[], _T]) -> _T:
        """Return the value for these files in this order; if there is none, compute it with ``make``."""
        key = self._key(files)
        found = None if key is None else self._kept.get(key)
        if found is None:
            found = make()
            self._put(key, found)
        return found

    def put(self, files: Iterable[Path], made: _T) -> None:
        """Keep a value for files."""
        self._put(self._key(files), made)

    def _put(self, key: Hashable | None, made: _T) -> None:
        if key is None:
            return
        self._kept[key] = made
        for oldest in list(self._kept)[: -self.largest]:
            self._kept.pop(oldest, None)

    @staticmethod
    def _key(files: Iterable[Path]) -> Hashable | None:
        """Names of the files, with size, time and inode; None if a file does not exist."""
        try:
            stats = [(str(file), os.stat(file)) for file in files]
        except OSError:
            return None
        return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def read_header(path: Path, tags: Sequence[str | int] | None = None, *, first_frame: bool = False) -> Dataset:
    """Read the header of a DICOM file.

    Args:
        path: the file.
        tags: keywords or tags of the attributes to read; by default all. If some are given, sequences stay as they are
            in the file: :func:`value_of`, :func:`functional_group` and similar functions skip damaged values in them.
        first_frame: whether to read only the functional groups of the first frame, since the groups of all frames make
            up most of the header of an enhanced image.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file cannot be read as DICOM.
    """
    return _read(path, tags, pixels=False, first_frame=first_frame)


def read_dataset(path: Path, tags: Sequence[str | int]) -> Dataset:
    """Read attributes of a DICOM file and its pixels, which stay in the file until needed, unless it is deflated.

    Args:
        path: the file.
        tags: keywords or tags of the attributes to read.

    Returns:
        the attributes; without pixels if the file ends within compressed pixels.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file cannot be read as DICOM.
    """
    data = _read(path, tags, pixels=True, first_frame=False)
    # If a value of unknown length has no end, pydicom returns nothing at all.
    return data if len(data) else _read(path, tags, pixels=False, first_frame=False)


def source_headers(paths: Sequence[Path]) -> list[Dataset]:
    """Read the headers of the source images of a DICOM file that is to be written.

    Private attributes are removed, and so are functional groups of frames that references do not need. The headers of
    the last series are cached for the next file that refers to it, so changes to them stay.

    Args:
        paths: the files of a series.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when a file cannot be read as DICOM.
    """
    return _sources.get(paths, lambda: [_source_header(path) for path in paths])


_sources: FileCache[list[Dataset]] = FileCache(_KEPT_SOURCES)


@quiet_pydicom()
def _source_header(path: Path) -> Dataset:
    data = _read(path, None, pixels=False, first_frame=False, clean=False)
    _leave_out(data, lambda tag: tag.is_private)
    for groups in sequence_of(data, "PerFrameFunctionalGroupsSequence"):
        _leave_out(groups, lambda tag: tag not in _SOURCE_GROUPS)
    _leave_out_unreadable(data)
    return data


def _leave_out(data: Dataset, unwanted: Callable[[BaseTag], bool]) -> None:
    for tag in filter(unwanted, list(data.keys())):
        del data[tag]


@quiet_pydicom()
def _read(
    path: Path, tags: Sequence[str | int] | None, *, pixels: bool, first_frame: bool, clean: bool = True
) -> Dataset:
    try:
        with path.open("rb") as file:
            bare = _is_bare(file)
            deflated = _is_deflated(file, bare)
            data = read_partial(
                file,
                _stop(pixels, first_frame and not deflated),
                defer_size=None if deflated else _DEFERRED,
                force=bare,
                specific_tags=None if tags is None else [Tag(tag) for tag in tags],
            )
            if first_frame and not deflated:
                _read_first_frame(file, data)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except Exception as error:  # pydicom raises errors of many kinds for damaged files
        raise ValueError(
            f"{path}: cannot be read as DICOM ({error}). Copy the file again from its source, or leave it out."
        ) from error
    data.buffer = None  # for a deflated file, this is all of its inflated content
    _name_syntax(data)
    if clean:
        _leave_out_unreadable(data, sequences=tags is None)
    return data


def _stop(pixels: bool, first_frame: bool) -> Callable[[BaseTag, str | None, int], bool] | None:
    """Condition to stop reading: before the frames, before the pixels, or None to read everything."""
    if first_frame:
        return lambda tag, vr, length: tag >= _PER_FRAME
    return None if pixels else lambda tag, vr, length: tag.group >= _PIXELS


def _read_first_frame(file: BinaryIO, data: Dataset) -> None:
    """Read the first item of the frames' functional groups; the file is positioned before them, if it has any."""
    implicit, little = map(bool, data.original_encoding)
    head = file.read(8 if implicit else 12)
    if len(head) < 8 or struct.unpack("<HH" if little else ">HH", head[:4]) != (_PER_FRAME.group, _PER_FRAME.element):
        return
    if head[-4:] == bytes(4):  # of length 0
        return
    groups = read_sequence_item(file, implicit, little, data.original_character_set)
    if groups is not None:
        data.PerFrameFunctionalGroupsSequence = [groups]


def bare_sop_class(path: Path) -> str | None:
    """SOP class of a file that begins with its data set or file meta information, without preamble and "DICM".

    Returns:
        the UID, if it is a storage class of the standard; None for all other files.
    """
    try:
        with path.open("rb") as file:
            return _bare_sop_class(file.read(_BEGINNING))
    except OSError:  # a folder, or no such file
        return None


def _is_bare(file: BinaryIO) -> bool:
    """Whether a file is DICOM without a preamble."""
    beginning = file.read(_BEGINNING)
    file.seek(0)
    return _bare_sop_class(beginning) is not None


@quiet_pydicom()
def _bare_sop_class(beginning: bytes) -> str | None:
    # Every file can be parsed in some way, so check the first group (meta information or identification) first.
    if beginning[128:132] == _MARK or beginning[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return None
    try:
        data = read_partial(
            io.BytesIO(beginning), lambda tag, vr, length: tag > 0x00080016, force=True, specific_tags=[Tag(0x00080016)]
        )
        name = data.get("SOPClassUID")
    except Exception:  # pydicom raises errors of many kinds for what is not DICOM
        return None
    known = isinstance(name, uid.UID) and name.type == "SOP Class" and "Storage" in name.name
    return str(name) if known else None


def _name_syntax(data: Dataset) -> None:
    """If the file gives no transfer syntax and is not compressed, set the one with which it was read."""
    if data.file_meta.get("TransferSyntaxUID"):
        return
    # As it was read: pydicom annotates what it gives as an element made of it.
    pixels: Any = data.get_item("PixelData", keep_deferred=True) if "PixelData" in data else None
    if isinstance(pixels, RawDataElement) and pixels.length == 0xFFFFFFFF:
        return
    implicit, little = map(bool, data.original_encoding)
    data.file_meta.TransferSyntaxUID = {
        (True, True): uid.ImplicitVRLittleEndian,
        (False, True): uid.ExplicitVRLittleEndian,
        (False, False): uid.ExplicitVRBigEndian,
    }[implicit, little]


def _is_deflated(file: BinaryIO, bare: bool) -> bool:
    """Whether a file is deflated; refuse one that would fill the memory, since pydicom inflates it as a whole."""
    read_preamble(file, force=bare)
    meta = pydicom.filereader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return False
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    packed = file.read(_PIECE)
    while packed and size <= _LARGEST_DEFLATED:
        size += len(unpacker.decompress(packed, _PIECE))
        packed = unpacker.unconsumed_tail or file.read(_PIECE)
    if size > _LARGEST_DEFLATED:
        raise ValueError(f"it inflates to more than {_LARGEST_DEFLATED // 2**20} MiB; dcmconv can inflate it")
    file.seek(0)
    return True


def _leave_out_unreadable(data: Dataset, *, sequences: bool = True) -> None:
    """Remove attributes whose values cannot be read; pydicom only reads a value when it is first used.

    Args:
        data: a data set; its pixels are not read.
        sequences: whether to check the items of its sequences.
    """
    for tag in list(data.keys()):
        if tag.group == _PIXELS:
            continue
        try:
            element = data[tag]
            for item in element.value if sequences and element.VR == "SQ" else ():
                _leave_out_unreadable(item)
        except Exception:  # pydicom raises errors of many kinds for damaged values
            del data[tag]


def value_of(data: Dataset, keyword: str) -> Any:
    """Value of an attribute; None if it is missing or cannot be read."""
    tag = tag_for_keyword(keyword)
    try:
        return data[tag].value if tag is not None and tag in data else None
    except Exception:  # pydicom raises errors of many kinds for damaged values
        return None


def number_of(data: Dataset, keyword: str) -> float | None:
    """Value of a numeric attribute, or its first value; None if it is missing, empty or not a finite number."""
    try:
        value = value_of(data, keyword)
        if isinstance(value, (list, MultiValue)):
            value = value[0] if len(value) else None
        number = None if value in (None, "") else float(value)
        return number if number is not None and math.isfinite(number) else None
    except (TypeError, ValueError):
        return None


def frame_count(data: Dataset) -> int:
    """Number of frames that a file declares."""
    return max(int(number_of(data, "NumberOfFrames") or 1), 1)


def functional_group(header: Dataset, sequence: str, frame: int = 0) -> Dataset | None:
    """Item of a functional group for a frame of an enhanced image: the frame's own, otherwise the shared one."""
    for keyword, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = sequence_of(header, keyword)
        if number < len(groups) and (items := sequence_of(groups[number], sequence)):
            return items[0]
    return None


def sequence_of(data: Dataset, keyword: str) -> Sequence[Dataset]:
    """Items of a sequence; empty if it is missing or not a sequence."""
    value = value_of(data, keyword)
    return value if isinstance(value, DICOMSequence) else []
