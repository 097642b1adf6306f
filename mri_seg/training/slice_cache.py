"""Keep preprocessed slices on disk, memory-mapped, so that training needs no memory for them.

Processes on one machine map the same files, which the system keeps in memory as far as there is room.
(MONAI's ``PersistentDataset`` reads the whole file of a case for each item, and does not notice that an image changed.)
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.transforms import apply_transform
from monai.utils import ensure_tuple
from tqdm import tqdm

import mri_seg
from mri_seg.config.provenance import versions
from mri_seg.io.file_parts import file_parts
from mri_seg.utils.distributed import all_gather_object, broadcast_object, is_main_process, rank, world_size
from mri_seg.utils.files import atomic_write, read_json, write_json
from mri_seg.utils.memory import available_memory

__all__ = [
    "CACHES",
    "CachedCase",
    "MappedSlices",
    "SliceCache",
    "cache_cases",
    "cases_in_memory",
    "choose_cache",
    "describe_settings",
    "tumor_slices",
]

logger = logging.getLogger(__name__)

CACHES = ("auto", "memory", "disk")
"""Where slices may be kept."""

_TRAINING_FRACTION = 0.5  # of the available memory, for training slices
_VALIDATION_FRACTION = 0.25  # of the available memory, for validation volumes
_PACKAGES = ("monai", "torch", "numpy", "nibabel", "itk", "tifffile")  # which read and preprocess
_CODE = ("io", "dicom", "transforms", "training", "utils")  # folders of the package that do
_STALE = 24 * 3600  # seconds after which an unfinished file belongs to no running process
_FULL = (errno.ENOSPC, errno.EDQUOT)


class CachedCase(NamedTuple):
    """A case on disk.

    Attributes:
        file: its tensors, one after the other.
        parts: name, type and shape of each tensor.
        tumor: whether each slice has tumour.
    """

    file: Path
    parts: dict[str, tuple[str, tuple[int, ...]]]
    tumor: list[bool]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(_bytes_of(dtype, shape) for dtype, shape in self.parts.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Map the tensors ``(D, H, W)``; their file is read as they are used."""
        mapped = torch.from_file(str(self.file), shared=False, size=self.size, dtype=torch.uint8)
        found, start = {}, 0
        for name, (dtype, shape) in self.parts.items():
            end = start + _bytes_of(dtype, shape)
            found[name] = mapped[start:end].view(getattr(torch, dtype)).view(shape)
            start = end
        return found


class MappedSlices:
    """Slices of several cases, indexed like one tensor ``(slices, H, W)``; an index of several is within one case.

    Args:
        parts: slices of each case ``(D, H, W)``.
    """

    def __init__(self, parts: Sequence[torch.Tensor]) -> None:
        self.parts = parts
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __getitem__(self, index: int | torch.Tensor) -> torch.Tensor:
        """One slice ``(H, W)``, or several of one case ``(N, H, W)``."""
        first = int(torch.as_tensor(index).reshape(-1)[0])
        case = int(torch.searchsorted(self._ends, first, right=True))
        return self.parts[case][index - (int(self._ends[case - 1]) if case else 0)]


class SliceCache:
    """A folder of preprocessed cases.

    A case is named by the SHA-256 of its entry in the list of cases, the path, size and modification time of each of
    its files, and the settings. So any number of runs and data sets can share a folder, and a case that changed is
    another one. Data are written to a temporary file, synced to the disk and renamed; the description, without which
    they do not count, follows. Nothing is ever deleted but files that a killed process left unfinished a day ago.

    Args:
        folder: the folder; created when a case is written.
        settings: everything besides the files on which the content depends.
    """

    def __init__(self, folder: PathLike | str, settings: str) -> None:
        self.folder = Path(folder)
        self.settings = settings

    def find(self, case: Mapping[str, Any]) -> CachedCase | None:
        """Find a case; None if it is not there, or not whole."""
        file = self._file(case)
        try:
            found = read_json(file.with_suffix(".json"))
            parts = {name: (dtype, tuple(shape)) for name, (dtype, shape) in found["parts"].items()}
            cached = CachedCase(file, parts, [bool(flag) for flag in found["tumor"]])
            return cached if file.stat().st_size == cached.size else None
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def write(self, case: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> CachedCase:
        """Write the tensors ``(D, H, W)`` of a case.

        Raises:
            OSError: when the disk is full.
        """
        file = self._file(case)
        # Numbers of two bytes come first, so that they lie at even places.
        ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
        parts = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in ordered.items()
        }
        cached = CachedCase(file, parts, tumor_slices(tensors["label"]).tolist())
        try:
            with atomic_write(file) as unfinished, unfinished.open("wb") as stream:
                for tensor in ordered.values():
                    stream.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
                stream.flush()
                os.fsync(stream.fileno())
            description = {"case": str(case.get("case", "")), "image": str(ensure_tuple(case["image"])[0])}
            write_json(file.with_suffix(".json"), {**description, "parts": parts, "tumor": cached.tumor})
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OSError(_full(self.folder, cached.size, "the disk became full")) from error
        return cached

    def require_space(self, needed: int) -> None:
        """Refuse to begin if the disk has less free space than needed.

        Args:
            needed: bytes.

        Raises:
            OSError: with both sizes and what to do.
        """
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        if free < needed:
            raise OSError(_full(self.folder, needed, f"only {free / 1e9:.1f} GB are free"))

    def remove_stale(self) -> None:
        """Remove unfinished files that no running process writes."""
        for file in self.folder.glob(".part-*"):
            try:
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink(missing_ok=True)
            except OSError:  # another process removed it
                continue

    def _file(self, case: Mapping[str, Any]) -> Path:
        files = [part for path in _files_of(case) for part in file_parts(path)]
        if not files:
            raise ValueError(
                f"{case.get('case', 'a case')}: is not read from files, so its slices cannot be kept on disk. Use "
                "--cache memory."
            )
        stats = [(str(file.absolute()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
        text = json.dumps([self.settings, case, stats], sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.slices"


def describe_settings(transform: Any, **settings: Any) -> str:
    """Describe everything besides the files on which preprocessed slices depend, as text that repeats.

    Args:
        transform: the preprocessing; all that it and its parts hold counts.
        settings: further settings.

    Returns:
        a text with the transform, the settings, and the versions and the code that read and preprocess.
    """
    found = {name: number for name, number in versions().items() if name in _PACKAGES}
    described = {"transform": _described(transform, ()), "settings": settings, "versions": found, "code": _code()}
    return json.dumps(described, sort_keys=True, default=str)


def choose_cache(
    cache: str, data: Sequence[Mapping[str, Any]], prepare: Callable, *, device: torch.device | str = "cpu"
) -> tuple[str, int]:
    """Choose where training slices are kept: in memory if they take no more than half of what is available.

    What they take is estimated from the case with the largest files, which is preprocessed. Of several processes, each
    keeps its own copy in memory, and the first decides for all.

    Args:
        cache: ``auto``, ``memory`` or ``disk``.
        data: the cases.
        prepare: makes the tensors of a case that are kept.
        device: where slices in memory are kept.

    Returns:
        ``memory`` or ``disk``, and the estimated bytes of all cases (0 if they were not estimated).

    Raises:
        ValueError: when ``cache`` is something else.
    """
    if cache not in CACHES:
        raise ValueError(f"--cache: {cache!r}, expected {', '.join(CACHES)}.")
    if cache == "memory" or (cache == "auto" and not all(map(_files_of, data))):  # volumes are in memory already
        return "memory", 0
    return broadcast_object(_choice(cache, data, prepare, torch.device(device)) if is_main_process() else None)


def cache_cases(
    cache: SliceCache,
    data: Sequence[Mapping[str, Any]],
    prepare: Callable,
    *,
    estimated: int = 0,
    num_workers: int | None = 1,
    progress: bool = True,
) -> list[CachedCase]:
    """Find all cases in a cache; those that are missing are preprocessed and written, one by one in each thread.

    The processes of a machine share the work.

    Args:
        cache: the cache.
        data: the cases.
        prepare: makes the tensors of a case that are kept.
        estimated: estimated bytes of all cases.
        num_workers: number of threads.
        progress: whether to show a progress bar.

    Raises:
        OSError: when the disk has no room for the missing cases, before any is written; or when it becomes full.
    """
    place, places = _place_on_machine()
    found = {n: known for n, case in enumerate(data) if (known := cache.find(case)) is not None}
    missing = [n for n in range(len(data)) if n not in found]
    if place == 0:
        cache.remove_stale()
        sizes = [_size_of(case) for case in data]
        cache.require_space(int(estimated * sum(sizes[n] for n in missing) / max(1, sum(sizes))))
        logger.info(
            "The slices of %d cases are in %s; %d more are written there. Delete the folder when no training uses it.",
            len(found),
            cache.folder,
            len(missing),
        )

    def write(n: int) -> tuple[int, CachedCase]:
        case = data[n]
        return n, cache.write(case, _applied(prepare, case))

    with ThreadPoolExecutor(max(1, num_workers or 1)) as pool:
        # Only descriptions come back: no thread holds more than the case that it prepares.
        futures = [pool.submit(write, n) for n in missing[place::places]]
        try:
            done = tqdm(as_completed(futures), "Caching slices", len(futures), disable=not progress)
            found.update(future.result() for future in done)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # after the cases that are being written
            raise
    all_gather_object(None)  # wait for the other processes
    for n in missing:
        if n not in found:
            found[n] = cache.find(data[n]) or write(n)[1]
    return [found[n] for n in range(len(data))]


def cases_in_memory(data: Sequence[Mapping[str, Any]], transform: Callable, cache: str = "auto") -> int:
    """How many validation cases to keep in memory, for ``cache_num`` of MONAI's ``CacheDataset``.

    The others are read again in each validation.

    Args:
        data: the cases.
        transform: their preprocessing.
        cache: ``memory`` keeps all; ``auto`` and ``disk`` as many as take a quarter of the available memory, estimated
            from the case with the largest files.
    """
    if cache == "memory" or not data:
        return sys.maxsize
    return broadcast_object(_validation_cases(data, transform) if is_main_process() else None)


def tumor_slices(label: torch.Tensor) -> torch.Tensor:
    """Whether each slice of a label ``(D, H, W)`` has tumour ``(D,)``."""
    return (label > 0).flatten(1).any(dim=1)


def _applied(transform: Callable, case: Mapping[str, Any]) -> dict[str, Any]:
    """A case preprocessed by a transform that gives one dictionary."""
    done: Any = apply_transform(transform, dict(case))
    return dict(done)


def _validation_cases(data: Sequence[Mapping[str, Any]], transform: Callable) -> int:
    available = available_memory()
    if available is None:
        return sys.maxsize
    case = max(data, key=_size_of)
    each = max(1, _bytes_in(_applied(transform, case).values()))
    fitting = int(_VALIDATION_FRACTION * available / _place_on_machine()[1] / each)
    if fitting < len(data):
        logger.info(
            "%d of %d validation cases are kept in memory, of about %.2f GB each; the others are read again in each "
            "validation.",
            fitting,
            len(data),
            each / 1e9,
        )
        return fitting
    return sys.maxsize


def _choice(cache: str, data: Sequence[Mapping[str, Any]], prepare: Callable, device: torch.device) -> tuple[str, int]:
    available = available_memory()
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        available = free if available is None else min(available, free)
    case = max(data, key=_size_of)
    each = _bytes_in(_applied(prepare, case).values())
    sizes = sum(map(_size_of, data))
    estimated = int(each * (sizes / _size_of(case) if sizes else len(data)))
    if cache == "disk":
        return cache, estimated
    needed = estimated * _place_on_machine()[1]
    if available is None or needed <= _TRAINING_FRACTION * available:
        return "memory", estimated
    logger.info(
        "The training slices take about %.1f GB, and %.1f GB of memory are available, so they are kept on disk.",
        needed / 1e9,
        available / 1e9,
    )
    return "disk", estimated


def _place_on_machine() -> tuple[int, int]:
    """Rank among the processes of this machine, and their number."""
    if world_size() == 1:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", rank())), int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def _files_of(case: Mapping[str, Any]) -> list[Path]:
    found = [file for key in ("image", "sequences", "label") for file in ensure_tuple(case.get(key, ()))]
    return [Path(file) for file in found if isinstance(file, (str, PathLike))]


def _size_of(case: Mapping[str, Any]) -> int:
    """Bytes of the files of a case; missing ones, whose error reading raises, count nothing."""
    return sum(file.stat().st_size for file in _files_of(case) if file.is_file())


def _bytes_in(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def _bytes_of(dtype: str, shape: Sequence[int]) -> int:
    return int(functools.reduce(lambda a, b: a * b, shape, getattr(torch, dtype).itemsize))


def _full(folder: Path, needed: int, why: str) -> str:
    return (
        f"{folder}: {why}, and the slices that are written need about {needed / 1e9:.1f} GB. Free space, or give "
        "--cache_dir a folder on another disk, or --cache memory."
    )


def _described(part: Any, above: tuple[int, ...]) -> Any:
    """What a transform holds, as values of JSON; objects by their class and attributes."""
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if id(part) in above:
        return "above"
    above = (*above, id(part))
    if isinstance(part, Mapping):
        return {str(key): _described(value, above) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_described(value, above) for value in part]
    if isinstance(part, (set, frozenset)):
        return sorted(str(value) for value in part)
    if isinstance(part, torch.Tensor) or type(part).__module__ == "numpy":
        return str(part.tolist()) if hasattr(part, "tolist") else str(part)
    if isinstance(part, type) or (callable(part) and hasattr(part, "__qualname__")):
        return f"{getattr(part, '__module__', '')}.{part.__qualname__}"
    if isinstance(part, functools.partial):
        return ["partial", *(_described(value, above) for value in (part.func, part.args, part.keywords))]
    name = f"{type(part).__module__}.{type(part).__qualname__}"
    return [name, {key: _described(value, above) for key, value in sorted(getattr(part, "__dict__", {}).items())}]


@functools.cache
def _code() -> str:
    """SHA-256 of the modules that read and preprocess."""
    root = Path(str(importlib.import_module(mri_seg.__name__).__file__)).parent
    files = sorted(file for name in _CODE for file in (root / name).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
