"""Find out by their names which images belong to one patient, and which of them is FLAIR."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_seg.io.channels import channel_names, channels_of, flair_volume
from mri_seg.io.image_files import Image
from mri_seg.io.passed_over import PassedOver
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.contrast_names import Contrast, contrast_of, patient_of

__all__ = ["choose_images", "named_image"]

_LISTED = 10  # maximum number of images of one patient listed in an error
# Words for results computed from an image: they do not name a patient, and the image itself is preferred.
_COMPUTED = {
    "bias",
    "biasfield",
    "biascorr",
    "n4",
    "bet",
    "brain",
    "stripped",
    "skullstripped",
    "denoised",
    "corrected",
}
_BIAS = {"bias", "biasfield"}
_DOUBTS = {  # flags by the contrast in a name
    Contrast.FLAIR_OR_MAP: ("perhaps_a_map", "its name may mean a map or a subtraction of FLAIR"),
    Contrast.INVERSION_RECOVERY: ("perhaps_stir", "its name may mean STIR instead of FLAIR"),
}


@dataclass
class _Candidate:
    """An image, with what follows from its name.

    Attributes:
        image: the image.
        contrast: its contrast, from its name, its channel or its folder.
        patient: words that name the patient.
        scope: the folder within which names that differ only in the contrast belong to one patient.
        words: words of ``_COMPUTED`` in its name.
        channel: number of its channel, if the name has one.
        is_bids: whether the name follows BIDS.
    """

    image: Image
    contrast: Contrast
    patient: tuple[str, ...]
    scope: Path
    words: set[str] = field(default_factory=set)
    channel: int | None = None
    is_bids: bool = False


def choose_images(images: Iterable[Image], root: Path, passed_over: PassedOver) -> Iterator[dict[str, Any]]:
    """Make a case of each image that is, or may be, the FLAIR of a patient.

    Images belong to one patient if they have the same BIDS subject and session, the same name before nnU-Net's channel
    number, or names that differ only in words for a contrast, in one folder or in folders named after contrasts. If one
    of them is named FLAIR, the others are skipped, and so are other images in the folder. If none is named FLAIR, a
    single image is taken, with the flag ``named_other_contrast`` if its name says another contrast; several images are
    an error.

    Args:
        images: images of one source.
        root: the folder that is searched.
        passed_over: counts the images that are skipped.

    Yields:
        cases with ``case``, ``image``, ``source`` and, if they apply, ``error``, ``flags`` and ``volume``.
    """
    scopes: dict[tuple[Path, bool], dict[tuple[str, ...], list[_Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in _candidates(images, root):
        scopes[candidate.scope, candidate.is_bids][candidate.patient].append(candidate)
    for patients in scopes.values():
        named = any(candidate.contrast.may_be_flair for members in patients.values() for candidate in members)
        for members in patients.values():
            chosen = _flair_of(members)
            if not chosen and not named and not members[0].is_bids:
                if len(members) == 1 or all(m.contrast is Contrast.UNKNOWN and m.channel is None for m in members):
                    chosen = members
                else:
                    yield _ambiguous(members)
                    continue
            for candidate in members:
                if candidate in chosen:
                    yield _case(candidate)
                    continue
                noun = "volume" if candidate.image.source == "volume" else "slice"
                unnamed = candidate.contrast is Contrast.UNKNOWN
                kind = f"{noun} whose name does not say FLAIR" if unnamed else f"{noun} of another contrast"
                if candidate.contrast.may_be_flair:
                    kind = f"{noun} computed from a FLAIR"
                for file in candidate.image.files:
                    passed_over.add(kind, file)


def named_image(image: Image) -> dict[str, Any]:
    """Make a case of an image that the user named; it gets a flag if its name says another contrast."""
    (candidate,) = _candidates([image], image.folder)
    return _case(candidate)


def _candidates(images: Iterable[Image], root: Path) -> Iterator[_Candidate]:
    folders: dict[Path, list[Image]] = defaultdict(list)
    for image in images:
        folders[image.folder].append(image)
    for folder, members in folders.items():
        volumes = [image.name for image in members if image.source == "volume"]
        channels, names = channels_of(folder, volumes), channel_names(folder)
        for image in members:
            name, channel = channels.get(image.name, (image.name, None))
            contrast = contrast_of(name if channel is None else names.get(channel, ""))
            if channel is None and contrast is Contrast.UNKNOWN and image.source == "volume" and len(names) == 1:
                contrast = contrast_of(*names.values())
            words = patient_of(name)
            is_bids = bool(words) and words[0].startswith("sub-")
            scope, contrast = (root, contrast) if is_bids else _scope(folder, root, contrast)
            computed = _COMPUTED.intersection(words) if contrast.may_be_flair else set()
            patient = tuple(word for word in words if word not in computed)
            yield _Candidate(image, contrast, patient, scope, computed, channel, is_bids)


def _scope(folder: Path, root: Path, contrast: Contrast) -> tuple[Path, Contrast]:
    """Find the folder above those named after contrasts (``P1/3_T1/``), and the contrast they name if not known yet."""
    while folder != root:
        named = contrast_of(folder.name)
        if named is Contrast.UNKNOWN or any(word.isalpha() for word in patient_of(folder.name)):
            break
        contrast = named if contrast is Contrast.UNKNOWN else contrast
        folder = folder.parent
    return folder, contrast


def _flair_of(members: Sequence[_Candidate]) -> list[_Candidate]:
    """Choose the images named FLAIR, or else those that may be FLAIR; original images before computed ones."""
    for contrast in (Contrast.FLAIR, Contrast.FLAIR_OR_MAP, Contrast.INVERSION_RECOVERY):
        if found := [candidate for candidate in members if candidate.contrast is contrast]:
            return [candidate for candidate in found if not candidate.words] or found
    return []


def _case(candidate: _Candidate) -> dict[str, Any]:
    image = candidate.image
    case: dict[str, Any] = {"case": image.name, "image": [str(file) for file in image.files], "source": image.source}
    if image.error:
        case["error"] = image.error
    if candidate.channel is None and image.source == "volume" and (volume := flair_volume(image.folder)) is not None:
        case["volume"] = volume
    if candidate.contrast.is_other and "volume" not in case:
        message = f"its name says {candidate.contrast.value}, not FLAIR, which the network was trained on."
        add_flag(case, "named_other_contrast", message)
    if candidate.contrast in _DOUBTS:
        name, message = _DOUBTS[candidate.contrast]
        add_flag(case, name, f"{message}. Check the image.")
    if candidate.words & _BIAS:
        add_flag(case, "perhaps_bias_field", "its name may mean a bias field. Check the image.")
    return case


def _common_prefix(names: Sequence[str]) -> str:
    """The common beginning of names, up to the end of a word."""
    letters = [at[0] for at in itertools.takewhile(lambda at: len(set(at)) == 1, zip(*names, strict=False))]
    while letters and letters[-1].isalnum() and any(name[len(letters) : len(letters) + 1].isalnum() for name in names):
        letters.pop()
    return "".join(letters).rstrip("_-. ")


def _ambiguous(members: Sequence[_Candidate]) -> dict[str, Any]:
    """A case that cannot be segmented, because nothing says which of several images is FLAIR."""
    images = [candidate.image for candidate in members]
    listed = [f"  {image.files[0]}" for image in images[:_LISTED]]
    listed += [f"  and {len(images) - _LISTED} more"] if len(images) > _LISTED else []
    error = (
        f"{images[0].folder}: expected one FLAIR image of a patient, found {len(images)}, and no name says FLAIR. "
        "Add FLAIR to its name, give the file itself as dataset_dir, or put nnU-Net's dataset.json beside the folder:\n"
        + "\n".join(listed)
    )
    return {
        "case": _common_prefix([image.name for image in images]) or members[0].scope.resolve().name,
        "image": [str(file) for image in images for file in image.files],
        "source": images[0].source,
        "error": error,
    }
