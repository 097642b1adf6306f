"""Channels of nnU-Net and Medical Segmentation Decathlon data sets: find the file or volume of a case that is FLAIR."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mri_seg.utils.contrast_names import contrast_of

__all__ = ["channel_names", "channels_of", "flair_volume"]

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")  # nnU-Net: case_0003.nii.gz
_MOST_CHANNELS = 8  # maximum per case, in a folder without another sign of nnU-Net


def channel_names(folder: Path) -> dict[int, str]:
    """Read the names of channels, by number, from the ``dataset.json`` in a folder or its parent; empty without one.

    nnU-Net calls them ``channel_names``; its first version and the Decathlon call them ``modality``.
    """
    for place in (folder, folder.resolve().parent):
        if names := _read(place / "dataset.json"):
            return names
    return {}


def channels_of(folder: Path, names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Find case and channel of each name that ends in an nnU-Net channel number, such as ``case_0003``.

    ``P_0001`` and ``P_0002`` may also be patients. So numbers count as channels only in a folder called ``images...``,
    beside a ``dataset.json``, or if a case has two to eight of them that start at ``_0000`` without a gap.
    """
    cases: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := _CHANNEL.match(name):
            cases[match["case"]][int(match["channel"])] = name
    marked = folder.resolve().name.lower().startswith("images") or bool(channel_names(folder))
    return {
        name: (case, channel)
        for case, channels in cases.items()
        if marked or (2 <= len(channels) <= _MOST_CHANNELS and set(channels) == set(range(len(channels))))
        for channel, name in channels.items()
    }


def flair_volume(folder: Path) -> int | None:
    """Index of FLAIR in the 4D files of a folder, from ``dataset.json``; None if it does not say."""
    names = channel_names(folder)
    flair = [channel for channel, name in names.items() if contrast_of(name).may_be_flair]
    return flair[0] if len(names) > 1 and len(flair) == 1 else None


def _read(file: Path) -> dict[int, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        names = content.get("channel_names") or content.get("modality") or {}
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(channel): str(name) for channel, name in pairs}
    except OSError:  # no such file
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        logger.info("%s: ignored, because it does not describe an nnU-Net data set (%s).", file, error)
        return {}
