"""Find the one case that a path or a list of files holds."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.dicom.series import is_dicom
from mri_seg.io.cases import cases_of_dicom, find_cases
from mri_seg.io.image_files import Image, SortedFiles, sort_files
from mri_seg.io.passed_over import PassedOver
from mri_seg.io.patients import named_image

__all__ = ["find_case"]

_LISTED = 10  # maximum number of cases listed in an error


def find_case(
    files: PathLike | str | Sequence[PathLike | str],
    *,
    series_uid: str | None = None,
    series_description: str | None = None,
) -> dict[str, Any]:
    """Find the case of a file, of a folder, or of a list of files.

    A file or a folder is searched by :py:func:`mri_seg.io.cases.find_cases`. A list holds the files of one case: DICOM
    images in any order; slices whose names differ only in their last number, which are put in the order of the numbers;
    or other slices, from the lowest to the highest.

    Args:
        files: a path, or several.
        series_uid: the DICOM series to take (SeriesInstanceUID).
        series_description: text that occurs in the description of the DICOM series to take.

    Returns:
        the case, as :py:func:`mri_seg.io.cases.find_cases` gives it.

    Raises:
        FileNotFoundError: when a file or folder does not exist.
        ValueError: when there is no case or more than one, or when the case cannot be segmented.
    """
    if isinstance(files, (str, PathLike)):
        where = str(files)
        cases = find_cases(files, series_uid=series_uid, series_description=series_description)
    else:
        where = f"{len(files)} files"
        cases = _cases_of_list([Path(file) for file in files], series_uid, series_description)
    if len(cases) > 1:
        names = ", ".join(case["case"] for case in cases[:_LISTED])
        more = f" and {len(cases) - _LISTED} more" if len(cases) > _LISTED else ""
        raise ValueError(
            f"{where}: holds {len(cases)} cases, expected one: {names}{more}. Give the file or folder of one of them "
            "(for example from `mri_seg.find_cases`), or segment all of them with the command."
        )
    (case,) = cases
    if "error" in case:
        raise ValueError(case["error"])
    return case


def _cases_of_list(files: list[Path], series_uid: str | None, series_description: str | None) -> list[dict[str, Any]]:
    if not files:
        raise ValueError("the list of files is empty, expected the files of one case.")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file.")
    found = SortedFiles()
    sort_files(files, found, None)
    images = [*found.images]
    if len(images) == len(files) > 1 and not found.others and {image.source for image in images} <= {"tiff", "picture"}:
        images = [Image(images[0].name, tuple(files), images[0].source)]  # slices without numbers
    dicom = [file for file in found.others if is_dicom(file)]
    for file in found.others:
        if file not in dicom:
            raise ValueError(f"{file}: is no image, expected the files of one case. Leave it out.")
    return [
        *(named_image(image) for image in images),
        *cases_of_dicom(dicom, series_uid, series_description, PassedOver()),
    ]
