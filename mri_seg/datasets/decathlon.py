"""Lists of cases in JSON, in the form of the Medical Segmentation Decathlon (MSD), as MONAI reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mri_seg.datasets.found import Found, case_of
from mri_seg.datasets.splits import SECTIONS
from mri_seg.io.cases import make_names_unique
from mri_seg.io.channels import flair_volume
from mri_seg.io.image_files import source_of, stem_of

__all__ = ["find", "read_datalist"]

_LAST_NUMBER = re.compile(r"[ _.-]?\d+$")


def find(root: Path) -> Found | None:
    """Find the cases that the lists of a ``dataset.json`` name; None if there is none with such lists.

    Raises:
        ValueError: as in :py:func:`read_datalist`.
    """
    file = root / "dataset.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError:  # other forms may not need it
        return None
    lists = content.get("training") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not lists:
        return None
    return read_datalist(file, root)._replace(form="Medical Segmentation Decathlon (dataset.json with lists)")


def read_datalist(file: Path, root: Path) -> Found:
    """Read a list of cases in MONAI's form.

    The file is a JSON object with lists of cases under ``training``, ``validation`` and ``test``. A case is an object
    with ``image`` and ``label`` (a path, or a list of slices or of DICOM files; an image also a list of volumes, FLAIR
    and then further sequences) and, optionally, ``fold`` (a whole
    number, in ``training``), ``case`` (its name), ``patient`` or ``group`` (its patient), ``institution`` and
    ``volume`` (the index of FLAIR in a 4D file). A case that is only a path has no label and is skipped.

    Args:
        file: the JSON file.
        root: folder from which relative paths start; if nothing is there, they start from the folder of the file.

    Raises:
        FileNotFoundError: when the file, or a file that it names, does not exist.
        ValueError: when the file is not such a list.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file. Give --datalist a JSON file that lists the cases.")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not a JSON file ({error}), expected lists of cases.") from error
    known = " or ".join(SECTIONS)
    if not isinstance(content, dict) or not any(isinstance(content.get(section), list) for section in SECTIONS):
        raise ValueError(f"{file}: expected an object with a list of cases under {known}.")
    entries: list[dict[str, Any]] = []
    for section in SECTIONS:
        listed = content.get(section) or []
        if not isinstance(listed, list):
            raise ValueError(f"{file}: {section} is a {type(listed).__name__}, expected a list of cases.")
        for number, entry in enumerate(listed, start=1):
            if not isinstance(entry, str):  # the Decathlon's test images, which have no label
                place = f"{file}: entry {number} of {section}"
                entries.append({"section": section, **_entry(entry, place, file.resolve().parent, root)})
    if not entries:
        raise ValueError(f"{file}: lists no case with a label under {known}.")
    listed_at: dict[str, str] = {}
    for entry in entries:
        image = entry["image"][0]
        if image in listed_at:
            raise ValueError(
                f"{file}: lists {image} twice, under {listed_at[image]} and {entry['section']}. Remove one."
            )
        listed_at[image] = entry["section"]
    make_names_unique(entries, [root])
    members: dict[str, list[str]] = {}
    folds = {}
    for entry in entries:
        members.setdefault(entry.pop("section"), []).append(entry["case"])
        if "fold" in entry:
            folds[entry["case"]] = entry.pop("fold")
    cases = [case_of(entry.pop("case"), entry.pop("image"), entry.pop("label"), **entry) for entry in entries]
    # Training alone is no split: it is the pool from which folds are drawn.
    return Found("a list of cases", cases, {} if members.keys() == {"training"} else members, folds)


def _entry(entry: Any, place: str, folder: Path, root: Path) -> dict[str, Any]:
    """The case of an entry: files that exist, name, patient and so on."""
    if not isinstance(entry, Mapping) or "image" not in entry:
        raise ValueError(f"{place}: expected an object with image and label, found {str(entry)[:60]}.")
    image = _files(entry["image"], f"{place}: image", folder, root)
    volumes = [name for name in image if source_of(Path(name)) == "volume"]
    if volumes and len(volumes) != len(image):
        raise ValueError(
            f"{place}: image lists {len(volumes)} volumes and {len(image) - len(volumes)} other files, expected the "
            "slices or DICOM files of one volume, or volumes alone: FLAIR and further sequences."
        )
    image, further = (image[:1], image[1:]) if volumes else (image, [])
    label = _files(entry["label"], f"{place}: label", folder, root) if entry.get("label") else None
    found: dict[str, Any] = {"case": str(entry.get("case") or _name(image)), "image": image, "label": label}
    if patient := entry.get("patient", entry.get("group")):
        found["patient"] = str(patient)
    if institution := entry.get("institution"):
        found["institution"] = str(institution)
    for key in ("fold", "volume"):
        if entry.get(key) is not None:
            if type(entry[key]) is not int or entry[key] < 0:
                raise ValueError(f"{place}: {key} is {entry[key]!r}, expected a whole number, 0 or more.")
            found[key] = entry[key]
    if further:
        found["sequences"] = further
    elif "volume" not in found and (volume := flair_volume(Path(image[0]).parent)) is not None:
        found["volume"] = volume
    if all(source_of(Path(name)) in ("tiff", "picture") for name in image) and len(image) > 1:
        found["slices"] = len(image)
    return found


def _files(names: Any, place: str, folder: Path, root: Path) -> list[str]:
    """Paths of files; relative ones start from the data set or, if nothing is there, from the folder of the list."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place} is {str(names)[:60]!r}, expected a path or a list of paths.")
    found = []
    for name in names:
        path = next((path for path in (root / name, folder / name) if path.exists()), None)
        if path is None:
            raise FileNotFoundError(f"{place}: {name}: no such file in {root} or {folder}. Correct the path.")
        found.append(str(path))
    return found


def _name(image: list[str]) -> str:
    """Name of a case by its file, or by the common part of the names of its slices."""
    stem = stem_of(Path(image[0]))
    return stem if len(image) == 1 else _LAST_NUMBER.sub("", stem) or Path(image[0]).parent.name
