"""Check a folder: training data for defects, any other for what would be segmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from mri_seg.cli.config_command import ConfigCommand
from mri_seg.cli.values import as_path
from mri_seg.datasets.__main__ import main as check_data_set
from mri_seg.datasets.forms import recognize
from mri_seg.datasets.lgg.form import is_lgg
from mri_seg.datasets.lgg.index import numbered_files, walk_patients

__all__ = ["check", "is_training_data"]


def check(folder: Path, options: Sequence[str], segment: click.Command) -> int:
    """Check a folder or file, and print what was found.

    Args:
        folder: the folder or file.
        options: options of ``python -m mri_seg.datasets check``; if there are any, the folder is training data.
        segment: the command that segments.

    Returns:
        the exit status: 1 if there is a defect, or a case that cannot be segmented.
    """
    if options or is_training_data(folder):
        return check_data_set(["check", str(folder), *options], prog="mri-seg")
    assert isinstance(segment, ConfigCommand)
    return segment.dry_run(as_path(str(folder)))


def is_training_data(folder: Path) -> bool:
    """Whether a folder is a data set in a form that training understands, with images that have labels.

    Args:
        folder: a folder or file.
    """
    if not folder.is_dir():
        return False
    if is_lgg(folder):
        return _has_masks(folder)
    try:
        return any("label" in case or "error" in case for case in recognize(folder).cases)
    except ValueError:
        return False


def _has_masks(folder: Path) -> bool:
    """Whether at least one patient of TCGA-LGG's form has a mask."""
    for folders in walk_patients(folder).patients.values():
        for patient in folders:
            try:
                if numbered_files(patient)[1]:
                    return True
            except ValueError:  # two files for one slice, which the check reports
                return True
    return False
