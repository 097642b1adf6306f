"""Find the cases to segment in a folder, whatever its structure and formats."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.dicom.series import Series, choose_flair, find_series, is_dicom
from mri_seg.io.earlier_outputs import earlier_outputs
from mri_seg.io.image_files import SortedFiles, sort_files, stem_of
from mri_seg.io.label_names import Label, owners_of
from mri_seg.io.passed_over import PassedOver, kind_of_dicom, kind_of_file
from mri_seg.io.patients import choose_images, named_image
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.files import safe_name

__all__ = ["CaseFinder", "find_cases", "make_names_unique"]

logger = logging.getLogger(__name__)


class CaseFinder(Iterable[dict]):
    """The cases that :py:func:`find_cases` finds; every iteration searches again.

    Args:
        dataset_dir: a folder or a file.
        options: further arguments of :py:func:`find_cases`.
    """

    def __init__(self, dataset_dir: PathLike | str, **options: Any) -> None:
        self.dataset_dir = dataset_dir
        self.options = options

    def __iter__(self) -> Iterator[dict]:
        """Search for the cases."""
        return iter(find_cases(self.dataset_dir, **self.options))


def find_cases(
    dataset_dir: PathLike | str,
    *,
    series_uid: str | None = None,
    series_description: str | None = None,
    exclude: PathLike | str | None = None,
    passed_over: PassedOver | None = None,
) -> list[dict]:
    """Find the cases in a folder, or the case in a single file.

    The folder and all its subfolders are searched for all kinds of files at once:

    - DICOM: the FLAIR series of each study, found by description and timing
      (:py:func:`mri_seg.dicom.series.choose_flair`), wherever its files lie.
    - TIFF, PNG and JPEG: files in one folder whose names differ only in their last number are the slices of one case,
      in the order of the numbers; a TIFF file with several pages is a case.
    - NIfTI, NRRD, MetaImage, MGH, MGZ, and pairs of ``.hdr`` and ``.img``: a file (or a pair) is an image.

    If a patient has several images, the one that is FLAIR by its name, its folder or nnU-Net's ``dataset.json`` is
    taken (:py:func:`mri_seg.io.patients.choose_images`). Labels are recognized by their names (``P1_mask``,
    ``P1-label``) or folders (``labelsTr``, ``masks``, BIDS' ``derivatives``) and become references of their images
    (:py:mod:`mri_seg.io.label_names`). Results of an earlier inference are skipped. The log counts all skipped files by
    kind. If ``dataset_dir`` is a file, it is taken whatever its name is.

    Args:
        dataset_dir: a folder with any of these, or one file.
        series_uid: the DICOM series to take (SeriesInstanceUID); studies without it are skipped.
        series_description: text that occurs in the description of the DICOM series to take.
        exclude: a folder that is not searched, such as that of the results.
        passed_over: counts the files that are skipped, for a caller that wants to know them.

    Returns:
        one dictionary per case, sorted by name: ``case``, its unique name; ``image``, a list of files in order;
        ``source``: ``dicom``, ``tiff``, ``picture`` or ``volume``; ``label``, a list of files, if there is a reference;
        ``volume``, the index of FLAIR in a 4D file, if ``dataset.json`` gives it; ``flags``, see
        :py:mod:`mri_seg.utils.case_flags`. A case that cannot be segmented, such as a study without a FLAIR series, has
        ``error``, the reason.

    Raises:
        FileNotFoundError: when the folder or file does not exist.
        ValueError: when it contains no case; the message says what it contains instead.
    """
    root = Path(dataset_dir)
    if not root.exists():
        raise FileNotFoundError(
            f"{root}: no such folder or file. Give dataset_dir a folder of DICOM, NIfTI, NRRD, MHA, TIFF, PNG or JPEG "
            "files, or one file."
        )
    files = SortedFiles()
    passed_over = PassedOver() if passed_over is None else passed_over
    if root.is_file():
        sort_files([root], files, None)
        found = [named_image(image) for image in files.images]
    else:
        _sort_folder(root, exclude, files, passed_over)
        found = []
        for source in ("volume", "tiff", "picture"):
            images = [image for image in files.images if image.source == source]
            cases = list(choose_images(images, root, passed_over))
            _add_references(cases, files.labels[source], passed_over)
            found += cases
    dicom = [file for file in files.others if is_dicom(file)]
    for file in sorted(set(files.others) - set(dicom)):
        passed_over.add(kind_of_file(file), file)
    found += _cases_of_dicom(dicom, series_uid, series_description, passed_over)
    if not found:
        held = f"It holds {passed_over}." if passed_over else "It is empty."
        if files.images or any(files.labels.values()):
            held += " If dataset_dir is a single file, it is taken whatever its name is."
        raise ValueError(
            f"{root}: holds no case to segment: no DICOM MR series, no NIfTI, NRRD, MHA or MGZ volume, no TIFF, PNG or "
            f"JPEG slice. {held}"
        )
    if passed_over:
        logger.info("%s: passed over %s.", root, passed_over)
    make_names_unique(found, root)
    return sorted(found, key=lambda case: case["case"])


def _sort_folder(root: Path, exclude: PathLike | str | None, files: SortedFiles, passed_over: PassedOver) -> None:
    """Sort the files of a folder and its subfolders by kind."""
    excluded = frozenset() if exclude is None else frozenset({Path(exclude).resolve()})
    for folder, names in _walk(root, excluded):
        visible = [name for name in names if not name.startswith(".")]
        own = earlier_outputs(folder, visible)
        for name in sorted(own):
            passed_over.add("result of an earlier run", folder / name)
        sort_files(sorted(folder / name for name in visible if name not in own), files, root)


def _walk(root: Path, above: frozenset[Path]) -> Iterator[tuple[Path, list[str]]]:
    above = above | {root.resolve()}
    subfolders = []
    names = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            if not entry.name.startswith(".") and entry.resolve() not in above:  # such a link never ends
                subfolders.append(entry)
        else:
            names.append(entry.name)
    yield root, names
    for folder in subfolders:
        yield from _walk(folder, above)


def _add_references(cases: list[dict[str, Any]], labels: list[Label], passed_over: PassedOver) -> None:
    """Add the labels to cases in which every file has one, and count all labels."""
    images = {Path(file): stem_of(Path(file)) for case in cases if "error" not in case for file in case["image"]}
    owned = owners_of(labels, images)
    used = set()
    for case in cases:
        references = [owned.get(Path(file)) for file in case["image"]]
        if all(references):
            case["label"] = [str(file) for file in references]
            used |= set(references)
    for label in labels:
        passed_over.add("label used as reference" if label.path in used else f"unused {label.kind}", label.path)


def _cases_of_dicom(
    files: list[Path], series_uid: str | None, series_description: str | None, passed_over: PassedOver
) -> Iterator[dict]:
    all_series, errors = _readable_series(files)
    read = {file for series in all_series for file in series.files}
    for file in files:
        if file not in read and file not in errors:
            passed_over.add(kind_of_dicom(file), file)
    for file, error in _merge_errors(errors).items():
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
            case = {"case": series.name, "image": [str(file) for file in series.files], "source": "dicom", **about}
            for name, message in series.doubts:
                add_flag(case, name, message)
            yield case


def _readable_series(files: list[Path]) -> tuple[list[Series], dict[Path, str]]:
    """Find the readable series, and the error of each file or series that cannot be read."""
    try:
        return find_series(files), {}
    except ValueError:  # find out which file it is, so that the others are still segmented
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


def _merge_errors(errors: dict[Path, str]) -> dict[Path, str]:
    """Merge errors of the same kind in one folder into one: a folder may hold hundreds of them."""
    kinds: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file, error in errors.items():
        kinds[file.parent, error.replace(str(file), "")].append(file)
    merged = {}
    for (folder, _), files in kinds.items():
        others = f" {len(files) - 1} more files in {folder} have the same error." if len(files) > 1 else ""
        merged[files[0]] = errors[files[0]] + others
    return merged


def make_names_unique(cases: list[dict], root: Path) -> None:
    """Give each case a unique name that is a valid file name; names must differ in more than upper and lower case.

    If cases share a name, their folders are put in front; if they still share it, a number is added at the end.
    """
    for case in cases:
        case["case"] = safe_name(case["case"])
    for same in _by_name(cases):
        for case in same:
            first = Path(case["image"][0])
            parts = first.relative_to(root).parts[:-1] if first.is_relative_to(root) and root.is_dir() else ()
            case["case"] = safe_name("_".join((*parts, case["case"])))
    taken = {case["case"].casefold() for case in cases}
    for same in _by_name(cases):
        for case in sorted(same, key=lambda case: case["image"][0]):
            numbered = (f"{case['case']}_{number}" for number in itertools.count(1))
            case["case"] = next(name for name in numbered if name.casefold() not in taken)
            taken.add(case["case"].casefold())


def _by_name(cases: list[dict]) -> list[list[dict]]:
    """Groups of cases that share a name; upper and lower case count as the same, as on macOS and Windows."""
    by_name = defaultdict(list)
    for case in cases:
        by_name[case["case"].casefold()].append(case)
    return [same for same in by_name.values() if len(same) > 1]
