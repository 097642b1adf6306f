"""The TCGA-LGG data set: find and split its patients, check its files, and download it."""

from __future__ import annotations

from .check import CheckReport, Counts, Defect, check
from .fetch import fetch
from .index import find_patients, institution, slice_files
from .split import SECTIONS, SHIPPED_SPLITS, datalist, load_split

__all__ = [
    "SECTIONS",
    "SHIPPED_SPLITS",
    "CheckReport",
    "Counts",
    "Defect",
    "check",
    "datalist",
    "fetch",
    "find_patients",
    "institution",
    "load_split",
    "slice_files",
]
