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
_DERIVATIVES = "derivatives"  # BIDS: what was computed of the images, labels and images alike
# Labels of other things than lesions, and predictions: never a reference.
_NO_REFERENCE = re.compile(
    r"[a-z]*brain[a-z]*|parenchyma|bet|skull[a-z]*|synthstrip|[wg]m|csf|[ad]seg|probseg|aparc|ribbon|tissues?|ventricles?"
    r"|vessels?|prob|probability|preds?|predictions?|uncertainty"
)
# What a label's name says of the lesion or of who drew it, and an image's does not.
_OF_THE_LABEL = re.compile(
    r"lesions?|tumou?rs?|gliomas?|whole|wt|manual|expert|final|gt|truth|ground|bin(?:ary)?|desc|label"
)
_OTHER_GRID = re.compile(r"_space-(?!FLAIR|orig|native)[A-Za-z0-9+]+", re.IGNORECASE)


_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's, which labels do not have


class Label(NamedTuple):
    """A file whose name or folder says that it is a label.

    Attributes:
        path: the file.
        words: words of the image's name that it may belong to.
        patient: words of the patient, as :py:func:`mri_seg.utils.contrast_names.patient_of` gives them.
        below: folders that lead to it from its label folder; None for a label that lies beside images.
        base: the folder that its label folder lies in, or else its own.
        reference: whether it may be a lesion's outline, and not that of a brain or a prediction.
        kind: ``label``, or ``derivative`` for any other file of BIDS' derivatives.
    """

    path: Path
    words: tuple[str, ...]
    patient: tuple[str, ...]
    below: tuple[str, ...] | None
    base: Path
    reference: bool
    kind: str


def label_of(path: Path, stem: str, root: Path) -> Label | None:
    """Tell whether a file is a label: by its name (``P1_mask``, ``P1-label``, ``Segmentation.seg``) or a folder's.

    Args:
        path: the file.
        stem: its name without suffixes.
        root: the folder that is searched; names of folders above it say nothing.
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
    # The label word and the one before it: brain_mask is a brain's, brain_1_mask that of slice 1 of "brain".
    reference &= not any(_NO_REFERENCE.fullmatch(word) for word in (*own_words[-2:], *of_folders))
    base, below = (path.parent, None) if place is None else (root.joinpath(*folders[:place]), folders[place + 1 :])
    return Label(path, words, patient, below, base, reference, "derivative" if derivative else "label")


def owners_of(labels: Iterable[Label], images: Mapping[Path, str]) -> dict[Path, Path]:
    """Find the labels of images: by the name of the image or, next, of its patient; beside it or in a label folder.

    A label that would fit several images, and labels of which several fit one image, are left out.

    Args:
        labels: labels; those that are no reference are passed over.
        images: images, and their names without suffixes.

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
    """Words of the image whose label a name is of; None for names that are no label's."""
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
    """Whether a label lies beside an image, or in a label folder where the image's folder has its like."""
    if label.below is None:
        return label.base == image.parent
    if not image.is_relative_to(label.base):
        return False
    folders, below = image.relative_to(label.base).parts[:-1], label.below
    shorter, longer = sorted((folders, below), key=len)
    return len(longer) - len(shorter) <= 1 and longer[len(longer) - len(shorter) :] == shorter
