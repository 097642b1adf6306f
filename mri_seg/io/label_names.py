"""Tell labels from images by the names of files and folders, and find the image that each label belongs to."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mri_seg.utils.contrast_names import Contrast, contrast_of, patient_of, words_of

__all__ = ["Label", "label_of", "owners_of"]

_SEG = r"(?:[adlm]|prob|tumou?r|lesion|auto|manual|final|gt)?seg"
_LABEL = re.compile(
    rf"(?P<word>[a-z]*masks?|labels?|labelmap|{_SEG}|segmentations?|rois?|lesions?|gt|groundtruth|annotations?|contours?"
    r"|prob|probability|pred|predictions?)(?P<number>\d*)"
)
_LABEL_FIRST = re.compile(r"(?:masks?|labels?|seg|segmentations?)")
_LABEL_BEFORE_CONTRAST = re.compile(r"(?:[a-z]*masks?|labels?|segmentations?)")
_LABEL_FOLDER = re.compile(
    rf"[a-z]*masks?|labels?|{_SEG}s?|segmentations?|rois?|annotations?|gts?|groundtruths?|predictions?|preds?"
)
_NNUNET_FOLDER = re.compile(r"labels(?:Tr|Ts|Val)", re.IGNORECASE)
_DERIVATIVES = "derivatives"  # BIDS: everything that was computed from the images, both labels and images
# Labels of other things than lesions, and predictions: they are never a reference.
_NO_REFERENCE = re.compile(
    r"[a-z]*brain[a-z]*|parenchyma|bet|skull[a-z]*|synthstrip|[wg]m|csf|[ad]seg|probseg|aparc|ribbon|tissues?|ventricles?"
    r"|vessels?|prob|probability|preds?|predictions?|uncertainty"
)
# Words about the lesion, or about who drew it, which occur in names of labels but not of images.
_OF_THE_LABEL = re.compile(
    r"lesions?|tumou?rs?|gliomas?|whole|wt|manual|expert|final|gt|truth|ground|bin(?:ary)?|desc|label"
)
_OTHER_GRID = re.compile(r"_space-(?!FLAIR|orig|native)[A-Za-z0-9+]+", re.IGNORECASE)


_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's channel number, which labels do not have


class Label(NamedTuple):
    """A file whose name or folder says that it is a label.

    Attributes:
        path: the file.
        words: words in the name of the image to which it may belong.
        patient: words that name the patient, from :py:func:`mri_seg.utils.contrast_names.patient_of`.
        below: folders between its label folder and the file; None for a label that lies beside images.
        base: the folder that contains its label folder, or its own folder if it lies beside images.
        reference: whether it may be the outline of a lesion; false for a brain mask or a prediction.
        kind: ``label``, or ``derivative`` for any other file in BIDS' ``derivatives``.
    """

    path: Path
    words: tuple[str, ...]
    patient: tuple[str, ...]
    below: tuple[str, ...] | None
    base: Path
    reference: bool
    kind: str


def label_of(path: Path, stem: str, root: Path) -> Label | None:
    """Find out if a file is a label, by its name (``P1_mask``, ``P1-label``, ``Segmentation.seg``) or its folders.

    Args:
        path: the file.
        stem: its name without suffixes.
        root: the folder that is searched; names of folders above it do not count.

    Returns:
        the label, or None if the file is not one.
    """
    words = _image_words(stem)
    folders = path.parent.relative_to(root).parts
    place = next((n for n, name in enumerate(folders) if _is_label_folder(name)), None)
    if words is None and place is None:
        return None
    own_words = words_of(stem)
    derivative = words is None and place is not None and folders[place].lower() == _DERIVATIVES
    if words is None:
        words = own_words
    while words and _OF_THE_LABEL.fullmatch(words[-1]):
        words = words[:-1]
    patient = patient_of(stem) if stem.startswith("sub-") else patient_of(" ".join(words))
    named = contrast_of(" ".join(words))
    reference = not derivative and not named.is_other and not _OTHER_GRID.search(stem)
    of_folders = [word for name in folders[place:] for word in words_of(name)] if place is not None else []
    # Only the label word and the word before it count: brain_mask is a brain, brain_1_mask is slice 1 of "brain".
    reference &= not any(_NO_REFERENCE.fullmatch(word) for word in (*own_words[-2:], *of_folders))
    base, below = (path.parent, None) if place is None else (root.joinpath(*folders[:place]), folders[place + 1 :])
    return Label(path, words, patient, below, base, reference, "derivative" if derivative else "label")


def owners_of(labels: Iterable[Label], images: Mapping[Path, str]) -> dict[Path, Path]:
    """Find the label of each image, beside it or in a label folder: first by the image's name, then by the patient.

    If a label fits several images, or several labels fit one image, they are left out.

    Args:
        labels: labels; those that cannot be a reference are skipped.
        images: images, with their names without suffixes.

    Returns:
        the label of each image that has one.
    """
    by_words, by_patient = defaultdict(list), defaultdict(list)
    for label in labels:
        if label.reference:
            by_words[label.words].append(label)
            by_patient[label.patient].append(label)
    found = {}
    for image, stem in images.items():
        channel = _CHANNEL.sub("", stem)
        candidates: Sequence[Label] = ()
        for pool in (by_words[words_of(stem)], by_words[words_of(channel)], by_patient[patient_of(channel)]):
            for beside in (True, False):
                candidates = candidates or [
                    label for label in pool if (label.below is None) is beside and _is_near(label, image)
                ]
        if len(candidates) == 1:
            found[image] = candidates[0].path
    claims = Counter(found.values())
    return {image: label for image, label in found.items() if claims[label] == 1}


@lru_cache(maxsize=1_000)
def _is_label_folder(name: str) -> bool:
    words = words_of(name)
    return bool(
        name.lower() == _DERIVATIVES or _NNUNET_FOLDER.fullmatch(name) or (words and _LABEL_FOLDER.fullmatch(words[-1]))
    )


def _image_words(stem: str) -> tuple[str, ...] | None:
    """Words of the image to which a label with this name belongs; None if the name is not that of a label."""
    words = words_of(stem)
    *before, last = words or ("",)
    if match := _LABEL.fullmatch(last):  # P1_mask, seg0
        return (*before, match["number"]) if match["number"] else tuple(before)
    if before and last.isdigit() and _LABEL.fullmatch(before[-1]):  # P1_mask_7
        return (*before[:-1], last)
    contrast = contrast_of(stem)
    if words and _LABEL_FIRST.fullmatch(words[0]) and (words[0] != "seg" or contrast is not Contrast.FLAIR):  # mask_P1
        return words[1:]
    if before and _LABEL_BEFORE_CONTRAST.fullmatch(before[-1]) and not patient_of(last):  # P1_mask_FLAIR
        return (*before[:-1], last)
    return None


def _is_near(label: Label, image: Path) -> bool:
    """Whether a label lies beside an image, or in a label folder whose subfolders match those of the image."""
    if label.below is None:
        return label.base == image.parent
    if not image.is_relative_to(label.base):
        return False
    folders, below = image.relative_to(label.base).parts[:-1], label.below
    shorter, longer = sorted((folders, below), key=len)
    return len(longer) - len(shorter) <= 1 and longer[len(longer) - len(shorter) :] == shorter
