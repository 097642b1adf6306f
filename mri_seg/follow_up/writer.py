"""Follow the patients of an inference, and write their timelines."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mri_seg.follow_up.change_mask import change_map, write_change_map
from mri_seg.follow_up.dated_cases import DatedCase
from mri_seg.follow_up.engine import make_timeline
from mri_seg.follow_up.grouping import Patient, group_cases
from mri_seg.follow_up.overlay import write_overlay
from mri_seg.follow_up.registration import write_transform
from mri_seg.follow_up.repeatability import load_repeatability
from mri_seg.follow_up.sentences import summary
from mri_seg.follow_up.tables import patient_row, write_csv, write_patients, write_timeline_json
from mri_seg.follow_up.timeline import Scan, Timeline
from mri_seg.follow_up.timeline_page import timeline_page
from mri_seg.inference.provenance import provenance_file
from mri_seg.inference.writer import CaseWriter
from mri_seg.io.earlier_outputs import FOLLOW_UP, earlier_outputs
from mri_seg.io.nibabel_files import load_image
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.distributed import all_gather_object, is_main_process
from mri_seg.utils.files import atomic_write, read_json
from mri_seg.utils.messages import reason

__all__ = ["FollowUp"]

logger = logging.getLogger(__name__)


class FollowUp:
    """Follows the patients whose scans an inference has segmented.

    It reads the masks that the inference wrote, so that scans that were segmented before are not segmented again. Each
    patient gets a folder in ``output_dir/follow_up`` with ``<patient>_timeline.csv``, ``.json`` and ``.html``,
    ``<patient>_change.nii.gz`` and, for DICOM input, ``<patient>_change_seg.dcm`` and ``<patient>_change_sr.dcm``; and
    for each later scan, ``<case>_to_first.tfm`` and ``<case>_overlay.png``. They are written anew in every run, and
    those of an earlier run are removed first. A scan that is a new baseline has no change. ``patients.csv`` has a row
    for each patient, with the error of those that failed.

    Args:
        writer: the writer of the inference, which must write masks.
        dataset_dir: the folder that was searched, or several; names of folders in it may name patients.
        reader: reads the FLAIR volume of a case, as :py:class:`mri_seg.io.load.LoadVolumed`.
        timeline: a CSV file with ``patient``, ``date``, ``file`` and ``event``; None if the files say it.
        repeatability: a file with the measurement error; by default the one that comes with the package.

    Raises:
        ValueError: when the inference writes no masks, or into a single file.
    """

    def __init__(
        self,
        writer: CaseWriter,
        dataset_dir: PathLike | str | Sequence[PathLike | str],
        *,
        reader: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        timeline: PathLike | str | None = None,
        repeatability: PathLike | str | None = None,
    ) -> None:
        if writer.file is not None:
            raise ValueError(f"output_dir: {writer.file} is a file, expected a folder for the patients.")
        if "mask" not in writer.outputs:
            raise ValueError(f"outputs: is {', '.join(writer.outputs)}, expected mask among them: it is followed.")
        self.writer = writer
        self.roots = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
        self.reader = reader
        self.timeline = timeline
        self.repeatability = load_repeatability(repeatability)
        self.patients: list[Patient] = []
        self._grouped: dict[str, Mapping[str, Any]] = {}
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.followed: list[str] = []
        self.failed: dict[str, str] = {}

    def group(self, dataset: Any = None) -> None:
        """Group the cases by patient, before they are segmented, so that a wrong ``timeline`` costs no time.

        Args:
            dataset: the data set of the inference, which finds the cases for the writer when it is made.

        Raises:
            FileNotFoundError: when ``timeline`` does not exist.
            ValueError: when ``timeline`` is not such a file, or does not fit the cases.
        """
        self._grouped = dict(self.writer.sources)
        self.patients = group_cases(self._grouped.values(), self.roots, timeline=self.timeline)
        for patient in self.patients:
            logger.info("%s", patient.described())

    def run(self) -> None:
        """Follow all patients; one that cannot be followed does not keep the others from it."""
        self.followed, self.failed = [], {}
        self.rows = {name: row for rows in all_gather_object(self.writer.rows) for name, row in rows.items()}
        if not is_main_process() or self.writer.stopped:
            return
        rows: list[Mapping[str, str]] = []
        if self._grouped != self.writer.sources:  # another run of the evaluator may find other cases
            self.group()
        for patient in self.patients:
            folder = self.writer.output_dir / FOLLOW_UP / patient.name
            try:
                if patient.error:
                    raise ValueError(patient.error)
                timeline = self.follow(patient)
                _remove_earlier(folder)
                self._write(folder, timeline)
                self.followed.append(patient.name)
                rows.append(patient_row(timeline))
                logger.info("%s: followed. %s", patient.name, " ".join(summary(timeline)))
            except Exception as error:
                _remove_earlier(folder)
                self.failed[patient.name] = reason(error)
                rows.append({"patient": patient.name, "status": "failed", "error": reason(error)})
                logger.error("%s failed: %s", patient.name, reason(error))
        self._warn_of_others()
        if rows:
            write_patients(self.writer.output_dir / FOLLOW_UP / "patients.csv", rows)

    def _warn_of_others(self) -> None:
        folder = self.writer.output_dir / FOLLOW_UP
        names = {patient.name for patient in self.patients}
        found = folder.iterdir() if folder.is_dir() else ()
        others = sorted(one.name for one in found if one.is_dir() and one.name not in names)
        if others:
            logger.warning(
                "%s: holds results of an earlier run for %s, not among the patients of this run. Delete them if "
                "they are out of date.",
                folder,
                ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else ""),
            )

    def follow(self, patient: Patient) -> Timeline:
        """Make the timeline of a patient from the masks that were written.

        Raises:
            ValueError: when no scan was segmented, or they cannot be compared.
        """
        missing = [one for one in patient.cases if self._status(one) not in ("done", "kept")]
        usable = [one for one in patient.cases if one not in missing]
        if not usable:
            raise ValueError(f"{patient.cases[0].file}: none of the patient's scans was segmented; see summary.csv.")
        events = _events(patient.cases, missing)
        scans = [self._scan(one, event) for one, event in zip(usable, events)]
        timeline = make_timeline(patient.name, scans, repeatability=self.repeatability)
        timeline.settings = self.writer.settings
        for one in missing:
            timeline.flag("scan_missing", f"{one.file}: could not be segmented and is left out; see summary.csv.")
        return timeline

    def finish(self) -> None:
        """Print the numbers of the cases, then those of the patients.

        Raises:
            SystemExit: with status 1 if a patient or a case failed.
        """
        try:
            self.writer.finish()
        finally:
            if is_main_process():
                folder = self.writer.output_dir / FOLLOW_UP
                where = f" Timelines are in {folder}" if self.followed else ""
                print(f"Patients followed: {len(self.followed)}, failed: {len(self.failed)}.{where}")
        if self.failed:
            raise SystemExit(1)

    def _status(self, one: DatedCase) -> str:
        return str(self.rows.get(one.case["case"], {}).get("status", ""))

    def _scan(self, one: DatedCase, event: str) -> Scan:
        """Read a scan and its mask."""
        case = one.case
        name = case["case"]
        volume = self.reader({key: case[key] for key in ("case", "image", "volume") if key in case})["image"]
        unknown = [key for key in ("spacing_known", "slice_spacing_known") if not volume.meta.get(key, True)]
        if unknown:
            what = "pixels" if "spacing_known" in unknown else "slices"
            raise ValueError(
                f"{one.file}: does not say the distance of its {what}, without which there is no growth in mm. Give "
                "--spacing."
            )
        folder = self.writer.output_dir / name
        mask = np.asarray(load_image(folder / f"{name}_mask.nii.gz").dataobj) > 0
        recorded = read_json(provenance_file(folder, name)).get("flags", [])
        return Scan(
            case=name,
            image=volume.numpy()[0],
            mask=mask,
            affine=np.asarray(volume.affine, dtype=float),
            date=one.date,
            event=event,
            files=[str(file) for file in case["image"]],
            source=str(case.get("source", "volume")),
            expected_dice=float(expected) if (expected := self.rows[name].get("expected_dice")) else None,
            flags=[*recorded, *(flag for flag in case_flags(case) if flag not in recorded)],
        )

    def _write(self, folder: Path, timeline: Timeline) -> None:
        name = timeline.patient
        for point in timeline.points[1:]:
            write_transform(folder / f"{point.case}_to_first.tfm", point.from_first)
            write_overlay(folder / f"{point.case}_overlay.png", timeline, point)
        latest = timeline.points[-1]
        if len(timeline.epoch(latest.epoch)) > 1:
            labels = change_map(timeline)
            write_change_map(folder / f"{name}_change.nii.gz", labels, latest.scan.affine)
            if latest.scan.source == "dicom":
                self._write_dicom(folder, timeline, labels)
        write_csv(folder / f"{name}_timeline.csv", timeline)
        with atomic_write(folder / f"{name}_timeline.html") as unfinished:
            unfinished.write_text(timeline_page(timeline), encoding="utf-8")
        write_timeline_json(folder / f"{name}_timeline.json", timeline)

    def _write_dicom(self, folder: Path, timeline: Timeline, labels: np.ndarray) -> None:
        """Write the change as DICOM; a source that cannot be referenced gets a flag, and the other outputs."""
        from mri_seg.follow_up.dicom_outputs import write_change_report, write_change_segmentation

        settings = self.writer.settings
        segmentation = folder / f"{timeline.patient}_change_seg.dcm"
        what = "SEG"
        try:
            write_change_segmentation(segmentation, labels, timeline, settings)
            what = "SR"
            write_change_report(folder / f"{timeline.patient}_change_sr.dcm", segmentation, timeline, settings)
        except ImportError as error:
            logger.info("%s: no change as DICOM. %s", timeline.patient, reason(error))
        except ValueError as error:
            timeline.flag("no_dicom_change", f"the change could not be written as DICOM {what}: {reason(error)}")


def _remove_earlier(folder: Path) -> None:
    """Remove what an earlier run wrote for a patient: of other scans, or of a patient that now fails."""
    if not folder.is_dir():
        return
    for name in earlier_outputs(folder, [file.name for file in folder.iterdir()]):
        (folder / name).unlink()
    with contextlib.suppress(OSError):  # the user's own files stay
        folder.rmdir()


def _events(cases: Sequence[DatedCase], missing: Sequence[DatedCase]) -> list[str]:
    """Events of the cases that are not missing; those of a missing case go to the next one."""
    events, waiting = [], ""
    for one in cases:
        event = "; ".join(filter(None, [waiting, one.event]))
        if one in missing:
            waiting = event
        else:
            events.append(event)
            waiting = ""
    return events
