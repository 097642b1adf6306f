"""Export the bundle to a folder for others."""

from __future__ import annotations

from mri_seg.export.folder import FORMATS, export_bundle

__all__ = ["FORMATS", "export_bundle"]
