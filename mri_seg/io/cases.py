"""Find the cases to segment in a folder, whatever its structure and formats."""

from __future__ import annotations

import itertools
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.dicom.series import Series, choose_flair, find_series, is_dicom
from mri_seg.io.earlier_outputs import earlier_outputs
from mri_seg.io.image_files import SortedFiles, sort_files, stem_of
from mri_seg.io.label_names import Label, owners_of
from mri_seg.io.passed_over import PassedOver, kind_of_dicom, kind_of_file
from mri_seg.io.patients import choose_images, named_image
from mri_seg.io.sequences import with_sequences_or_error
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.files import safe_name

__all__ = ["CaseFinder", "cases_of_dicom", "find_cases", "make_names_unique", "search_cases"]

logger = logging.getLogger(__name__)

_SOURCES = ("volume", "tiff", "picture")


class CaseFinder(Iterable[dict]):
    """The cases that :py:func:`find_cases` finds; every iteration searches again.

    Args:
        dataset_dir: a folder, a file, or several of them.
        options: further arguments of :py:func:`find_cases`.
    """

    def __init__(self, dataset_dir: PathLike | str | Sequence[PathLike | str], **options: Any) -> None:
        self.dataset_dir = dataset_dir
        self.options = options

    def __iter__(self) -> Iterator[dict]:
        """Search for the cases."""
        return iter(find_cases(self.dataset_dir, **self.options))

    def search(self) -> tuple[list[dict], PassedOver]:
        """Search for the cases; see :py:func:`search_cases`."""
        return search_cases(self.dataset_dir, **self.options)


def find_cases(dataset_dir: PathLike | str | Sequence[PathLike | str], **options: Any) -> list[dict]:
    """Find cases like :py:func:`search_cases`, and log what is passed over.

    Args:
        dataset_dir: a folder, a file, or several of them.
        options: further arguments of :py:func:`search_cases`.

    Returns:
        the cases.
    """
    found, passed_over = search_cases(dataset_dir, **options)
    if passed_over:
        logger.info("%s: passed over %s.", _listed(_paths(dataset_dir)), passed_over)
    return found


def search_cases(
    dataset_dir: PathLike | str | Sequence[PathLike | str],
    *,
    series_uid: str | None = None,
    series_description: str | None = None,
    sequences: Sequence[str] = (),
    exclude: PathLike | str | None = None,
    passed_over: PassedOver | None = None,
) -> tuple[list[dict], PassedOver]:
    """Find the cases in a folder, the case in a single file, or those of several folders and files.

    The folder and all its subfolders are searched for all kinds of files at once:

    - DICOM: the FLAIR series of each study, found by description and timing
      (:py:func:`mri_seg.dicom.series.choose_flair`), wherever its files lie.
    - TIFF, PNG and JPEG: files in one folder whose names differ only in their last number are the slices of one case,
      in the order of the numbers; a TIFF file with several pages is a case.
    - NIfTI, NRRD, MetaImage, MGH, MGZ, and pairs of ``.hdr`` and ``.img``: a file (or a pair) is an image.

    If a patient has several images, the one that is FLAIR by its name, its folder or nnU-Net's ``dataset.json`` is
    taken (:py:func:`mri_seg.io.patients.choose_images`). Labels are recognized by their names (``P1_mask``,
    ``P1-label``) or folders (``labelsTr``, ``masks``, BIDS' ``derivatives``) and become references of their images
    (:py:mod:`mri_seg.io.label_names`). Results of an earlier inference are skipped.

    A file that is named itself is taken whatever its name is. Files named together from one folder belong together as
    they would in the folder: slices become a volume, and a label becomes the reference of its image. DICOM files are
    put together over all folders and files. Each folder or file must contribute a case, so that a wrong path is seen.

    Args:
        dataset_dir: a folder with any of these, a file, or several of them.
        series_uid: the DICOM series to take (SeriesInstanceUID); studies without it are skipped.
        series_description: text that occurs in the description of the DICOM series to take.
        sequences: names of further sequences, whose files are found beside FLAIR
            (:py:func:`mri_seg.io.sequences.with_sequences`).
        exclude: a folder that is not searched, such as that of the results, or a file that is not taken.
        passed_over: counts the files that are skipped, for a caller that wants to know them if no case is found too.

    Returns:
        the cases and what is passed over. A case is a dictionary; they are sorted by name: ``case``, its unique name;
        ``image``, a list of files in order; ``source``: ``dicom``, ``tiff``, ``picture`` or ``volume``; ``label``, a
        list of files, if there is a reference; ``sequences``, the files of further sequences; ``volume``, the index of
        FLAIR in a 4D file, if ``dataset.json`` gives it; ``flags``, see :py:mod:`mri_seg.utils.case_flags`. A case that
        cannot be segmented, such as a study without a FLAIR series, has ``error``, the reason.

    Raises:
        FileNotFoundError: when a folder or file does not exist.
        ValueError: when one contains no case; the message says what it contains instead.
    """
    roots = _paths(dataset_dir)
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(
                f"{root}: no such folder or file. Give dataset_dir a folder of DICOM, NIfTI, NRRD, MHA, TIFF, PNG or "
                "JPEG files, or one file."
            )
    passed_over = PassedOver() if passed_over is None else passed_over
    found: list[dict] = []
    dicom: list[Path] = []
    empty: list[Path] = []
    unusable = False
    for root in (root for root in roots if root.is_dir()):
        files = SortedFiles()
        _sort_folder(root, exclude, files, passed_over)
        cases, own = _cases_of_folder(files, root, passed_over), _dicom_of(files, passed_over)
        unusable |= bool(files.images or any(files.labels.values()))
        empty += [] if cases or own else [root]
        found, dicom = found + cases, dicom + own
    for named in _by_folder(root for root in roots if not root.is_dir()):
        files = SortedFiles()
        cases, own = _cases_of_named(named, files, passed_over), _dicom_of(files, passed_over)
        empty += sorted(set(files.others) - set(own))
        found, dicom = found + cases, dicom + own
    found += cases_of_dicom(dicom, series_uid, series_description, passed_over)
    if empty or not found:
        held = f"It holds {passed_over}." if passed_over else "It is empty."
        if unusable:
            held += " If dataset_dir is a single file, it is taken whatever its name is."
        if found:
            held = "Leave it out, or give the path that was meant."
        raise ValueError(
            f"{_listed(empty or roots)}: holds no case to segment: no DICOM MR series, no NIfTI, NRRD, MHA or MGZ "
            f"volume, no TIFF, PNG or JPEG slice. {held}"
        )
    found = [with_sequences_or_error(case, sequences) for case in found]
    make_names_unique(found, roots)
    return sorted(found, key=lambda case: case["case"]), passed_over


def _paths(dataset_dir: PathLike | str | Sequence[PathLike | str]) -> list[Path]:
    """The folders and files to search, each once: one that lies in another is left out.

    Raises:
        ValueError: when there is none.
    """
    given = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else dataset_dir
    paths = {Path(path).resolve(): Path(path) for path in given}
    if not paths:
        raise ValueError("dataset_dir: is an empty list, expected at least one folder or file.")
    return [path for resolved, path in paths.items() if not any(parent in paths for parent in resolved.parents)]


def _listed(paths: Sequence[Path]) -> str:
    """The first path, and how many more there are."""
    return f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"


def _by_folder(files: Iterable[Path]) -> list[list[Path]]:
    """Files that the user named, by folder."""
    folders = defaultdict(list)
    for file in files:
        folders[file.parent].append(file)
    return [sorted(members) for members in folders.values()]


def _cases_of_folder(files: SortedFiles, root: Path, passed_over: PassedOver) -> list[dict]:
    """The cases that are not DICOM, from the sorted files of a folder."""
    found = []
    for source in _SOURCES:
        images = [image for image in files.images if image.source == source]
        cases = list(choose_images(images, root, passed_over))
        _add_references(cases, files.labels[source], passed_over)
        found += cases
    return found


def _cases_of_named(named: list[Path], files: SortedFiles, passed_over: PassedOver) -> list[dict]:
    """The cases that are not DICOM, from files of one folder that the user named; adds the files, sorted by kind.

    All are images, except labels of others among them.
    """
    by_name = SortedFiles()
    if len(named) > 1:
        sort_files(named, by_name, named[0].parent)
    stems = {file: stem_of(file) for image in by_name.images for file in image.files}
    references = {}
    for source in _SOURCES:
        owned = set(owners_of(by_name.labels[source], stems).values())
        references[source] = [label for label in by_name.labels[source] if label.path in owned]
    labels = {label.path for of_source in references.values() for label in of_source}
    sort_files([file for file in named if file not in labels], files, None)
    found = []
    for source in _SOURCES:
        cases = [named_image(image) for image in files.images if image.source == source]
        _add_references(cases, references[source], passed_over)
        found += cases
    return found


def _dicom_of(files: SortedFiles, passed_over: PassedOver) -> list[Path]:
    """DICOM files among those that are no images; the others are counted."""
    dicom = [file for file in files.others if is_dicom(file)]
    for file in sorted(set(files.others) - set(dicom)):
        passed_over.add(kind_of_file(file), file)
    return dicom


def _sort_folder(root: Path, exclude: PathLike | str | None, files: SortedFiles, passed_over: PassedOver) -> None:
    """Sort the files of a folder and its subfolders by kind."""
    excluded = frozenset() if exclude is None else frozenset({Path(exclude).resolve()})
    for folder, names in _walk(root, excluded):
        without = {path.name for path in excluded if path.parent == folder.resolve()}
        visible = [name for name in names if not name.startswith(".") and name not in without]
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


def cases_of_dicom(
    files: list[Path], series_uid: str | None, series_description: str | None, passed_over: PassedOver
) -> Iterator[dict]:
    """Find the FLAIR series of each study among DICOM files; a study without one is a case with ``error``."""
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


def make_names_unique(cases: list[dict], roots: Sequence[Path]) -> None:
    """Give each case a unique name that is a valid file name; names must differ in more than upper and lower case.

    If cases share a name, their folders are put in front; if they still share it, a number is added at the end.
    """
    root = os.path.commonpath([os.path.abspath(root if root.is_dir() else root.parent) for root in roots])
    for case in cases:
        case["case"] = safe_name(case["case"])
    for same in _by_name(cases):
        for case in same:
            first = Path(os.path.abspath(case["image"][0]))
            parts = first.relative_to(root).parts[:-1] if first.is_relative_to(root) else ()
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
