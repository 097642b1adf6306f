"""Find the cases to segment in a folder of unknown make."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import tifffile

__all__ = ["find_cases"]

_TIFF = (".tif", ".tiff")
_NIFTI = (".nii", ".nii.gz")
_NUMBERED = re.compile(r"^(?P<stem>.*?)[ _.-]?(?P<number>\d+)$")


def find_cases(dataset_dir: PathLike | str) -> list[dict]:
    """Find the cases in a folder, or the one case that a file is.

    Searches the folder and all folders in it. TIFF files of one folder whose names differ in their last number alone
    are the slices of one case, in the order of the numbers; a TIFF file of several pages is a case, and so is a NIfTI
    file (``.nii``, ``.nii.gz``). TIFF files that end in ``_mask`` are reference masks, used when every slice of a case
    has one.

    Args:
        dataset_dir: a folder of patients, a patient's folder, a folder of slices or NIfTI files, or one file.

    Returns:
        for each case a dictionary with ``case``, its name, unique among the cases; ``image``, a list of TIFF files or
        one NIfTI file; and ``label``, of the same form, where there is a reference; sorted by name.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        ValueError: when it holds no case, or when a number occurs twice in one case.
    """
    root = Path(dataset_dir)
    if not root.exists():
        raise FileNotFoundError(
            f"{root}: no such folder or file. Give dataset_dir a folder of TIFF slices or NIfTI files, or one file."
        )
    if root.is_file():
        folders = [(root.parent, [root])]
    else:
        folders = [
            (folder, sorted(folder / name for name in names if not name.startswith(".")))
            for folder, names in _walk(root)
        ]
    found = [case for folder, files in folders for case in _cases_of_folder(folder, files)]
    if not found:
        raise ValueError(f"{root}: holds no TIFF or NIfTI file ({', '.join(_TIFF + _NIFTI)}) to segment.")
    _name_apart(found, root)
    return sorted(found, key=lambda case: case["case"])


def _walk(root: Path, above: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, list[str]]]:
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
    for file in files:
        if file.name.lower().endswith(_NIFTI):
            yield {"case": re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE), "image": str(file)}
    tiffs = [file for file in files if file.suffix.lower() in _TIFF]
    masks = {file.stem[: -len("_mask")]: file for file in tiffs if file.stem.endswith("_mask")}
    for name, slices in _group(folder, [file for file in tiffs if not file.stem.endswith("_mask")]):
        case: dict = {"case": name, "image": [str(file) for file in slices]}
        if all(file.stem in masks for file in slices):
            case["label"] = [str(masks[file.stem]) for file in slices]
        yield case


def _group(folder: Path, images: list[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Gather slices into cases by the name before the last number."""
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in images:
        match = _NUMBERED.match(file.stem)
        if match is None:
            yield file.stem, [file]
            continue
        slices, number = numbered[match["stem"]], int(match["number"])
        if number in slices:
            raise ValueError(f"{file}: slice {number} is also {slices[number]}. Keep one of them.")
        slices[number] = file
    for stem, slices in numbered.items():
        files = [slices[number] for number in sorted(slices)]
        if len(files) == 1 or _pages(files[0]) > 1:
            for file in files:
                yield (stem if len(files) == 1 and stem else file.stem), [file]
        else:
            yield stem or folder.resolve().name, files


def _pages(file: Path) -> int:
    """Pages of a TIFF file, 1 where it cannot be read: the reader's error says more."""
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    except Exception:
        return 1


def _name_apart(cases: list[dict], root: Path) -> None:
    """Put the folder before the names of cases that share one."""
    by_name = defaultdict(list)
    for case in cases:
        by_name[case["case"]].append(case)
    for same in by_name.values():
        for case in same if len(same) > 1 else ():
            first = Path(case["image"] if isinstance(case["image"], str) else case["image"][0])
            parts = first.relative_to(root).parts[:-1] if root.is_dir() else ()
            case["case"] = "_".join((*parts, case["case"]))
    names = [case["case"] for case in cases]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{root}: several cases would be named {', '.join(repeated)}. Rename the files of one.")
