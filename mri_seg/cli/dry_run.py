"""List what inference would segment, what it passes over, and who would be followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mri_seg.follow_up.grouping import Patient
from mri_seg.inference.provenance import input_path
from mri_seg.io.passed_over import PassedOver
from mri_seg.utils.case_flags import case_flags

__all__ = ["listing", "patients_listing"]

_KINDS = {"dicom": "DICOM", "tiff": "TIFF", "picture": "picture", "volume": "volume"}


def listing(cases: Sequence[Mapping[str, Any]], passed_over: PassedOver) -> str:
    """Describe the cases that were found, and what was passed over.

    Args:
        cases: cases of :py:func:`mri_seg.io.cases.search_cases`.
        passed_over: what it passed over.
    """
    lines = [f"{len(cases)} case{'' if len(cases) == 1 else 's'} found:"]
    for case in cases:
        count = len(case["image"])
        files = f"{_KINDS.get(case['source'], case['source'])}, {count} file{'' if count == 1 else 's'}"
        about = [files, *(["with a reference"] if "label" in case else []), input_path(case)]
        lines.append(f"  {case['case']}: {', '.join(about)}")
        if "error" in case:
            lines.append(f"    cannot be segmented: {case['error']}")
        lines += [f"    warning: {flag['message']}" for flag in case_flags(case)]
    if passed_over:
        lines += ["Passed over:", *(f"  {described}" for described in passed_over.described())]
    return "\n".join(lines)


def patients_listing(patients: Sequence[Patient], cases: Sequence[Mapping[str, Any]]) -> str:
    """Describe the patients that would be followed, with their scans in order.

    Args:
        patients: result of :py:func:`mri_seg.follow_up.grouping.group_cases`.
        cases: the cases from which it was made, whose own flags are not said again.
    """
    known = {case["case"]: case_flags(case) for case in cases}
    lines = [f"{len(patients)} patient{'' if len(patients) == 1 else 's'}:"]
    for patient in patients:
        lines.append(f"  {patient.described()}")
        for number, one in enumerate(patient.cases, start=1):
            event = f", after: {one.event}" if one.event and number > 1 else ""
            lines.append(f"    {one.date or f'scan {number}'}: {one.case['case']}{event}")
            new = [flag for flag in case_flags(one.case) if flag not in known[one.case["case"]]]
            lines += [f"      warning: {flag['message']}" for flag in new]
        if patient.error:
            lines.append(f"    cannot be followed: {patient.error}")
    return "\n".join(lines)
