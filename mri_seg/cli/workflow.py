"""Run a workflow of the bundle from the command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mri_seg.cli.config_command import Given

if TYPE_CHECKING:
    from mri_seg.follow_up.grouping import Patient

__all__ = ["INTERRUPTED", "run_workflow"]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def run_workflow(given: Given) -> int:
    """Run a workflow as ``python -m monai.bundle run`` does, with fewer lines unless ``verbose``.

    Args:
        given: what the user gives.

    Returns:
        the exit status: 0; 1 after an error, or if a case failed; 130 after Ctrl-C.
    """
    if (given.quiet or not sys.stderr.isatty()) and "tqdm" not in sys.modules:
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of MONAI and ignite fill log files; tqdm reads it at import
    from mri_seg.cli.log import plain_lines
    from mri_seg.config.errors import show_error
    from mri_seg.utils.library_warnings import silence_library_warnings

    silence_library_warnings()
    with nullcontext() if given.verbose else plain_lines(quiet=given.quiet):
        try:
            return _run(given)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt as error:
            show_error(error)
            return INTERRUPTED
        except Exception as error:
            if str(given.overrides.get("debug")).lower() == "true":
                raise
            show_error(error)
            return 1


def _run(given: Given) -> int:
    workflow = _workflow(given)
    if given.dry_run:
        return _list_cases(workflow)
    bar = None
    if not (given.quiet or given.verbose):
        from mri_seg.cli.progress import show_cases

        bar = show_cases(workflow)
    try:
        workflow.run()
    finally:
        if bar is not None:
            bar.close()
    workflow.finalize()
    return 0


def _workflow(given: Given) -> Any:
    """The initialized workflow."""
    from monai.bundle import ConfigWorkflow, create_workflow

    files = [str(file) for file in given.files]
    overrides = {**given.overrides, **({"finalize": ["$mri_seg.end_workflow()"]} if given.dry_run else {})}
    if given.verbose:  # it logs the given keys
        return create_workflow(config_file=files, tracking=given.tracking, **overrides)
    workflow = ConfigWorkflow(files, logging_file=False, tracking=given.tracking, **overrides)
    workflow.initialize()
    return workflow


def _list_cases(workflow: Any) -> int:
    """Print what would be segmented; returns 1 if a case cannot be."""
    from mri_seg.cli.dry_run import listing, patients_listing

    flags = logging.getLogger("mri_seg.utils.case_flags")  # the list has them too
    level = flags.level
    flags.setLevel(logging.ERROR)
    try:
        cases, passed_over = workflow.parser.get_parsed_content("dataset#data").search()
        patients = _patients(workflow, cases)
    finally:
        flags.setLevel(level)
    print(listing(cases, passed_over))
    if patients is not None:
        print(patients_listing(patients, cases))
    workflow.finalize()
    return int(any("error" in case for case in cases) or any(patient.error for patient in patients or ()))


def _patients(workflow: Any, cases: Sequence[Mapping[str, Any]]) -> list[Patient] | None:
    """The patients that a workflow would follow; None if it only segments."""
    if "timelines" not in workflow.parser:
        return None
    from mri_seg.follow_up.grouping import group_cases

    following = workflow.parser.get_parsed_content("timelines")
    return group_cases(cases, following.roots, timeline=following.timeline)
