"""nnU-Net's raw data sets: ``imagesTr``, ``labelsTr`` and ``dataset.json``, which names the channel that is FLAIR."""

from __future__ import annotations

from pathlib import Path

from mri_seg.datasets.found import Found, Unusable, case_of
from mri_seg.io.channels import channel_names, channels_of
from mri_seg.io.image_files import source_of, stem_of
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.contrast_names import contrast_of

__all__ = ["find"]


def find(root: Path) -> Found | None:
    """Find the cases of an nnU-Net data set; None for other folders.

    Cases of ``imagesTr`` have no section; those of ``imagesTs`` are the section ``test`` if ``labelsTs`` has labels.

    Raises:
        ValueError: when no channel of several is named FLAIR.
    """
    images = _images(root / "imagesTr")
    if not images or not (root / "labelsTr").is_dir():
        return None
    channel = _flair(root)
    training, unusable = _cases(root, "Tr", channel)
    test: list[dict] = []
    if (root / "labelsTs").is_dir():
        test, unlabeled = _cases(root, "Ts", channel)
        unusable += unlabeled
    sections = {"test": [case["case"] for case in test]} if test else {}
    return Found("nnU-Net (imagesTr, labelsTr)", training + test, sections, unusable=unusable)


def _images(folder: Path) -> dict[tuple[str, int], Path]:
    """Images of a folder by case and channel."""
    if not folder.is_dir():
        return {}
    files = {stem_of(file): file for file in sorted(folder.iterdir()) if _is_image(file)}
    return {place: files[stem] for stem, place in channels_of(folder, files).items()}


def _is_image(file: Path) -> bool:
    return not file.name.startswith(".") and file.is_file() and source_of(file) is not None


def _flair(root: Path) -> int:
    """Number of the channel that is FLAIR, or of the only one."""
    names = channel_names(root / "imagesTr")
    found = {channel for _, channel in _images(root / "imagesTr")}
    flair = [channel for channel, name in names.items() if contrast_of(name).may_be_flair]
    if len(flair) == 1:
        return flair[0]
    if len(found) == 1:
        return found.pop()
    listed = ", ".join(f"{channel} is {names.get(channel, 'unnamed')}" for channel in sorted(found))
    raise ValueError(
        f"{root / 'dataset.json'}: expected one channel named FLAIR among its channel_names, found {len(flair)}: "
        f"channel {listed}. Name it there."
    )


def _cases(root: Path, part: str, channel: int) -> tuple[list[dict], list[Unusable]]:
    """Cases of a part of the data set, and labels without an image."""
    images = {name: file for (name, number), file in _images(root / f"images{part}").items() if number == channel}
    labels = {stem_of(file): file for file in sorted((root / f"labels{part}").iterdir()) if _is_image(file)}
    others = {name for name, _ in _images(root / f"images{part}")} - images.keys()
    named = contrast_of(channel_names(root / "imagesTr").get(channel, ""))
    cases = []
    for name, file in sorted(images.items()):
        case = case_of(name, [file], [labels[name]] if name in labels else None)
        if named.is_other:
            message = f"dataset.json names its channel {named.value}, not FLAIR, which the network was trained on."
            add_flag(case, "named_other_contrast", message)
        cases.append(case)
    unusable = [
        Unusable(file, f"has no image images{part}/{name}_{channel:04d}")
        for name, file in labels.items()
        if name not in images
    ]
    unusable += [
        Unusable(root / f"images{part}" / name, f"has no channel {channel:04d}, which is FLAIR")
        for name in sorted(others - labels.keys())
    ]
    return cases, unusable
