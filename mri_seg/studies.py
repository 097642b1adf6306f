"""Find the cases to segment in a folder of unknown make."""

from __future__ import annotations

import itertools
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import tifffile

from mri_seg.dicom.series import Series, choose_flair, find_series, is_dicom
from mri_seg.files import safe_name
from mri_seg.reader import PICTURE_SUFFIXES, TIFF_SUFFIXES

__all__ = ["CaseFinder", "find_cases"]

logger = logging.getLogger(__name__)

_VOLUME = re.compile(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", re.IGNORECASE)
_SLICES = {"tiff": TIFF_SUFFIXES, "picture": PICTURE_SUFFIXES}
_NUMBERED = re.compile(r"^(?P<stem>.*?)[ _.-]?(?P<number>\d+)$")
_NAMES_FLAIR = re.compile(r"(^|[^a-z0-9])(flair|t2f)($|[^a-z0-9])", re.IGNORECASE)
_BIDS = re.compile(r"^sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*_(?P<suffix>[A-Za-z0-9]+)$")
_RESULT = re.compile(r"_(mask|seg|probability)$", re.IGNORECASE)


class CaseFinder(Iterable[dict]):
    """The cases that :py:func:`find_cases` finds, looked for anew whenever they are iterated over.

    Args:
        dataset_dir: a folder or a file.
        options: further arguments of :py:func:`find_cases`.
    """

    def __init__(self, dataset_dir: PathLike | str, **options: Any) -> None:
        self.dataset_dir = dataset_dir
        self.options = options

    def __iter__(self) -> Iterator[dict]:
        """Find them."""
        return iter(find_cases(self.dataset_dir, **self.options))


def find_cases(
    dataset_dir: PathLike | str,
    *,
    series_uid: str | None = None,
    series_description: str | None = None,
    exclude: PathLike | str | None = None,
) -> list[dict]:
    """Find the cases in a folder, or the one case that a file is.

    Searches the folder and all folders in it, for all kinds of files at once:

    - DICOM: of each study the FLAIR series, found by description and timing
      (:py:func:`mri_seg.dicom.series.choose_flair`), wherever its files lie.
    - TIFF, PNG and JPEG: files of one folder whose names differ in their last number alone are the slices of one case,
      in the order of the numbers; a TIFF file of several pages is a case.
    - NIfTI, NRRD and MetaImage: a file is a case. Where some files of a folder name FLAIR (``_flair``, ``-t2f``), or
      files are named as BIDS has it (``sub-01_FLAIR.nii.gz``), those that name another contrast are passed over.

    Files that end in ``_mask`` are reference masks, used when every slice of a case has one.

    Args:
        dataset_dir: a folder of any of these, or one file.
        series_uid: the DICOM series to take (SeriesInstanceUID); studies that do not hold it are passed over.
        series_description: text that the description of the DICOM series to take holds.
        exclude: a folder not to search, such as that of the results.

    Returns:
        for each case a dictionary with ``case``, its name, unique among the cases; ``image``, a list of files in order;
        ``source``, one of ``dicom``, ``tiff``, ``picture`` and ``volume``; and ``label``, a list of files, where there
        is a reference; sorted by name. A case that cannot be segmented, such as a study without a FLAIR series, has
        ``error``, the reason.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        ValueError: when it holds no case.
    """
    root = Path(dataset_dir)
    if not root.exists():
        raise FileNotFoundError(
            f"{root}: no such folder or file. Give dataset_dir a folder of DICOM, NIfTI, NRRD, MHA, TIFF, PNG or JPEG "
            "files, or one file."
        )
    if root.is_file():
        folders = [(root.parent, [root])]
    else:
        kept_out = frozenset() if exclude is None else frozenset({Path(exclude).resolve()})
        folders = [
            (folder, sorted(folder / name for name in names if not name.startswith(".")))
            for folder, names in _walk(root, kept_out)
        ]
    found = [case for folder, files in folders for case in _cases_of_folder(folder, files)]
    dicom = [file for _, files in folders for file in files if _may_be_dicom(file) and is_dicom(file)]
    found += _cases_of_dicom(dicom, series_uid, series_description)
    if not found:
        raise ValueError(
            f"{root}: holds no case to segment: no DICOM MR series, no NIfTI, NRRD or MHA volume, no TIFF, PNG or JPEG "
            "slice."
        )
    _name_apart(found, root)
    return sorted(found, key=lambda case: case["case"])


def _walk(root: Path, above: frozenset[Path]) -> Iterator[tuple[Path, list[str]]]:
    above = above | {root.resolve()}
    subfolders = []
    names = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            if not entry.name.startswith(".") and entry.resolve() not in above:  # a link upwards has no end
                subfolders.append(entry)
        else:
            names.append(entry.name)
    yield root, names
    for folder in subfolders:
        yield from _walk(folder, above)


def _cases_of_folder(folder: Path, files: list[Path]) -> Iterator[dict]:
    yield from _cases_of_volumes([file for file in files if _VOLUME.search(file.name)])
    for source, suffixes in _SLICES.items():
        slices = [file for file in files if file.suffix.lower() in suffixes]
        masks = {file.stem[: -len("_mask")]: file for file in slices if file.stem.endswith("_mask")}
        for name, images, error in _group(folder, [file for file in slices if not file.stem.endswith("_mask")]):
            case: dict = {"case": name, "image": [str(file) for file in images], "source": source}
            if error:
                case["error"] = error
            if all(file.stem in masks for file in images):
                case["label"] = [str(masks[file.stem]) for file in images]
            yield case


def _cases_of_volumes(files: list[Path]) -> Iterator[dict]:
    stems = {file: _VOLUME.sub("", file.name) for file in files}
    images = {file: stem for file, stem in stems.items() if not _RESULT.search(stem)}
    masks = {stem[: -len("_mask")]: file for file, stem in stems.items() if stem.lower().endswith("_mask")}
    flair = {file: stem for file, stem in images.items() if _NAMES_FLAIR.search(stem)}
    others = {file: stem for file, stem in images.items() if file not in flair}
    images = flair or {file: stem for file, stem in others.items() if not _BIDS.match(stem)}
    for file in others:
        if file not in images:
            logger.info("%s: passed over, because its name says that it is not FLAIR.", file)
    for file, stem in images.items():
        case: dict = {"case": stem, "image": [str(file)], "source": "volume"}
        if stem in masks:
            case["label"] = [str(masks[stem])]
        yield case


def _may_be_dicom(file: Path) -> bool:
    others = TIFF_SUFFIXES + PICTURE_SUFFIXES
    return file.suffix.lower() not in others and not _VOLUME.search(file.name)


def _cases_of_dicom(files: list[Path], series_uid: str | None, series_description: str | None) -> Iterator[dict]:
    all_series, errors = _readable_series(files)
    for file, error in _one_a_folder(errors).items():
        yield {"case": file.name, "image": [str(file)], "source": "dicom", "error": error}
    if series_uid is not None and files and series_uid not in {series.uid for series in all_series}:
        listed = "".join(f"\n  {series}" for series in all_series)
        raise ValueError(f"series_uid: no series {series_uid}; expected one of the {len(all_series)} found:{listed}")
    studies: dict[str, list[Series]] = defaultdict(list)
    for series in all_series:
        studies[series.study_uid].append(series)
    for study in studies.values():
        if series_uid is not None and series_uid not in {series.uid for series in study}:
            continue
        try:
            series = choose_flair(study, series_uid=series_uid, series_description=series_description)
        except ValueError as error:
            names = [str(file) for series in study for file in series.files]
            yield {"case": study[0].name, "image": names, "source": "dicom", "error": str(error)}
        else:
            about = {"series_uid": series.uid, "series_description": series.description}
            yield {"case": series.name, "image": [str(file) for file in series.files], "source": "dicom", **about}


def _readable_series(files: list[Path]) -> tuple[list[Series], dict[Path, str]]:
    """Series that can be read, and the error of each file or series that cannot."""
    try:
        return find_series(files), {}
    except ValueError:  # find out which, so that the others are segmented all the same
        members: dict[str, list[Path]] = defaultdict(list)
        errors: dict[Path, str] = {}
        for file in files:
            try:
                for series in find_series([file]):
                    members[series.uid].append(file)
            except ValueError as error:
                errors[file] = str(error)
        readable = []
        for of_series in members.values():
            try:
                readable += find_series(of_series)
            except ValueError as error:
                errors[of_series[0]] = str(error)
        return readable, errors


def _one_a_folder(errors: dict[Path, str]) -> dict[Path, str]:
    """Errors of files, where those of one kind in one folder become one: a folder may hold hundreds of them."""
    kinds: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file, error in errors.items():
        kinds[file.parent, error.replace(str(file), "")].append(file)
    told = {}
    for (folder, _), files in kinds.items():
        others = f" The same holds for {len(files) - 1} more files in {folder}." if len(files) > 1 else ""
        told[files[0]] = errors[files[0]] + others
    return told


def _group(folder: Path, images: list[Path]) -> Iterator[tuple[str, list[Path], str | None]]:
    """Gather slices into cases by the name before the last number: name, files in order, error if any."""
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    errors: dict[str, str] = {}
    for file in images:
        match = _NUMBERED.match(file.stem)
        if match is None:
            yield file.stem, [file], None
            continue
        slices, number = numbered[match["stem"]], int(match["number"])
        if number in slices:
            errors[match["stem"]] = f"{file}: slice {number} is also {slices[number]}. Keep one of them."
        slices[number] = file
    for stem, slices in numbered.items():
        files = [slices[number] for number in sorted(slices)]
        if len(files) == 1 or _pages(files[0]) > 1:
            for file in files:
                yield (stem if len(files) == 1 and stem else file.stem), [file], errors.get(stem)
        else:
            yield stem or folder.resolve().name, files, errors.get(stem)


def _pages(file: Path) -> int:
    """Pages of a TIFF file, 1 where it cannot be read: the reader's error says more."""
    if file.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    except Exception:
        return 1


def _name_apart(cases: list[dict], root: Path) -> None:
    """Give each case a name that files may have, and that differs from others' in more than upper and lower case.

    The folder comes before the names of cases that share one, and a number behind them if that does not help.
    """
    for case in cases:
        case["case"] = safe_name(case["case"])
    for same in _by_name(cases):
        for case in same:
            first = Path(case["image"][0])
            parts = first.relative_to(root).parts[:-1] if root.is_dir() else ()
            case["case"] = safe_name("_".join((*parts, case["case"])))
    taken = {case["case"].casefold() for case in cases}
    for same in _by_name(cases):
        for case in sorted(same, key=lambda case: case["image"][0]):
            numbered = (f"{case['case']}_{number}" for number in itertools.count(1))
            case["case"] = next(name for name in numbered if name.casefold() not in taken)
            taken.add(case["case"].casefold())


def _by_name(cases: list[dict]) -> list[list[dict]]:
    """Cases that share a name, which macOS and Windows read in any case."""
    by_name = defaultdict(list)
    for case in cases:
        by_name[case["case"].casefold()].append(case)
    return [same for same in by_name.values() if len(same) > 1]
