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

from mri_seg.inference.outputs import _AUTO, _FITTING, _MADE_OF, _REMARKS, OUTPUTS, Result, _merged
from mri_seg.inference.provenance import (
    case_provenance,
    describe_input,
    input_differences,
    input_path,
    provenance_file,
    result_settings,
    settings_differences,
)
from mri_seg.measurements.lesions import summary_row
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.compat import state_of
from mri_seg.utils.distributed import all_gather_object, broadcast_object, is_main_process
from mri_seg.utils.files import atomic_write, read_json, write_json
from mri_seg.utils.flags import flag
from mri_seg.utils.messages import reason

__all__ = ["CaseWriter"]

logger = logging.getLogger(__name__)


_TABLES = 20  # of the time that the tables took, so long they are left as they are


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
)


_SUMMARY += (*_REMARKS, "error", *_MADE_OF)


_NO_RECORD = "they have no record of what they were made of, as those of earlier versions"


_ADVICE = "Use --overwrite true to write them anew, or give another --output_dir."


class CaseWriter:
    """Handler of the inference evaluator: writes the outputs of each case and keeps account of all cases.

    Each case gets a folder in ``output_dir``, with ``<case>_provenance.json``: the input, weights, version and options
    that its outputs were made of. Files that are there are kept if these agree, and refused if not, unless
    ``overwrite``; each file is whole or not there at all. ``summary.csv`` has a row for every case, with the error of
    those that failed, and ``measurements.csv`` one for every case that was measured; both are written anew as cases are
    done, in at most a twentieth of the time, and in the end, and keep the rows of cases that are not part of this run.
    Of several processes the first writes them: its own cases as they are done, and all in the end.

    Args:
        output_dir: folder that gets a folder for each case.
        outputs: names of :py:data:`OUTPUTS`, as a list or with commas between; outputs that do not fit a case, such as
            a DICOM SEG of a NIfTI file, are left out. ``auto`` stands for ``mask``, ``measurements``, ``sheet``,
            ``page`` and what fits the input: ``slices`` for TIFF, PNG and JPEG, ``seg`` for DICOM, ``panel`` where
            there is a reference.
        overwrite: whether to write outputs that are there already; those of other weights, options or input are
            removed first, when the case is written.
        checkpoint: the weights in use.
        ensemble: further weights in use.
        options: the options on which results depend, as :py:func:`mri_seg.inference.provenance.result_options` finds
            them.

    Raises:
        ValueError: when ``outputs`` has an unknown name.
        ImportError: when DICOM output is asked for and highdicom is missing.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        outputs: str | Sequence[str] = "auto",
        overwrite: bool | str = False,
        checkpoint: PathLike | str | None = None,
        ensemble: Sequence[PathLike | str] | PathLike | str = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.outputs, self.if_possible = _parse_outputs(outputs)
        self.overwrite = flag(overwrite, "overwrite")
        self.checkpoint = checkpoint
        self.ensemble = ensemble
        self.options = dict(options or {})
        self.rows: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, Mapping[str, Any]] = {}
        self.counts: Counter[str] = Counter()  # of cases by status, of all runs since the last that was finished
        self.before_run: Callable[[], None] | None = None  # MONAI's loaders follow attributes, so no data set here
        self.inputs: dict[str, dict[str, Any]] = {}  # as described when they were read
        self._entering = threading.RLock()  # cases fail in the thread that reads, while others are written
        self._write_again = 0.0  # when the tables may be written next, by time.monotonic

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Version, weights and options of this run: see :py:func:`mri_seg.inference.provenance.result_settings`."""
        return result_settings(self.checkpoint, self.ensemble, self.options)

    def missing(self, case: Mapping[str, Any]) -> list[str]:
        """Outputs to write for a case: those that fit it and, without ``overwrite``, whose files are not all there.

        Args:
            case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        """
        folder = self.output_dir / case["case"]
        return [
            name
            for name in self._wanted(case)
            if self.overwrite or not all((folder / file).is_file() for file in OUTPUTS[name].names(case))
        ]

    def to_do(self, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The cases whose outputs are missing; the others are entered in the summary as kept, or as failed.

        A case whose outputs are those of another input has failed.

        Raises:
            ValueError: when ``output_dir`` holds results of other weights, options or another version, and they are not
                to be overwritten.
        """
        cases = list(cases)
        self._check_settings(cases)
        remaining = []
        for case in cases:
            self.sources[case["case"]] = case
            if "error" in case:
                self.failed(case["case"], case["error"])
            elif error := self._input_conflict(case):
                self.failed(case["case"], error)
            elif self.missing(case):
                remaining.append(case)
            else:
                self._enter(case["case"], "kept", self._read_measurements(case["case"]))
        return remaining

    def agreed_to_do(self, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """What :py:meth:`to_do` gives on the first process, and what it raises, on all; so are the settings."""
        remaining, settings, error = broadcast_object(self._decide(cases) if is_main_process() else None)
        if error is not None:
            raise error
        if settings is not None:
            self.settings = settings
        return remaining

    def _decide(
        self, cases: Iterable[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], dict[str, Any] | None, Exception | None]:
        self.__dict__.pop("settings", None)  # the weights may be others than in a run before
        try:
            remaining = self.to_do(cases)
        except (OSError, ValueError) as error:
            return [], None, error
        with contextlib.suppress(FileNotFoundError):  # of weights: the run says so as it starts
            return remaining, self.settings, None
        return remaining, None, None

    def write(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Write the outputs of one case that are missing, and enter it in the summary as done, or as failed.

        Args:
            batch: the case as it was read, of a decollated batch.
            output: what the evaluator made of it: ``pred``, ``probability`` and what else it holds.
        """
        result = Result({**batch, **output})
        source = self.sources.get(result.case) or {"case": result.case, "image": [str(f) for f in result.files]}
        folder = self.output_dir / result.case
        flags = result.flags(source)
        result.about, result.settings = self._about(source, flags), self.settings
        try:
            self._record(source, flags)
        except (OSError, ValueError) as error:
            self.failed(result.case, error)
            return
        problems = [problem for name in self.missing(source) if (problem := self._write(name, folder, result))]
        if problems:
            self.failed(result.case, " ".join(problems))
        else:
            self._enter(result.case, "done", self._measurements(result), flags=flags)

    def failed(self, case: str, error: Exception | str) -> None:
        """Enter a case that could not be segmented or written, and log why."""
        message = reason(error)
        logger.error("%s failed: %s", case, message)
        self._enter(case, "failed", error=message)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.interrupt_resume_enabled = (
            False  # with it, ignite runs nothing more, in silence, after a run that failed
        )
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_cases)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    def begin(self) -> None:
        """Begin a run: rows of the run before go to the tables, and its cases stay counted."""
        self._gather()
        if self.rows:
            self._write_tables()
        self.rows, self.sources, self.inputs = {}, {}, {}

    def finish(self) -> None:
        """Say what was done in all runs since the last time, by all processes.

        Raises:
            SystemExit: with status 1 when a case failed.
        """
        self._gather()
        if not is_main_process():
            return
        for case in sorted(self.sources.keys() - self.rows.keys()):  # the thread that reads may have died
            self.failed(case, "not reached. Start the same command again: it does what is missing.")
        self._write_tables()
        count, self.counts = self.counts, Counter()
        print(
            f"Cases segmented: {count['done']}, kept as they were: {count['kept']}, failed: {count['failed']}. "
            f"Results and summary.csv are in {self.output_dir}"
        )
        if count["failed"]:
            raise SystemExit(1)

    def _gather(self) -> None:
        """Give the first process the rows and counts of all."""
        shares = all_gather_object((self.rows, self.counts))
        self.rows = {case: row for rows, _ in shares for case, row in rows.items()} if is_main_process() else {}
        self.counts = sum((counts for _, counts in shares), Counter()) if is_main_process() else Counter()

    def _start(self) -> None:
        if self.before_run is not None:
            self.before_run()

    def _complete(self, engine: Engine) -> None:
        engine.state.epoch_length = None  # the next run may have more cases, or fewer

    def _wanted(self, case: Mapping[str, Any]) -> list[str]:
        return [name for name in self.outputs if name not in _FITTING or _FITTING[name](case)]

    def _check_settings(self, cases: Sequence[Mapping[str, Any]]) -> None:
        """Refuse to put results beside those of other settings; warn of those of other cases that are overwritten."""
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
            told = f"holds results that this run would not give (of {names[0]}{more}): {difference}"
            if not self.overwrite:
                raise ValueError(f"{self.output_dir}: {told}. {_ADVICE}")
            logger.warning(
                "%s: %s. They stay in its tables, because they are not part of this run.", self.output_dir, told
            )

    def _input_conflict(self, case: Mapping[str, Any]) -> str | None:
        """Why results that are there cannot be those of this case."""
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
        """The files of results that a case has, by the names that this run or the recorded one gives them."""
        folder = self.output_dir / case["case"]
        if not folder.is_dir():
            return []
        cases = [case] if recorded is None else [case, {**recorded, "image": recorded["input"]["files"]}]
        files = [
            folder / file
            for case in cases
            for name, output in OUTPUTS.items()
            if name != "slices" or _FITTING[name](case)
            for file in output.names(case)
        ]
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def _recorded(self, case: str) -> dict[str, Any] | None:
        """What the results of a case were made of, as they say."""
        file = provenance_file(self.output_dir / case, case)
        return read_json(file) if file.is_file() else None

    def _record(self, case: Mapping[str, Any], flags: Sequence[Mapping[str, str]]) -> None:
        """Write down what results are made of, before they are written, and remove those made of anything else.

        Raises:
            ValueError: when there are some, and they are not to be overwritten.
        """
        folder, recorded = self.output_dir / case["case"], self._recorded(case["case"])
        if existing := self._existing(case, recorded):
            agrees = recorded and not settings_differences(recorded, self.settings)
            if not (recorded and agrees and not input_differences(recorded, case)):
                if not self.overwrite:
                    raise ValueError(f"{folder}: holds results that this run would not give. {_ADVICE}")
                for file in existing:
                    file.unlink()
        described = self.inputs.pop(case["case"], None) or describe_input(case)
        now = case_provenance(case, self.settings, flags, described)
        if now != recorded:
            write_json(provenance_file(folder, case["case"]), now)

    def _about(self, case: Mapping[str, Any], flags: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """What the measurements of a case say beside figures."""
        return {**_identity(case), "flags": list(flags), **{name: self.settings[name] for name in _MADE_OF}}

    def _write_cases(self, engine: Engine) -> None:
        for batch, output in zip(state_of(engine).batch, state_of(engine).output, strict=True):
            self.write(batch, output)

    def _write(self, name: str, folder: Path, result: Result) -> str | None:
        """Write one output; say what went wrong, because no output must keep the others from being written."""
        try:
            OUTPUTS[name].write(folder, result)
        except Exception as error:
            if name not in self.if_possible or not isinstance(error, ValueError):
                return f"{name}: {reason(error)}"
            logger.warning("%s: no %s, because %s", result.case, name, reason(error))
        return None

    def _measurements(self, result: Result) -> dict[str, Any] | None:
        """For the tables; measuring takes time, so not where nothing that needs it was asked for."""
        return result.measurements if {"measurements", "sr", "page"} & set(self.outputs) else None

    def _read_measurements(self, case: str) -> dict[str, Any] | None:
        file = self.output_dir / case / f"{case}_measurements.json"
        return read_json(file) if file.is_file() else None

    def _enter(
        self,
        case: str,
        status: str,
        measurements: Mapping[str, Any] | None = None,
        *,
        flags: Sequence[Mapping[str, str]] | None = None,
        error: str = "",
    ) -> None:
        source = self.sources.get(case, {"case": case})
        if flags is None:  # those of its volume are known from the time it was read, if it was
            recorded = self._recorded(case) if status == "kept" else None
            flags = _merged((recorded or {}).get("flags", []), case_flags(source))
        failed = status == "failed"
        columns = _columns({**_identity(source), "flags": flags} if failed else self._about(source, flags))
        row = {"case": case, "status": status, "source": source.get("source", ""), "error": error}
        row |= {"files": len(source.get("image", [])), "folder": "" if failed else case}
        row |= columns
        if measurements is not None:
            row |= {key: measurements.get(key, "") for key in ("lesion_count", "volume_ml", "volume_voxels")}
            figures = summary_row(measurements)
            row["measurements"] = {"case": figures.pop("case"), **columns, **figures}
        if not failed:
            logger.info("%s: %s%s", case, status, f", {_describe(measurements)}" if measurements else "")
        with self._entering:
            self.rows[case] = row
            self.counts[status] += 1
            if status != "kept" and (began := time.monotonic()) >= self._write_again:
                self._write_tables()
                ended = time.monotonic()
                self._write_again = ended + _TABLES * (ended - began)

    def _write_tables(self) -> None:
        if not is_main_process():
            return
        _merge_csv(self.output_dir / "summary.csv", list(self.rows.values()), _SUMMARY)
        measured = [row["measurements"] for row in self.rows.values() if "measurements" in row]
        failed = {case for case, row in self.rows.items() if row["status"] == "failed"}
        if measured:
            _merge_csv(self.output_dir / "measurements.csv", measured, tuple(measured[0]), without=failed)


def _parse_outputs(outputs: str | Sequence[str]) -> tuple[list[str], set[str]]:
    """Names of the outputs in order, and of those that are left out where a case does not allow them."""
    names = outputs.split(",") if isinstance(outputs, str) else list(outputs)
    names = [name.strip() for name in names if name.strip()]
    unknown = sorted(set(names) - set(OUTPUTS) - {"auto"})
    if unknown or not names:
        found = ", ".join(unknown) or "nothing"
        raise ValueError(f"outputs: {found} is not known; expected some of auto, {', '.join(OUTPUTS)}.")
    wanted = set(names) | ({"seg"} if "sr" in names else set())
    has_highdicom = importlib.util.find_spec("highdicom") is not None
    if "seg" in wanted and not has_highdicom:
        raise ImportError('outputs: seg and sr need highdicom. Install the extra: pip install -e ".[dicom]"')
    named = frozenset(wanted)
    if "auto" in wanted:
        wanted |= set(_AUTO) if has_highdicom else set(_AUTO) - {"seg"}
        if not has_highdicom:
            logger.info('DICOM series get no DICOM SEG: that needs the extra, pip install -e ".[dicom]"')
    return [name for name in OUTPUTS if name in wanted], (wanted - named) & {"seg"}


def _identity(case: Mapping[str, Any]) -> dict[str, Any]:
    """Where a case comes from."""
    path = {"input": input_path(case)} if case.get("image") else {}
    return path | {name: case[name] for name in _IDENTITY if name in case}


def _columns(about: Mapping[str, Any]) -> dict[str, Any]:
    """What :py:meth:`CaseWriter._about` gives, as columns of a table."""
    flags = about.get("flags", [])
    columns = {name: about.get(name, "") for name in (*_IDENTITY, *_MADE_OF)}
    columns |= {"flags": ";".join(dict.fromkeys(flag["name"] for flag in flags))}
    columns |= {"warnings": " ".join(flag["message"] for flag in flags)}
    columns["ensemble_sha256"] = ";".join(columns["ensemble_sha256"])
    return {name: columns[name] for name in (*_IDENTITY, *_REMARKS, *_MADE_OF)}


def _describe(measurements: Mapping[str, Any]) -> str:
    count = measurements["lesion_count"]
    if not count:
        return "no tumour found"
    if "volume_ml" in measurements:
        size = f"{measurements['volume_ml']:.1f} mL"
    else:
        size = f"{measurements['volume_voxels']} voxels"
    return f"{size} in {count} {'lesion' if count == 1 else 'lesions'}"


def _table(path: Path) -> dict[str, Mapping[str, Any]]:
    """Rows of a table by case; none where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file) if row.get("case")}


def _merge_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, without: Collection[str] = ()
) -> None:
    """Write rows by case, and keep those of other cases that the file has, but for some."""
    kept = {case: row for case, row in _table(path).items() if case not in without}
    kept |= {row["case"]: row for row in rows}
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(kept[case] for case in sorted(kept))
