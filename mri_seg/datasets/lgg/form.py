"""Recognize a folder in the form of TCGA-LGG."""

from __future__ import annotations

from pathlib import Path

from mri_seg.datasets.found import Found

from .index import find_cases, walk_patients

__all__ = ["find", "is_lgg"]


def is_lgg(root: Path) -> bool:
    """Whether a folder holds patients in TCGA-LGG's form, or folders named like its patients."""
    tree = walk_patients(root)
    return bool(tree.patients or tree.empty)


def find(root: Path) -> Found | None:
    """Find the cases of a folder in TCGA-LGG's form; None for other folders.

    Raises:
        ValueError: as in :py:func:`mri_seg.datasets.lgg.index.find_patients`.
    """
    if not is_lgg(root):
        return None
    return Found("TCGA-LGG (folders <patient> of slices <patient>_<n>.tif and masks)", find_cases(root))
