"""Check a folder: training data for defects, any other for what would be segmented."""

from __future__ import annotations

from pathlib import Path

import click

from mri_seg.cli.config_command import ConfigCommand
from mri_seg.cli.values import as_path
from mri_seg.datasets.lgg.__main__ import main as lgg
from mri_seg.datasets.lgg.index import numbered_files, walk_patients

__all__ = ["check", "is_training_data"]


def check(folder: Path, segment: click.Command) -> int:
    """Check a folder or file, and print what was found.

    Args:
        folder: the folder or file.
        segment: the command that segments.

    Returns:
        the exit status: 1 if there is a defect, or a case that cannot be segmented.
    """
    if is_training_data(folder):
        return lgg(["check", str(folder)], prog="mri-seg")
    assert isinstance(segment, ConfigCommand)
    return segment.dry_run(as_path(str(folder)))


def is_training_data(folder: Path) -> bool:
    """Whether a folder holds patients of whom at least one has a mask.

    Args:
        folder: a folder or file.
    """
    if not folder.is_dir():
        return False
    for folders in walk_patients(folder).patients.values():
        for patient in folders:
            try:
                if numbered_files(patient)[1]:
                    return True
            except ValueError:  # two files for one slice, which the check reports
                return True
    return False
