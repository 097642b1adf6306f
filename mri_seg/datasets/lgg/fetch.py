"""Download the TCGA-LGG data set from Kaggle."""

from __future__ import annotations

import shutil
import tempfile
from os import PathLike
from pathlib import Path

from .index import find_patients, walk_patients

__all__ = ["fetch"]

_HANDLE = "mateuszbuda/lgg-mri-segmentation"
_FOLDER = "kaggle_3m"


def fetch(dataset_dir: str | PathLike[str]) -> list[str]:
    """Download the data set to kagglehub's cache and copy its patients into a folder.

    Patients that are already in the folder stay as they are. A patient's folder gets its name only when it has been
    copied completely.

    Args:
        dataset_dir: folder for the patient folders; created if it does not exist.

    Returns:
        the patients that were added, sorted.

    Raises:
        ImportError: when kagglehub (extra ``fetch``) is not installed.
        RuntimeError: when the download fails.
        OSError: when the folder cannot be written.
        ValueError: when the download does not hold the data set.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise ImportError(
            "kagglehub, which downloads the data set, is not installed: pip install 'mri_seg[fetch]'"
        ) from error
    target = Path(dataset_dir)
    target.mkdir(parents=True, exist_ok=True)  # before the long download, so that a wrong folder fails at once
    try:
        download = Path(kagglehub.dataset_download(_HANDLE))
    except Exception as error:  # kagglehub passes on errors of several network libraries
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RuntimeError(
            f"could not download {_HANDLE} ({reason}). By hand: download the archive from "
            f"https://www.kaggle.com/datasets/{_HANDLE}, unpack it, move the patient folders of its outer {_FOLDER} "
            f"into {target}, and run python -m mri_seg.datasets.lgg check {target}"
        ) from error
    return _copy_patients(find_patients(_outermost(download)), target)


def _outermost(download: Path) -> Path:
    """The topmost folder of the data set; the archive contains it a second time further down."""
    level = [download]
    while level:
        for folder in level:
            if folder.name == _FOLDER:
                return folder
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
    raise ValueError(
        f"{download}: no folder {_FOLDER} in the download of {_HANDLE}. Delete the folder and fetch again, "
        "or check the data set's page on Kaggle for changes."
    )


def _copy_patients(patients: dict[str, Path], target: Path) -> list[str]:
    present = walk_patients(target)
    present_names = {*present.patients, *(folder.name for folder in present.empty)}
    added = sorted(patients.keys() - present_names)
    # The name begins with a dot, so the index skips what an interrupted download may leave.
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as unfinished:
        for patient in added:
            copy = Path(unfinished, patient)
            copy.mkdir()
            for file in patients[patient].iterdir():
                if file.is_file():
                    shutil.copyfile(file, copy / file.name)
            copy.rename(target / patient)
    return added
