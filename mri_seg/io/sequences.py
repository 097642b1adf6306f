"""Find the files of further sequences of a case beside its FLAIR image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mri_seg.io.channels import channel_names, channels_of
from mri_seg.io.image_files import source_of, stem_of
from mri_seg.io.nibabel_files import is_header
from mri_seg.utils.contrast_names import patient_of
from mri_seg.utils.sequence_names import plain_name

__all__ = ["with_sequences", "with_sequences_or_error"]


def with_sequences(case: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Add the files of further sequences to a case, under the key ``sequences``, in the order of their names.

    They are those that a list of cases gives, or volumes beside the FLAIR image whose names differ from its name in the
    sequence alone: ``P1_t1ce.nii.gz`` beside ``P1_flair.nii.gz``, ``sub-01_T1w`` beside ``sub-01_FLAIR``, or nnU-Net's
    channel that ``dataset.json`` calls so. Upper and lower case, and what is neither letter nor digit, do not matter.

    Args:
        case: a case with ``image``, a list with one file.
        names: names of the sequences; if there are none, the case stays as it is.

    Raises:
        ValueError: when a sequence is missing or several files may be it, when the image is no volume in one file, or
            when a list of cases gives another number of sequences.
    """
    found, listed = dict(case), case.get("sequences")
    image = Path(case["image"][0])
    if listed is not None and len(listed) != len(names):
        raise ValueError(
            f"{image}: its case lists {1 + len(listed)} volumes, expected {1 + len(names)}: FLAIR"
            + "".join(f", {name}" for name in names)
            + ". Name those beside FLAIR with --sequences, in their order, or list others."
        )
    if names and listed is None:
        if len(case["image"]) != 1 or source_of(image) != "volume":
            raise ValueError(
                f"{image}: is a slice or DICOM, but --sequences takes volumes in one file, such as NIfTI, NRRD or MHA. "
                "Convert the case, or use FLAIR alone."
            )
        found["sequences"] = [str(_only(image, name)) for name in names]
    return found


def with_sequences_or_error(case: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A case with its further sequences as :py:func:`with_sequences` adds them; or with ``error``, why it has none.

    Args:
        case: a case; one that has ``error`` stays as it is.
        names: names of the sequences.
    """
    if "error" in case:
        return dict(case)
    try:
        return with_sequences(case, names)
    except ValueError as error:
        return {**case, "error": str(error)}


def _only(image: Path, name: str) -> Path:
    """The one file beside an image that is its sequence of a name."""
    files = sorted(_beside(image, name))
    if len(files) == 1:
        return files[0]
    what = f"{len(files)} files ({', '.join(file.name for file in files)})" if files else "none"
    raise ValueError(
        f"{image}: expected one volume beside it that is its sequence {name}, found {what}. Its name must differ in "
        "the sequence alone, as P1_t1ce does from P1_flair; or list the volumes of each case with --datalist."
    )


def _beside(image: Path, name: str) -> Iterator[Path]:
    stem, folder = stem_of(image), image.parent
    files = {
        stem_of(file): file
        for file in folder.iterdir()
        if file != image and not file.name.startswith(".") and source_of(file) == "volume" and not is_header(file)
    }
    channels = channels_of(folder, [stem, *files])
    if stem in channels:
        called = channel_names(folder)
        for other, (case, channel) in channels.items():
            if other in files and case == channels[stem][0] and plain_name(called.get(channel, "")) == plain_name(name):
                yield files[other]
        return
    # Where the name of the sequence begins: what follows names no patient.
    starts = [n for n in range(len(stem)) if (not n or not stem[n - 1].isalnum()) and not patient_of(stem[n:])]
    for other, file in files.items():
        if any(other[:n] == stem[:n] and plain_name(other[n:]) == plain_name(name) for n in starts):
            yield file
