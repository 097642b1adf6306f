"""Find the masks that a program made of cases, whatever it calls them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from monai.utils import ensure_tuple

from mri_seg.dicom.headers import read_header
from mri_seg.dicom.segmentation_labels import is_segmentation, referenced_series
from mri_seg.dicom.series import is_dicom
from mri_seg.io.earlier_outputs import earlier_outputs
from mri_seg.io.image_files import source_of, stem_of
from mri_seg.io.nibabel_files import is_header
from mri_seg.utils.contrast_names import words_of

__all__ = ["find_predictions"]

_MASK = re.compile(r"masks?|labels?|labelmap|(?:tumou?r|lesion)?seg|segmentations?|preds?|predictions?|out|output")
_NO_MASK = re.compile(r"prob|probability|probabilities|softmax|probseg|uncertainty|logits|brain|bet")
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's channel number, which masks do not have
_NUMBERED = re.compile(r"^(?P<stem>.*?)[ _.-]?(?P<number>\d+)$")
_BIDS = re.compile(r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?(?=_|$)")


class _Mask(NamedTuple):
    """A mask and the names that it goes by.

    Attributes:
        files: its files, slices in order.
        texts: name of its file, with and without a word for a mask.
        words: the same as words.
        folder: words of the name of its folder; empty directly in the searched folder.
        subject: BIDS' subject and session; None for other names.
        series: SeriesInstanceUIDs to which a DICOM SEG refers.
    """

    files: tuple[Path, ...]
    texts: frozenset[str]
    words: frozenset[tuple[str, ...]]
    folder: tuple[str, ...]
    subject: tuple[str | None, ...] | None
    series: frozenset[str] = frozenset()


def find_predictions(
    cases: Sequence[Mapping[str, Any]], folder: PathLike | str
) -> tuple[dict[str, list[str]], list[str]]:
    """Find the mask of each case in a folder of predictions, at any depth.

    A mask is a NIfTI, NRRD, MetaImage, MGH or MGZ file, a pair of ``.hdr`` and ``.img``, a TIFF file with several
    pages, numbered TIFF, PNG or JPEG slices, or a DICOM SEG. A SEG belongs to the case whose series it refers to.
    Otherwise a mask belongs to a case if, apart from a word such as ``mask``, ``seg`` or ``pred``, one of these is the
    name of the case, or that of its image without a channel number: first, the name of its file (``P1.nii.gz``,
    ``P1_mask.nii.gz``, ``P1_1_mask.tif``); otherwise that of its folder (``P1/tumor.nii.gz``); otherwise BIDS' subject
    and session (``sub-01_desc-tumor_mask.nii.gz`` for ``sub-01_FLAIR``). If none is, its file may have the name of the
    case's patient (``BraTS-GLI-00005-100.nii.gz`` for ``BraTS-GLI-00005-100-t2f``). Probabilities and brain masks are
    passed over. Of the results of :py:class:`mri_seg.inference.writer.CaseWriter`, the mask in the input's grid counts.

    Args:
        cases: cases with ``case``, ``image`` and, if it is known, ``patient``.
        folder: folder of the masks.

    Returns:
        files of the mask by the name of the case, slices in the order of their numbers; and the cases without a mask.

    Raises:
        FileNotFoundError: when the folder does not exist.
        ValueError: when several masks fit a case, or a mask fits several cases, or no file can be a mask; all such
            cases are listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give --predictions the folder of the masks.")
    names = {str(case["case"]): _names_of(case) for case in cases}
    masks = list(_masks_in(root, {words_of(name) for of_case in names.values() for name in of_case}))
    if not masks:
        raise ValueError(
            f"{root}: holds no mask, expected NIfTI, NRRD, MHA or MGZ files, or numbered TIFF, PNG or JPEG slices, "
            "named after the cases, or DICOM SEG of their series."
        )
    refers = any(mask.series for mask in masks)  # otherwise no header is read
    series = {str(case["case"]): _series_of(case) if refers else None for case in cases}
    patients = {str(case["case"]): str(case.get("patient") or "") for case in cases}
    found: dict[str, list[str]] = {}
    problems: list[str] = []
    owners: dict[tuple[Path, ...], str] = {}
    for case, of_case in names.items():
        fitting = _fitting(masks, case, of_case, series[case], patients[case])
        if len(fitting) > 1:
            listed = ", ".join(str(mask.files[0].relative_to(root)) for mask in fitting)
            problems.append(f"{case} has {len(fitting)} masks ({listed})")
        elif fitting:
            (mask,) = fitting
            if mask.files in owners:
                name = mask.files[0].relative_to(root)
                problems.append(f"{name} fits two cases, {owners[mask.files]} and {case}")
            owners[mask.files] = case
            found[case] = [str(file) for file in mask.files]
    if problems:
        raise ValueError(
            f"{root}: expected one mask for each case, but {'; '.join(problems)}. Keep one mask of each case in the "
            "folder, named after the case."
        )
    return found, [case for case in names if case not in found]


def _names_of(case: Mapping[str, Any]) -> set[str]:
    """Names of a case: its own and, if its image is one file, that of the file, both without a channel number too."""
    files = [Path(file) for file in ensure_tuple(case["image"])]
    names = {str(case["case"]), *([stem_of(files[0])] if len(files) == 1 else [])}
    return names | {_CHANNEL.sub("", name) for name in names}


def _series_of(case: Mapping[str, Any]) -> str | None:
    """SeriesInstanceUID of a case's images; None if they are not DICOM."""
    file = Path(ensure_tuple(case["image"])[0])
    if not file.is_file() or not is_dicom(file):
        return None
    return str(read_header(file, ["SeriesInstanceUID"]).get("SeriesInstanceUID") or "") or None


def _fitting(masks: Sequence[_Mask], case: str, names: set[str], series: str | None, patient: str) -> list[_Mask]:
    """Masks that fit a case in the strictest way in which any fits."""
    words = {words_of(name) for name in names} - {()}
    subject = _subject(case)
    ways: tuple[Callable[[_Mask], bool], ...] = (
        lambda mask: series in mask.series,
        lambda mask: bool(mask.texts & names),
        lambda mask: bool(mask.words & words),
        lambda mask: mask.folder in words,
        lambda mask: subject is not None and mask.subject == subject,
        lambda mask: patient in mask.texts,
    )
    return next((fitting for way in ways if (fitting := [mask for mask in masks if way(mask)])), [])


def _masks_in(root: Path, names: set[tuple[str, ...]]) -> Iterator[_Mask]:
    """Masks of a folder and its subfolders; a file that has one of the names, as words, is no slice of a mask."""
    slices: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for file in _files_in(root):
        source, stem = source_of(file), stem_of(file)
        if source is None and is_segmentation(file):
            yield _mask((file,), stem, root)._replace(series=referenced_series(file))
            continue
        if source is None or is_header(file) or any(_NO_MASK.fullmatch(word) for word in words_of(stem)[-2:]):
            continue
        numbered = _NUMBERED.match(_without_mask(stem))
        if source == "volume" or numbered is None or {words_of(text) for text in _texts(stem)} & names:
            yield _mask((file,), stem, root)
            continue
        number, of_same = int(numbered["number"]), slices[file.parent, numbered["stem"]]
        if number in of_same:
            raise ValueError(
                f"{file}: has slice number {number}, like {of_same[number].name}. Keep one mask of each slice."
            )
        of_same[number] = file
    for (_, stem), of_same in slices.items():
        yield _mask(tuple(of_same[number] for number in sorted(of_same)), stem, root)


def _mask(files: tuple[Path, ...], name: str, root: Path) -> _Mask:
    texts = _texts(name)
    folder = () if files[0].parent == root else words_of(files[0].parent.name)
    return _Mask(files, texts, frozenset(map(words_of, texts)), folder, _subject(name))


def _files_in(root: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files of a folder and its subfolders; of a case of an earlier inference, the mask in the input's grid alone."""
    above = above | {root.resolve()}
    entries = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".")]
    own = earlier_outputs(root, [entry.name for entry in entries if entry.is_file()])
    mask = f"{root.resolve().name}_mask.nii.gz"
    for entry in entries:
        if entry.is_dir():
            if entry.resolve() not in above:  # such a link never ends
                yield from _files_in(entry, above)
        elif mask not in own or entry.name == mask or entry.name not in own:
            yield entry


def _texts(stem: str) -> frozenset[str]:
    """A name, and the name without a word for a mask at one of its ends."""
    first, _, rest = stem.partition("_")
    return frozenset({stem, _without_mask(stem), rest if rest and _MASK.fullmatch(first.lower()) else stem})


def _without_mask(stem: str) -> str:
    """A name without a word for a mask at its end: ``P1_7_mask`` gives ``P1_7``."""
    last = re.split(r"[ _.-]", stem)[-1]
    head = stem[: -len(last) - 1]
    return head if head and _MASK.fullmatch(last.lower()) else stem


def _subject(name: str) -> tuple[str | None, ...] | None:
    """BIDS' subject and session in a name; None for other names."""
    match = _BIDS.match(name)
    return match.groups() if match else None
