"""Find the patients and slices of a TCGA-LGG folder.

A patient is a folder with slices named after it: images ``<patient>_<n>.tif`` and masks ``<patient>_<n>_mask.tif``. The
slice number ``n`` is 1 for the lowest (inferior) slice. All other files in the tree are ignored.

Source: M. Buda, A. Saha, M. A. Mazurowski, "Association of genomic subtypes of lower-grade gliomas with shape features
automatically extracted by a deep learning algorithm", Computers in Biology and Medicine 109, 2019.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["find_cases", "find_patients", "institution", "slice_files"]

_TCGA_PATIENT = re.compile(r"TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}_[0-9]{8}")
_TCGA = re.compile(r"TCGA[_-](?P<institution>[A-Z0-9]{2})[_-][A-Z0-9]{4}")


@dataclass
class PatientTree:
    """The patients in a folder tree, including defects.

    Attributes:
        patients: folders with slices, by patient; several if there are copies of a patient.
        empty: folders named like a TCGA patient without a slice in or below them.
    """

    patients: dict[str, list[Path]] = field(default_factory=dict)
    empty: list[Path] = field(default_factory=list)


def find_patients(dataset_dir: str | PathLike[str]) -> dict[str, Path]:
    """Find the patient folders anywhere below a folder.

    Hidden folders and macOS's ``__MACOSX`` are skipped. Symbolic links are followed, once each.

    Args:
        dataset_dir: folder that contains the patient folders, directly or further down.

    Returns:
        the folder of each patient, sorted by patient.

    Raises:
        FileNotFoundError: when the folder does not exist.
        NotADirectoryError: when it is a file.
        ValueError: when it contains no patient, a patient twice, or a patient's folder without slices.
    """
    tree = require_patients(dataset_dir)
    for patient, folders in tree.patients.items():
        if len(folders) > 1:
            raise ValueError(
                f"{dataset_dir}: patient {patient} is there twice, in {folders[0]} and in {folders[1]}. Remove one of "
                "them, or give a folder that contains one copy (Kaggle's archive contains the data set twice: use its "
                "outer kaggle_3m)."
            )
    if tree.empty:
        raise ValueError(
            f"{tree.empty[0]}: a patient's folder without slices"
            + (f" (and {len(tree.empty) - 1} more such folders)" if len(tree.empty) > 1 else "")
            + f", expected files {folder_name(tree.empty[0])}_<n>.tif. Fetch the patient again, or remove the folder."
        )
    return {patient: folders[0] for patient, folders in tree.patients.items()}


def find_cases(dataset_dir: str | PathLike[str]) -> list[dict[str, Any]]:
    """Make a case of each patient.

    Returns:
        one dictionary per patient, sorted by patient: ``image`` and ``label``, the paths of its slices and masks from
        the lowest slice to the highest; ``case`` and ``patient``, the patient; ``group`` and ``institution``, the
        institution by the TCGA identifier (empty for other names); ``slices``, their number. If a file is missing, it
        has no label, and ``error`` says why.

    Raises:
        FileNotFoundError: when the folder does not exist.
        NotADirectoryError: when it is a file.
        ValueError: as in :py:func:`find_patients`.
    """
    cases = []
    for patient, folder in find_patients(dataset_dir).items():
        about: dict[str, Any] = {"case": patient, "patient": patient, "group": group(patient)}
        about["institution"] = about["group"]
        try:
            slices = slice_files(folder)
        except (FileNotFoundError, ValueError) as error:
            cases.append({"image": [str(folder)], **about, "error": str(error)})
        else:
            images, labels = ([str(files[place]) for files in slices] for place in (1, 2))
            cases.append({"image": images, "label": labels, **about, "slices": len(slices)})
    return cases


def slice_files(folder: str | PathLike[str]) -> list[tuple[int, Path, Path]]:
    """List a patient's slices in anatomical order, the lowest first.

    Args:
        folder: a patient's folder.

    Returns:
        number, image file and mask file of each slice, by number (``_2.tif`` before ``_10.tif``).

    Raises:
        FileNotFoundError: when an image has no mask, a mask has no image, or the folder has no slices.
        ValueError: when two files have the same slice number.
    """
    images, masks = numbered_files(folder)
    if not images and not masks:
        raise FileNotFoundError(
            f"{folder}: no slices, expected files {folder_name(folder)}_<n>.tif. Give the folder of one patient."
        )
    for present, absent, what in ((images, masks, "mask"), (masks, images, "image")):
        for number in sorted(present.keys() - absent.keys()):
            raise FileNotFoundError(
                f"{present[number]}: its {what} is missing, expected {partner(present[number]).name} beside it. "
                "Put the file there, or leave the patient out."
            )
    return [(number, images[number], masks[number]) for number in sorted(images)]


def institution(patient: str) -> str:
    """Name the institution that imaged a patient: the second part of a TCGA identifier.

    Args:
        patient: patient identifier, e.g. ``TCGA_CS_4941_19960909``.

    Returns:
        the institution's code, or ``"unknown"`` for an identifier of one part.

    Example::

        >>> institution("TCGA_CS_4941_19960909")
        'CS'
    """
    parts = patient.split("_")
    return parts[1] if len(parts) > 1 else "unknown"


def group(patient: str) -> str:
    """Name the group that a patient's figures are shown with: the institution, if the name is a TCGA identifier.

    Args:
        patient: name of the patient.

    Returns:
        the institution's code, empty for other names, whose parts may mean anything.

    Example::

        >>> group("TCGA_CS_4941_19960909"), group("my_patient_1")
        ('CS', '')
    """
    match = _TCGA.match(patient)
    return match["institution"] if match else ""


def require_patients(dataset_dir: str | PathLike[str]) -> PatientTree:
    """Find the patient folders below a folder, including defects; at least one is required.

    Raises:
        FileNotFoundError: when the folder does not exist.
        NotADirectoryError: when it is a file.
        ValueError: when it contains no patient.
    """
    remedy = f"Give the folder of the patients, or download them: python -m mri_seg.datasets.lgg fetch {dataset_dir}"
    if not Path(dataset_dir).exists():
        raise FileNotFoundError(f"{dataset_dir}: no such folder. {remedy}")
    if not Path(dataset_dir).is_dir():
        raise NotADirectoryError(f"{dataset_dir}: not a folder, expected one that holds patient folders.")
    tree = walk_patients(dataset_dir)
    if not tree.patients and not tree.empty:
        raise ValueError(
            f"{dataset_dir}: no patient found, expected folders <patient> with files <patient>_<n>.tif. {remedy}"
        )
    return tree


def walk_patients(root: str | PathLike[str]) -> PatientTree:
    """Find the patient folders below an existing folder, including defects, sorted by patient."""
    tree = PatientTree()
    _walk(Path(root), tree, set())
    tree.patients = dict(sorted(tree.patients.items()))
    return tree


def numbered_files(folder: str | PathLike[str]) -> tuple[dict[int, Path], dict[int, Path]]:
    """Collect a patient's images and masks by slice number, whether or not they match.

    Raises:
        ValueError: when two files have the same slice number (``_1.tif`` and ``_01.tif``).
    """
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    pattern = _slice_pattern(folder_name(folder))
    for path in sorted(Path(folder).iterdir()):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            files, number = (masks if match["mask"] else images), int(match["number"])
            if number in files:
                raise ValueError(
                    f"{path}: slice {number} already exists as {files[number].name}. Remove one of the two files."
                )
            files[number] = path
    return images, masks


def partner(path: Path) -> Path:
    """Path of the mask of an image, or of the image of a mask."""
    stem = path.stem
    return path.with_name(f"{stem[: -len('_mask')] if stem.endswith('_mask') else stem + '_mask'}.tif")


def folder_name(folder: str | PathLike[str]) -> str:
    """The folder's own name, also for ``.`` and ``..``."""
    return os.path.basename(os.path.abspath(folder))


def _walk(folder: Path, tree: PatientTree, seen: set[tuple[str, str]]) -> bool:
    """Add the patients in and below a folder to the tree; return whether there were any."""
    name = folder_name(folder)
    # A patient's name is that of its folder, so a link with another name is another candidate. Links are therefore
    # identified by target and name; in a loop of links, a pair occurs again.
    key = (os.path.realpath(folder), name)
    if key in seen:
        return False
    seen.add(key)
    pattern = _slice_pattern(name)
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    if any(pattern.fullmatch(entry.name) and os.path.isfile(entry) for entry in entries):
        tree.patients.setdefault(name, []).append(folder)
        return True
    below = [
        _walk(folder / entry.name, tree, seen)
        for entry in entries
        if os.path.isdir(entry) and not entry.name.startswith(".") and entry.name != "__MACOSX"
    ]
    if not any(below) and _TCGA_PATIENT.fullmatch(name):
        tree.empty.append(folder)
    return any(below)


def _slice_pattern(patient: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(patient)}_(?P<number>[0-9]+)(?P<mask>_mask)?\.tif")
