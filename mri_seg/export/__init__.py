"""Make a folder of the bundle to give away."""

from __future__ import annotations

from mri_seg.export.folder import FORMATS, export_bundle

__all__ = ["FORMATS", "export_bundle"]
