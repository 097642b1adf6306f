"""Archive the cases of an evaluation, classify its errors and write its report."""

from __future__ import annotations

from mri_seg.report.archive import ArchivedCase, CaseArchive, gallery, load_case, save_case
from mri_seg.report.document import ReportWriter, write_report

__all__ = ["ArchivedCase", "CaseArchive", "ReportWriter", "gallery", "load_case", "save_case", "write_report"]
