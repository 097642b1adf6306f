"""Write the outputs of each case, and the tables of all cases."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from mri_seg.inference.bids import check_bids_case, check_bids_folder
from mri_seg.inference.case_quality import QUALITY_KEYS, CaseQuality
from mri_seg.inference.outputs import (
    _AUTO,
    _FITTING,
    _MADE_OF,
    _REMARKS,
    OUTPUT_OPTIONS,
    OUTPUTS,
    PROBSEG,
    Result,
    _merged,
)
from mri_seg.inference.provenance import (
    case_provenance,
    describe_input,
    input_differences,
    input_path,
    output_options,
    provenance_file,
    result_settings,
    settings_differences,
)
from mri_seg.inference.single_file import check_single, named_file, single_outputs, write_single
from mri_seg.inference.summary import write_summary
from mri_seg.measurements.lesions import summary_row
from mri_seg.quality.lesion_checks import CHECKS
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.compat import state_of
from mri_seg.utils.distributed import all_gather_object, broadcast_object, is_main_process
from mri_seg.utils.files import atomic_write, read_json, write_json
from mri_seg.utils.flags import flag
from mri_seg.utils.messages import reason
from mri_seg.visualize.index_page import INDEX_NAME, write_index

__all__ = ["CaseWriter", "describe_measurements"]

logger = logging.getLogger(__name__)


_WAIT_FACTOR = 20  # tables are written again after this many times the duration of the last write


_IDENTITY = ("input", "series_uid", "series_description")  # columns of both tables


_SUMMARY: tuple[str, ...] = (
    "case",
    "status",
    "source",
    *_IDENTITY,
    "files",
    "folder",
    "lesion_count",
    "volume_ml",
    "volume_voxels",
    *QUALITY_KEYS,
)


_SUMMARY += (*_REMARKS, "error", *_MADE_OF)


_NO_RECORD = "they have no provenance record, like results of earlier versions"


_STRICT = "With --strict true, such a case gets no results."


_ADVICE = "Use --overwrite true to overwrite them, or give another --output_dir."


class CaseWriter:
    """Handler of the inference evaluator that writes the outputs of each case and the tables of all cases.

    Each case gets a folder in ``output_dir`` with ``<case>_provenance.json``: the input, weights, version and options
    of its outputs. If files exist already, they are kept if these match; otherwise the run is refused, unless
    ``overwrite`` is true. A partly written file is never left. ``summary.csv`` has a row for every case, with the error
    if it failed, and so has ``summary.json``; ``measurements.csv`` has a row for every case that was measured. They are
    updated while cases are done, which takes at most a twentieth of the time, and at the end. Rows of cases that are
    not in this run are kept.
    If pages are among the outputs, ``index.html`` lists the cases of ``summary.csv`` and leads to their pages.
    In a distributed run, rank 0 writes the tables: its own cases while they are done, and all cases at the end.

    If ``output_dir`` names a NIfTI file, the mask of a single case is written there, without a record and tables; see
    :py:mod:`mri_seg.inference.single_file`.

    Args:
        output_dir: folder that contains a folder for each case, or a file ``.nii.gz`` or ``.nii`` for one case.
        outputs: names of :py:data:`OUTPUTS`, as a list or separated by commas; outputs that do not fit a case, such as
            a DICOM SEG for a NIfTI file, are skipped. ``auto`` means ``mask``, ``measurements``, ``sheet``, ``page``
            and what fits the input: ``slices`` for TIFF, PNG and JPEG, ``seg`` for DICOM, and ``panel`` if there is a
            reference.
        overwrite: whether to overwrite existing outputs; if they come from other weights, options or input, all of them
            are removed first.
        fail_fast: whether to stop at the first case that fails.
        strict: whether a case fails, and gets no results, if it has a flag of
            :py:data:`mri_seg.quality.lesion_checks.CHECKS`.
        checkpoint: the weights in use.
        ensemble: further weights in use.
        options: the options on which results depend, from
            :py:func:`mri_seg.inference.provenance.result_options`.
        seg_empty_frames: whether a DICOM SEG has frames for slices without tumour.
        lesion_dilation: by how many mm the lesion mask of ``bids`` is dilated.
        quality: what estimates the quality of results; None for nothing.

    ``bids`` writes BIDS derivatives for inputs with BIDS names: their root is ``output_dir``, beside the folders of the
    cases. With ``probability``, they include the probability.

    Raises:
        ValueError: when ``outputs`` has an unknown name, or ``output_dir`` names an image that is not NIfTI.
        ImportError: when DICOM output is requested and highdicom is missing.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        outputs: str | Sequence[str] = "auto",
        overwrite: bool | str = False,
        fail_fast: bool | str = False,
        strict: bool | str = False,
        checkpoint: PathLike | str | None = None,
        ensemble: Sequence[PathLike | str] | PathLike | str = (),
        options: Mapping[str, Any] | None = None,
        seg_empty_frames: bool | str = False,
        lesion_dilation: float = 0.0,
        quality: CaseQuality | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.file = named_file(output_dir)
        wanted = outputs if self.file is None else single_outputs(outputs)
        self.outputs, self.if_possible = _parse_outputs(wanted)
        self.lacks_seg = "auto" in wanted and "seg" not in self.outputs  # because highdicom is missing
        self.overwrite = flag(overwrite, "overwrite")
        self.fail_fast = flag(fail_fast, "fail_fast")
        self.strict = flag(strict, "strict")
        self.stopped = False  # by a failed case, if fail_fast is true
        self.checkpoint = checkpoint
        self.ensemble = ensemble
        self.quality = CaseQuality(False) if quality is None else quality
        self.options = dict(options or {})
        given = {
            "seg_empty_frames": flag(seg_empty_frames, "seg_empty_frames"),
            "lesion_dilation": float(lesion_dilation),
        }
        self.output_options = {key: value for key, value in given.items() if OUTPUT_OPTIONS[key] in self.outputs}
        self.rows: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, Mapping[str, Any]] = {}
        self.counts: Counter[str] = Counter()  # cases by status, over all runs since the last finish()
        self.before_run: Callable[[], None] | None = None  # a callback: MONAI's loaders would follow a data set here
        self.inputs: dict[str, dict[str, Any]] = {}  # descriptions of the inputs, made when they were read
        self._lock = threading.RLock()  # cases fail in the reading thread while others are written
        self._next_write = 0.0  # earliest time for the next write of the tables, by time.monotonic

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Version, weights and options of this run; see :py:func:`mri_seg.inference.provenance.result_settings`."""
        settings = result_settings(self.checkpoint, self.ensemble, self.options)
        return {**settings, **self.quality.settings, "output_options": self.output_options}

    def missing(self, case: Mapping[str, Any]) -> list[str]:
        """Outputs to write for a case: those that fit it and, unless ``overwrite`` is true, are not complete yet.

        Args:
            case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        """
        return [
            name
            for name in self._wanted(case)
            if self.overwrite or not all(file.is_file() for file in OUTPUTS[name].files(self.output_dir, case))
        ]

    def remaining(self, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Find the cases whose outputs are missing; the others go to the summary as kept or failed.

        If the existing outputs of a case come from another input, the case has failed.

        Raises:
            ValueError: when ``output_dir`` holds results of other weights, other options or another version, and
                ``overwrite`` is false; when it names a file, and there are several cases or the file exists; or when it
                is a BIDS data set of another origin.
        """
        cases = list(cases)
        if self.lacks_seg and any(case.get("source") == "dicom" for case in cases):
            logger.info('DICOM series get no DICOM SEG, which needs the extra: pip install "mri_seg[dicom]"')
        if self.file is not None:
            wanted = {case["case"]: self._wanted(case) for case in cases}
            check_single(self.file, cases, wanted, overwrite=self.overwrite)
        if "bids" in self.outputs:
            check_bids_folder(self.output_dir)
        self._check_settings(cases)
        remaining: list[Mapping[str, Any]] = []
        derivatives: dict[str, str] = {}
        for case in cases:
            self.sources[case["case"]] = case
            if "error" in case:
                self.failed(case["case"], case["error"])
            elif "bids" in self.outputs and (problem := check_bids_case(case, derivatives)):
                self.failed(case["case"], problem)
            elif error := self._input_conflict(case):
                self.failed(case["case"], error)
            elif self.missing(case):
                remaining.append(case)
            elif error := self._refused((self._recorded(case["case"]) or {}).get("flags", [])):
                self.failed(case["case"], error)
            else:
                self._add_row(case["case"], "kept", self._read_measurements(case["case"]))
        return [] if self.stopped else remaining

    def remaining_on_all_ranks(self, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Call :py:meth:`remaining` on rank 0 and broadcast its result or error, and the settings, to all ranks."""
        remaining, settings, error = broadcast_object(self._decide(cases) if is_main_process() else None)
        if error is not None:
            raise error
        if settings is not None:
            self.settings = settings
        return remaining

    def _decide(
        self, cases: Iterable[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], dict[str, Any] | None, Exception | None]:
        self.__dict__.pop("settings", None)  # the weights may differ from those of an earlier run
        try:
            remaining = self.remaining(cases)
        except (OSError, ValueError) as error:
            return [], None, error
        with contextlib.suppress(FileNotFoundError):  # missing weights: the run raises an error when it starts
            return remaining, self.settings, None
        return remaining, None, None

    def write(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Write the missing outputs of a case, and add it to the summary as done or failed.

        Args:
            batch: the case as it was read, from a decollated batch.
            output: output of the evaluator for the case, with ``pred`` and ``probability``.
        """
        item = {**batch, **output}
        try:
            result = self.result(item)
        except ValueError as error:  # of a check
            self.failed(str(item["flair"].meta["case"]), error)
        else:
            self.write_result(result)

    def result(self, item: Mapping[str, Any], case: Mapping[str, Any] | None = None) -> Result:
        """Make the result of a case, with its input, flags, weights, version and options.

        Args:
            item: see :py:class:`mri_seg.inference.outputs.Result`.
            case: the case, unless it is one of ``sources``.

        Raises:
            ValueError: when ``strict`` is true and a check has raised a flag.
        """
        result = Result(item)
        source = case or self._source(result)
        flags = result.flags(source)
        if error := self._refused(flags):
            raise ValueError(error)
        result.about, result.settings = self._about(source, flags), self.settings
        result.quality = self.quality
        return result

    def write_result(self, result: Result) -> None:
        """Write the missing outputs of a result of :py:meth:`result`, and add its case to the summary."""
        source, flags = self._source(result), result.about["flags"]
        if self.file is not None:
            problems = write_single(self.file, self._wanted(source), result)
        else:
            try:
                self._record(source, flags)
            except (OSError, ValueError) as error:
                self.failed(result.case, error)
                return
            problems = [problem for name in self.missing(source) if (problem := self._write(name, result))]
        if problems:
            self.failed(result.case, " ".join(problems))
        else:
            self._add_row(result.case, "done", self._measurements(result), flags=flags)

    def _source(self, result: Result) -> Mapping[str, Any]:
        return self.sources.get(result.case) or {"case": result.case, "image": [str(file) for file in result.files]}

    def failed(self, case: str, error: Exception | str) -> None:
        """Add a case that could not be segmented or written to the summary, and log the reason."""
        message = reason(error)
        logger.error("%s failed: %s", case, message)
        self._add_row(case, "failed", error=message)
        self.stopped = self.fail_fast

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.interrupt_resume_enabled = False  # if it is true, ignite silently does nothing after a run that failed
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_cases)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    def begin(self) -> None:
        """Begin a run: the rows of the last run are written to the tables, and its cases stay counted."""
        self._gather()
        if self.rows:
            self._write_tables()
        self.rows, self.sources, self.inputs = {}, {}, {}
        self.stopped = False

    def finish(self) -> None:
        """Print the numbers of cases in all runs since the last call, over all processes.

        Raises:
            SystemExit: with status 1 if a case failed.
        """
        self._gather()
        if not is_main_process():
            return
        for case in sorted(self.sources.keys() - self.rows.keys()):  # the reading thread may have died
            why = "not reached, because another case failed" if self.stopped else "not reached"
            self.failed(case, f"{why}. Run the same command again to segment the missing cases.")
        self._write_tables()
        index = self._write_index()
        count, self.counts = self.counts, Counter()
        counted = f"Cases segmented: {count['done']}, kept as they were: {count['kept']}, failed: {count['failed']}."
        if self.file is None:
            print(f"{counted} Results and summary.csv are in {self.output_dir}")
            if index is not None:
                print(f"Open {index}")
        elif count["done"]:
            print(f"The mask is in {self.file}")
        if count["failed"]:
            raise SystemExit(1)

    def _gather(self) -> None:
        """Gather the rows and counts of all processes on rank 0."""
        gathered = all_gather_object((self.rows, self.counts))
        self.rows = {case: row for rows, _ in gathered for case, row in rows.items()} if is_main_process() else {}
        self.counts = sum((counts for _, counts in gathered), Counter()) if is_main_process() else Counter()

    def _start(self) -> None:
        if self.before_run is not None:
            self.before_run()

    def _complete(self, engine: Engine) -> None:
        engine.state.epoch_length = None  # the next run may have another number of cases

    def _refused(self, flags: Iterable[Mapping[str, str]]) -> str:
        """Why a case with these flags gets no results; empty if it gets them."""
        raised = [flag["message"] for flag in flags if self.strict and flag["name"] in CHECKS]
        return " ".join([*raised, _STRICT]) if raised else ""

    def _wanted(self, case: Mapping[str, Any]) -> list[str]:
        return [name for name in self.outputs if name not in _FITTING or _FITTING[name](case)]

    def _check_settings(self, cases: Sequence[Mapping[str, Any]]) -> None:
        """Refuse to mix results of different settings; with ``overwrite``, warn about cases that stay in the tables."""
        own = {case["case"]: case for case in cases}
        others = {
            name: {"case": name, "image": []}
            for name, row in _table(self.output_dir / "summary.csv").items()
            if row.get("status") != "failed"
        }
        conflicts: dict[str, list[str]] = defaultdict(list)
        for name, case in {**others, **own}.items():
            if self.overwrite and name in own:
                continue
            recorded = self._recorded(name)
            if self._existing(case, recorded):
                found = [_NO_RECORD] if recorded is None else settings_differences(recorded, self.settings)
                if found:
                    conflicts["; ".join(found)].append(name)
        for difference, names in conflicts.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"holds results of other settings (of {names[0]}{more}): {difference}"
            if not self.overwrite:
                raise ValueError(f"{self.output_dir}: {message}. {_ADVICE}")
            logger.warning(
                "%s: %s. They stay in its tables, because they are not part of this run.", self.output_dir, message
            )

    def _input_conflict(self, case: Mapping[str, Any]) -> str | None:
        """Why the existing results cannot be those of this case; None if they can."""
        recorded = None if self.overwrite else self._recorded(case["case"])
        if recorded is None or not self._existing(case, recorded):
            return None
        try:
            found = input_differences(recorded, case)
        except OSError as error:
            return reason(error)
        folder = self.output_dir / case["case"]
        return f"{folder}: holds results of other files: {'; '.join(found)}. {_ADVICE}" if found else None

    def _existing(self, case: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> list[Path]:
        """Existing result files of a case, by the names that this run or the recorded run gives them."""
        cases = [case] if recorded is None else [case, {**recorded, "image": recorded["input"]["files"]}]
        files = [
            file
            for case in cases
            for name, output in OUTPUTS.items()
            if name != "slices" or _FITTING[name](case)
            for file in output.files(self.output_dir, case)
        ]
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def _recorded(self, case: str) -> dict[str, Any] | None:
        """Provenance of the existing results of a case; None if they have no record."""
        file = provenance_file(self.output_dir / case, case)
        return read_json(file) if file.is_file() else None

    def _record(self, case: Mapping[str, Any], flags: Sequence[Mapping[str, str]]) -> None:
        """Write the provenance of a case before its results, and remove existing results with another provenance.

        Raises:
            ValueError: when there are such results, and ``overwrite`` is false.
        """
        folder, recorded = self.output_dir / case["case"], self._recorded(case["case"])
        kept: Mapping[str, Any] = {}  # options of outputs that stay
        if existing := self._existing(case, recorded):
            same_settings = recorded and not settings_differences(recorded, self.settings)
            if not (recorded and same_settings and not input_differences(recorded, case)):
                if not self.overwrite:
                    raise ValueError(f"{folder}: holds results of other settings or another input. {_ADVICE}")
                for file in existing:
                    file.unlink()
            else:
                kept = output_options(recorded)
        described = self.inputs.pop(case["case"], None) or describe_input(case)
        wanted = self._wanted(case)
        own = {key: value for key, value in self.output_options.items() if OUTPUT_OPTIONS[key] in wanted}
        settings = {**self.settings, "output_options": {**kept, **own}}
        now = case_provenance(case, settings, flags, described)
        if now != recorded:
            write_json(provenance_file(folder, case["case"]), now)

    def _about(self, case: Mapping[str, Any], flags: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """What the measurements of a case hold besides numbers: input, flags, weights and version."""
        made_of = {name: self.settings[name] for name in _MADE_OF if name in self.settings}
        return {**_identity(case), "flags": list(flags), **made_of}

    def _write_cases(self, engine: Engine) -> None:
        for batch, output in zip(state_of(engine).batch, state_of(engine).output, strict=True):
            self.write(batch, output)
        if self.stopped:
            engine.terminate()

    def _write(self, name: str, result: Result) -> str | None:
        """Write one output; return the error instead of raising it, so that the other outputs are still written."""
        try:
            OUTPUTS[name].write(OUTPUTS[name].folder(self.output_dir, result.case), result)
        except Exception as error:
            if name not in self.if_possible or not isinstance(error, ValueError):
                return f"{name}: {reason(error)}"
            logger.warning("%s: no %s, because %s", result.case, name, reason(error))
        return None

    def _measurements(self, result: Result) -> dict[str, Any] | None:
        """Measurements for the tables; None if no requested output needs them, since measuring takes time."""
        return result.measurements if {"measurements", "sr", "page"} & set(self.outputs) else None

    def _read_measurements(self, case: str) -> dict[str, Any] | None:
        file = self.output_dir / case / f"{case}_measurements.json"
        return read_json(file) if file.is_file() else None

    def _add_row(
        self,
        case: str,
        status: str,
        measurements: Mapping[str, Any] | None = None,
        *,
        flags: Sequence[Mapping[str, str]] | None = None,
        error: str = "",
    ) -> None:
        source = self.sources.get(case, {"case": case})
        if flags is None:  # for a kept case, the flags of its volume are in the record
            recorded = self._recorded(case) if status == "kept" else None
            flags = _merged((recorded or {}).get("flags", []), case_flags(source))
        failed = status == "failed"
        columns = _columns({**_identity(source), "flags": flags} if failed else self._about(source, flags))
        row = {"case": case, "status": status, "source": source.get("source", ""), "error": error}
        row |= {"files": len(source.get("image", [])), "folder": "" if failed else case}
        row |= columns
        if measurements is not None:
            row |= {
                key: measurements.get(key, "") for key in ("lesion_count", "volume_ml", "volume_voxels", *QUALITY_KEYS)
            }
            figures = summary_row(measurements)
            quality = {key: measurements.get(key) for key in QUALITY_KEYS}
            row["measurements"] = {"case": figures.pop("case"), **columns, **figures, **quality}
        if not failed:
            logger.info("%s: %s%s", case, status, f", {describe_measurements(measurements)}" if measurements else "")
        with self._lock:
            self.rows[case] = row
            self.counts[status] += 1
            if status != "kept" and (start := time.monotonic()) >= self._next_write:
                self._write_tables()
                end = time.monotonic()
                self._next_write = end + _WAIT_FACTOR * (end - start)

    def _write_tables(self) -> None:
        if not is_main_process() or self.file is not None:
            return
        _merge_csv(self.output_dir / "summary.csv", list(self.rows.values()), _SUMMARY)
        write_summary(self.output_dir, _table(self.output_dir / "summary.csv").values())
        measured = [row["measurements"] for row in self.rows.values() if "measurements" in row]
        failed = {case for case, row in self.rows.items() if row["status"] == "failed"}
        if measured:
            _merge_csv(self.output_dir / "measurements.csv", measured, tuple(measured[0]), without=failed)

    def _write_index(self) -> Path | None:
        """Write the page that leads to all cases if pages are written, and keep an existing one up to date.

        Returns:
            the page; None if there is none, or one that is not of this program.
        """
        if not is_main_process() or self.file is not None:
            return None
        if "page" in self.outputs or (self.output_dir / INDEX_NAME).is_file():
            return write_index(
                self.output_dir, _table(self.output_dir / "summary.csv"), _table(self.output_dir / "measurements.csv")
            )
        return None


def _parse_outputs(outputs: str | Sequence[str]) -> tuple[list[str], set[str]]:
    """Names of the outputs in order, and of those that are skipped if they cannot be written for a case."""
    names = outputs.split(",") if isinstance(outputs, str) else list(outputs)
    names = [name.strip() for name in names if name.strip()]
    known = [name for name in OUTPUTS if name != PROBSEG]
    unknown = sorted(set(names) - {"auto", *known})
    if unknown or not names:
        found = ", ".join(unknown) or "nothing"
        raise ValueError(f"outputs: {found} is not known; expected one or more of auto, {', '.join(known)}.")
    wanted = set(names) | ({"seg"} if "sr" in names else set())
    wanted |= {PROBSEG} if {"bids", "probability"} <= wanted else set()
    has_highdicom = importlib.util.find_spec("highdicom") is not None
    if "seg" in wanted and not has_highdicom:
        raise ImportError('outputs: seg and sr need highdicom. Install the extra: pip install "mri_seg[dicom]"')
    named = frozenset(wanted)
    if "auto" in wanted:
        wanted |= set(_AUTO) if has_highdicom else set(_AUTO) - {"seg"}
    return [name for name in OUTPUTS if name in wanted], (wanted - named) & {"seg"}


def _identity(case: Mapping[str, Any]) -> dict[str, Any]:
    """Input of a case: its path, and series UID and description for DICOM."""
    path = {"input": input_path(case)} if case.get("image") or "described" in case else {}
    return path | {name: case[name] for name in _IDENTITY if name in case}


def _columns(about: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the result of :py:meth:`CaseWriter._about` into columns of a table."""
    flags = about.get("flags", [])
    columns = {name: about.get(name, "") for name in (*_IDENTITY, *_MADE_OF)}
    columns |= {"flags": ";".join(dict.fromkeys(flag["name"] for flag in flags))}
    columns |= {"warnings": " ".join(flag["message"] for flag in flags)}
    columns["ensemble_sha256"] = ";".join(columns["ensemble_sha256"])
    return {name: columns[name] for name in (*_IDENTITY, *_REMARKS, *_MADE_OF)}


def describe_measurements(measurements: Mapping[str, Any]) -> str:
    """Describe what was measured in a few words, such as ``12.3 mL in 2 lesions``."""
    count = measurements["lesion_count"]
    if not count:
        return "no tumour found"
    if "volume_ml" in measurements:
        size = f"{measurements['volume_ml']:.1f} mL"
    else:
        size = f"{measurements['volume_voxels']} voxels"
    return f"{size} in {count} {'lesion' if count == 1 else 'lesions'}"


def _table(path: Path) -> dict[str, Mapping[str, Any]]:
    """Rows of a table by case; empty if the file does not exist."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file) if row.get("case")}


def _merge_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, without: Collection[str] = ()
) -> None:
    """Write rows sorted by case; rows of other cases in the file are kept, except those of ``without``."""
    kept = {case: row for case, row in _table(path).items() if case not in without}
    kept |= {row["case"]: row for row in rows}
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(kept[case] for case in sorted(kept))
