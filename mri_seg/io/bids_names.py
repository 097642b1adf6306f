"""Names of BIDS images, and of the derivatives that this program writes for them.

Source: Brain Imaging Data Structure, https://bids-specification.readthedocs.io ("Common principles"; "Imaging data
types" of derivatives).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["BIDS_FORM", "DERIVATIVES", "GENERATOR", "bids_root", "derivative_names", "is_generated", "own_derivatives"]

GENERATOR = "mri_seg"
"""``Name`` of this program in ``GeneratedBy``."""

BIDS_FORM = "sub-<label>[_ses-<label>][_<entity>-<label>...]_FLAIR.nii.gz"
"""How BIDS names a FLAIR image, for messages."""

DERIVATIVES = {"mask": "label-tumor", "probseg": "label-tumor", "roi": "label-lesion"}
"""Labels of the derivatives by their suffix. BIDS has no ``roi``; it is the name by which fMRIPrep and QSIPrep look for
the lesion mask of a subject."""

_LABEL = r"[A-Za-z0-9+]+"
_IMAGE = re.compile(
    rf"(?P<subject>sub-{_LABEL})(?:_(?P<session>ses-{_LABEL}))?(?P<entities>(?:_[a-z]+-{_LABEL})*)_[A-Za-z0-9]+"
    r"\.nii(?:\.gz)?"
)
_OWN = re.compile(
    rf"sub-{_LABEL}(?:_[a-z]+-{_LABEL})*_(?:label-tumor|label-lesion)(?:_desc-{_LABEL})?"
    rf"_(?:{'|'.join(DERIVATIVES)})\.(?:nii\.gz|json)"
)
# Entities that follow `space` in the order of the specification, except `label` and `desc`, which come last.
_AFTER_SPACE = ("split", "recording", "chunk", "atlas", "seg", "scale", "res", "den")


def derivative_names(image: PathLike | str) -> dict[str, str] | None:
    """Names of the derivatives of a BIDS image, by their suffix; all entities of the image are kept.

    Args:
        image: the image; only its name counts.

    Returns:
        for each suffix of :py:data:`DERIVATIVES`, the path of the NIfTI file below the root of the derivatives, with
        ``/``; None if BIDS does not name an image so.

    Example::

        >>> derivative_names("sub-1_ses-2_run-3_FLAIR.nii")["mask"]
        'sub-1/ses-2/anat/sub-1_ses-2_run-3_space-orig_label-tumor_mask.nii.gz'
        >>> derivative_names("P1_FLAIR.nii.gz") is None
        True
    """
    found = _IMAGE.fullmatch(Path(image).name)
    if found is None:
        return None
    people = [part for part in (found["subject"], found["session"]) if part]
    entities = [entity.partition("-")[::2] for entity in found["entities"].split("_") if entity]
    last = {"space", "label", "desc", *_AFTER_SPACE}
    begin = [*people, *(f"{key}-{value}" for key, value in entities if key not in last)]
    space = [f"{key}-{value}" for key, value in entities if key == "space"]
    after = [f"{key}-{value}" for key, value in entities if key in _AFTER_SPACE]
    desc = [f"{key}-{value}" for key, value in entities if key == "desc"]
    names = {}
    for suffix, label in DERIVATIVES.items():
        grid = space or ([] if suffix == "roi" else ["space-orig"])  # the pipelines look for a file without it
        name = "_".join([*begin, *grid, *after, label, *desc, suffix])
        names[suffix] = "/".join([*people, "anat", f"{name}.nii.gz"])
    return names


def bids_root(image: PathLike | str) -> Path | None:
    """The folder of the data set that a BIDS image belongs to.

    Args:
        image: the image.

    Returns:
        the nearest folder above it with a ``dataset_description.json``, or else the folder that contains its subject's;
        None if there is neither.
    """
    image = Path(image).absolute()
    for folder in image.parents:
        if (folder / "dataset_description.json").is_file():
            return folder
    subject = image.name.partition("_")[0]
    return next((folder.parent for folder in image.parents if folder.name == subject), None)


def is_generated(description: Mapping[str, Any]) -> bool:
    """Whether the content of a BIDS JSON file says that this program made what it describes.

    Args:
        description: content of a ``dataset_description.json``, or of the JSON file beside a derivative.
    """
    makers = description.get("GeneratedBy")
    return isinstance(makers, list) and any(
        isinstance(maker, Mapping) and maker.get("Name") == GENERATOR for maker in makers
    )


def own_derivatives(folder: Path, names: Iterable[str]) -> set[str]:
    """Find the BIDS derivatives that this program wrote, by their names and the JSON files beside them.

    The JSON files are read, so that a lesion mask of another origin and the same name is not one of them.

    Args:
        folder: the folder.
        names: names of its files.
    """
    found = set()
    for name in filter(_OWN.fullmatch, names):
        described = folder / f"{name.removesuffix('.nii.gz').removesuffix('.json')}.json"
        if is_generated(_content(described)):
            found.add(name)
    return found


def _content(file: Path) -> Mapping[str, Any]:
    """Content of a JSON file; empty if it does not exist, cannot be read, or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
