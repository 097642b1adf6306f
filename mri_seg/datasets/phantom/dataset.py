"""Write synthetic cases as a data set in the folder structure of TCGA-LGG, with a split of its patients."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
from os import PathLike
from pathlib import Path

import numpy as np
import tifffile

from mri_seg.datasets.phantom.anatomy import ATLAS_NOTICE, load_head
from mri_seg.datasets.phantom.volume import has_tumor, phantom_volume

__all__ = ["make_phantom", "patient_name"]

_SITES = ("QA", "QB", "QC")
_MAX_PATIENTS = 9999  # the number in a patient's name has four digits
_README, _SPLIT = "README.txt", "split.json"
_TEMPORARY = ".unfinished_"

_README_TEXT = """\
SYNTHETIC IMAGES, NOT PATIENTS. Made by `python -m mri_seg.datasets.phantom`: seed {seed}, {patients} patients.

Each folder holds FLAIR-like slices (<folder>_<n>.tif, the same in all three channels) and the outlines of an invented
tumour (<folder>_<n>_mask.tif, 0 or 255), in the folder structure of TCGA-LGG on Kaggle. Slice 1 is the lowest;
rows run anterior to posterior, columns from the patient's right to left. {split} divides the patients.

They are for trying out and testing software. Figures measured on them say nothing about patients.

The brain is an average of 152 volunteers, deformed at random; skull, face, tumours, shading and noise are drawn.

{notice}"""

logger = logging.getLogger(__name__)


def make_phantom(
    dest: str | PathLike[str],
    *,
    patients: int = 12,
    seed: int = 0,
    slices: int | None = None,
    size: int = 256,
    overwrite: bool = False,
) -> list[Path]:
    """Write a data set of synthetic patients, with ``split.json`` and a README that says that it is synthetic.

    A patient depends only on the seed and its number: a larger data set with the same seed contains the same patients,
    byte for byte, and further ones. One of every six patients has no tumour. About 15 % of the patients are for
    validation and 15 % for test, at least one each, and each of the three parts has at least one tumour. Two patients
    are split into one for training and one for validation; a single patient is for training.

    Args:
        dest: folder to write to; created if missing. Files whose name begins with a dot do not count as content.
        patients: number of patients, 1 to 9999.
        seed: 0 or more.
        slices: slices of each patient; by default 24 to 30, drawn for each.
        size: rows and columns of a slice; the field of view stays 240 mm.
        overwrite: whether to overwrite the files of an earlier run in ``dest``.

    Returns:
        The patients' folders, in order of their numbers.

    Raises:
        FileExistsError: when ``dest`` has content; with ``overwrite``, only when this call would not write it.
        ValueError: when an argument is out of range.
        ImportError: when nilearn is not installed.
    """
    if not 1 <= patients <= _MAX_PATIENTS:
        raise ValueError(f"patients is {patients}; expected 1 to {_MAX_PATIENTS}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more.")
    dest = Path(dest)
    names = [patient_name(seed, index) for index in range(patients)]
    _check_dest(dest, names, overwrite=overwrite)
    load_head()  # raises an error before anything is written if data are missing

    dest.mkdir(parents=True, exist_ok=True)
    (dest / _README).write_text(
        _README_TEXT.format(seed=seed, patients=patients, split=_SPLIT, notice=ATLAS_NOTICE), encoding="utf-8"
    )
    # The split is written last, so that all patients in it are complete.
    (dest / _SPLIT).unlink(missing_ok=True)
    counts = {}
    for index, name in enumerate(names):
        image, mask = phantom_volume(seed, index, slices=slices, size=size)
        _write_patient(dest / name, image, mask)
        counts[name] = image.shape[-1]
        logger.info("%s: %d slices, %d with tumour", name, image.shape[-1], mask.any((0, 1)).sum())
    _write_split(dest / _SPLIT, seed, counts)
    return [dest / name for name in names]


def patient_name(seed: int, index: int) -> str:
    """Folder of a patient: ``PHANTOM_<site>_<number>_<date>``, the site and the date invented."""
    rng = np.random.default_rng([seed, index, 2])
    date = datetime.date(2000, 1, 1) + datetime.timedelta(days=int(rng.integers(7000)))
    return f"PHANTOM_{rng.choice(_SITES)}_{index + 1:04d}_{date:%Y%m%d}"


def _check_dest(dest: Path, names: list[str], *, overwrite: bool) -> None:
    """Refuse to write beside foreign files or, without ``overwrite``, over an earlier data set."""
    if dest.exists() and not dest.is_dir():
        raise FileExistsError(f"{dest}: expected a folder or a new name, found a file.")
    found = {path.name for path in dest.iterdir() if not path.name.startswith(".")} if dest.exists() else set()
    foreign = sorted(found - {*names, _README, _SPLIT})
    if foreign:
        raise FileExistsError(
            f"{dest}: found {_name_some(foreign)}, which this command did not write; expected an empty folder. "
            "Choose another folder, or remove them."
        )
    if found and not overwrite:
        raise FileExistsError(
            f"{dest}: already holds {_name_some(sorted(found))}. Choose another folder, or pass --overwrite "
            "(overwrite=True) to overwrite them."
        )


def _name_some(names: list[str], *, most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _write_patient(folder: Path, image: np.ndarray, mask: np.ndarray) -> None:
    """Write the slices of a volume ``(H, W, D)`` and of its mask; a partly written folder is never left."""
    unfinished = folder.with_name(_TEMPORARY + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir()
    try:
        for k in range(image.shape[-1]):
            stem = f"{folder.name}_{k + 1}"
            pixels = np.repeat(image[..., k, None], 3, axis=-1)
            _write_tiff(unfinished / f"{stem}.tif", pixels, "rgb", f"SYNTHETIC, not a patient: {stem}")
            outline = mask[..., k].astype(np.uint8) * 255
            _write_tiff(unfinished / f"{stem}_mask.tif", outline, "minisblack", f"SYNTHETIC mask: {stem}")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_tiff(path: Path, pixels: np.ndarray, photometric: str, description: str) -> None:
    # Plain baseline TIFF, as the original; no date, so that the same seed gives the same bytes.
    tifffile.imwrite(
        path,
        pixels,
        photometric=photometric,
        description=description,
        software="mri_seg.datasets.phantom",
        metadata=None,
    )


def _write_split(path: Path, seed: int, counts: dict[str, int]) -> None:
    """Write the split of the patients, in the form of the published split: number of slices by patient."""
    parts = split_patients(seed, len(counts))
    names = list(counts)
    split: dict[str, object] = {
        "description": f"Synthetic patients of mri_seg.datasets.phantom, seed {seed}: slices per patient. "
        + ", ".join(f"{len(indices)} {part}" for part, indices in parts.items())
        + " patients."
    }
    split.update({part: {names[i]: counts[names[i]] for i in indices} for part, indices in parts.items()})
    unfinished = path.with_name(_TEMPORARY + path.name)
    unfinished.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def split_patients(seed: int, patients: int) -> dict[str, list[int]]:
    """Split the indices of the patients at random, with a tumour patient in each part."""
    held_out = max(1, round(0.15 * patients))
    n_validation = held_out if patients >= 2 else 0
    n_test = held_out if patients >= 3 else 0
    order = np.random.default_rng([seed, patients, 3]).permutation(patients).tolist()
    # The first patient of each part has a tumour; of three or more patients, at least three have one.
    sizes = {"validation": n_validation, "test": n_test, "training": patients - n_validation - n_test}
    parts: dict[str, list[int]] = {}
    for part, size in sizes.items():
        parts[part] = [next(i for i in order if has_tumor(seed, i))] if size else []
        order = [i for i in order if i not in parts[part]]
    for part, size in sizes.items():
        more = size - len(parts[part])
        parts[part], order = sorted(parts[part] + order[:more]), order[more:]
    return {part: parts[part] for part in ("training", "validation", "test")}
