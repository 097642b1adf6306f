"""BIDS: FLAIR images of ``sub-*/[ses-*/]anat`` with lesion masks, which are matched by their entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mri_seg.datasets.found import Found, Unusable, case_of, institutions_of, no_label, read_table
from mri_seg.io.image_files import source_of, stem_of
from mri_seg.io.label_names import label_of
from mri_seg.utils.contrast_names import Contrast, contrast_of

__all__ = ["find"]

_ENTITY = re.compile(r"(?P<key>[a-z]+)-(?P<value>[A-Za-z0-9+]+)")
_LESION = re.compile(r"lesions?|tumou?rs?|gliomas?|whole|wt|edema", re.IGNORECASE)
_ALWAYS = ("sub", "ses")  # entities in which image and mask must agree, even if one lacks it


class _File(NamedTuple):
    """A file with its entities, such as ``{"sub": "01", "ses": "1"}``, and what follows them in its name."""

    path: Path
    entities: dict[str, str]
    rest: tuple[str, ...]


def find(root: Path) -> Found | None:
    """Find the cases of a BIDS data set; None for other folders.

    Every FLAIR image is a case. Its mask lies in ``derivatives`` or beside it. Subject and session must agree, and so
    must every other entity that both names have. Masks in another space, brain masks and probabilities do not count. An
    image without a mask is left out if another FLAIR image of its session has one. Columns of ``participants.tsv``
    called ``institution``, ``site`` or ``center`` are the institutions.

    Raises:
        ValueError: when ``participants.tsv`` is not text.
    """
    images = [
        file
        for pattern in ("sub-*/anat/*", "sub-*/ses-*/anat/*")
        for file in map(_parse, sorted(root.glob(pattern)))
        if file and label_of(file.path, stem_of(file.path), root) is None and _is_flair(file.path)
    ]
    if not images:
        return None
    masks = [file for file in map(_parse, _possible_masks(root)) if file and _is_mask(file.path, root)]
    table = root / "participants.tsv"
    places = institutions_of(read_table(table), "participant_id") if table.is_file() else {}
    matches = [_matches(image, masks) for image in images]
    claims = Counter(found[0].path for found in matches if len(found) == 1)
    labeled = {_session(image) for image, found in zip(images, matches) if found}
    cases = []
    for image, found in zip(images, matches):
        if not found and _session(image) in labeled:
            continue
        subject = f"sub-{image.entities['sub']}"
        more: dict[str, Any] = {"patient": subject, "institution": places.get(subject)}
        label = [file.path for file in found]
        if len(label) > 1:
            names = ", ".join(path.name for path in label)
            more["error"] = f"{image.path}: expected one mask, found {len(label)}: {names}. Keep one of them."
        elif label and claims[label[0]] > 1:
            more["error"] = f"{label[0]}: fits several images, such as {image.path}. Name the run or acquisition in it."
        elif not label:
            more["error"] = no_label(image.path)
        cases.append(case_of(stem_of(image.path), [image.path], label if "error" not in more else None, **more))
    used = {file.path for found in matches for file in found}
    unusable = [
        Unusable(mask.path, "fits no FLAIR image") for mask in masks if mask.path not in used and _names_lesion(mask)
    ]
    return Found("BIDS (FLAIR of sub-*, masks by entities)", cases, unusable=unusable)


def _parse(path: Path) -> _File | None:
    """Entities of a file whose name follows BIDS; None for others."""
    if source_of(path) != "volume":
        return None
    parts = stem_of(path).split("_")
    entities: dict[str, str] = {}
    while parts and (match := _ENTITY.fullmatch(parts[0])):
        entities[match["key"]] = match["value"]
        parts.pop(0)
    return _File(path, entities, tuple(parts)) if "sub" in entities and parts else None


def _is_flair(path: Path) -> bool:
    return contrast_of(stem_of(path)) is Contrast.FLAIR


def _possible_masks(root: Path) -> list[Path]:
    places = (root / "derivatives").rglob("*"), root.glob("sub-*/anat/*"), root.glob("sub-*/ses-*/anat/*")
    return sorted(path for place in places for path in place if path.is_file())


def _is_mask(path: Path, root: Path) -> bool:
    label = label_of(path, stem_of(path), root)
    return label is not None and label.reference


def _session(file: _File) -> tuple[str | None, ...]:
    return tuple(file.entities.get(key) for key in _ALWAYS)


def _matches(image: _File, masks: Sequence[_File]) -> list[_File]:
    """The masks of an image: those with most entities in common, and of these the ones named after lesions."""
    fitting = [
        mask
        for mask in masks
        if _session(mask) == _session(image)
        and all(mask.entities.get(key, value) == value for key, value in image.entities.items())
        and all(contrast_of(word).may_be_flair for word in mask.rest[:-1])  # sub-01_FLAIR_roi
    ]
    common = [sum(key in mask.entities for key in image.entities) for mask in fitting]
    best = [mask for mask, count in zip(fitting, common) if count == max(common)]
    return [mask for mask in best if _names_lesion(mask)] or best


def _names_lesion(mask: _File) -> bool:
    words = (mask.entities.get("label", ""), mask.entities.get("desc", ""), mask.rest[-1])
    return any(_LESION.fullmatch(word) for word in words)
