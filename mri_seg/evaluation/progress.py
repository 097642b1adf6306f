"""Keep what an evaluation has finished, so that one that was stopped resumes where it was."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import Dataset
from torch.utils.data import Sampler

from mri_seg.inference.provenance import describe_input, input_differences, result_settings, settings_differences
from mri_seg.training.ddp import partition
from mri_seg.utils.distributed import broadcast_object, is_main_process, rank, world_size
from mri_seg.utils.files import read_json, write_json
from mri_seg.utils.flags import flag

__all__ = ["EvaluationProgress", "RemainingSampler"]

logger = logging.getLogger(__name__)

_FOLDER = "finished_cases"


class EvaluationProgress:
    """Handler that keeps the rows of finished cases in ``finished_cases`` until the evaluation is complete.

    An evaluation that was stopped finds them there. A case counts as finished if its rows were made by the same weights
    (by SHA-256), options and version from the same content of its files; others are evaluated again, and the log says
    why. When the evaluation is complete the folder is removed, so that another run evaluates all cases. Nothing is kept
    if the network's weights come from elsewhere than ``checkpoint``, as in federated learning.

    Attach it after all other handlers. Of several processes, the first decides which cases remain.

    Args:
        output_dir: folder of the evaluation.
        dataset: the cases to evaluate, in its ``data``.
        checkpoint: the weights that are evaluated; not read if there are predictions.
        ensemble: further weights.
        options: the options on which results depend, from :py:func:`mri_seg.inference.provenance.result_options`.
        surface_tolerance: see :py:class:`~mri_seg.evaluation.writer.EvaluationWriter`.
        predictions: folder of masks that are evaluated instead of a network; None for none.
        report: whether the archived case, ``cases/<case>.npz``, must be there too.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        dataset: Dataset,
        checkpoint: PathLike | str | None,
        ensemble: Sequence[PathLike | str] | PathLike | str = (),
        options: Mapping[str, Any] | None = None,
        surface_tolerance: float = 2.0,
        predictions: PathLike | str | None = None,
        report: bool | str = False,
    ) -> None:
        self.folder = Path(output_dir) / _FOLDER
        self.archive = Path(output_dir) / "cases" if flag(report, "report") else None
        self.cases: list[Mapping[str, Any]] = list(dataset.data)
        self.has_network = predictions is None
        self.settings: dict[str, Any] | None = None
        options = {**(options or {}), "surface_tolerance": surface_tolerance}
        with contextlib.suppress(FileNotFoundError):  # missing weights: loading them raises the error
            weights = (checkpoint, ensemble) if self.has_network else (None, ())
            self.settings = result_settings(*weights, options)
        self.kept: dict[str, dict[str, Any]] = broadcast_object(self._find() if is_main_process() else None)
        """Records of the finished cases by name: ``patient``, a row, and ``slices``, rows."""

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    @property
    def remaining(self) -> list[int]:
        """Places of the cases that are to be evaluated, in the data set."""
        return [n for n, case in enumerate(self.cases) if case["case"] not in self.kept]

    def add(self, case: str, patient: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of a finished case."""
        found = next((one for one in self.cases if one["case"] == case), None)
        if self.settings is None or found is None:
            return
        with contextlib.suppress(OSError):  # its files are gone: nobody can resume with them
            described = describe_input(found)
            rows = {"patient": dict(patient), "slices": list(map(dict, slices))}
            write_json(self._file(case), {**self.settings, **described, **rows})

    def sort(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Sort rows by the place of their case in the data set."""
        places = {str(case["case"]): n for n, case in enumerate(self.cases)}
        return sorted(rows, key=lambda row: places.get(row["case"], len(places)))

    def _file(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def _find(self) -> dict[str, dict[str, Any]]:
        if self.settings is None or not self.folder.is_dir():
            return {}
        kept, reasons = {}, set()
        for case in self.cases:
            if not self._file(case["case"]).is_file():
                continue
            try:
                record = read_json(self._file(case["case"]))
                differences = settings_differences(record, self.settings) + input_differences(record, case)
                rows = {"patient": record["patient"], "slices": record["slices"]}
            except (OSError, KeyError, TypeError, ValueError) as error:
                differences, rows = [f"its record cannot be used ({error})"], {}
            if not differences and self.archive and not (self.archive / f"{case['case']}.npz").is_file():
                differences = ["it was not archived for the report"]
            if differences:
                reasons.update(differences)
            else:
                kept[case["case"]] = rows
        if reasons:
            logger.info("Finished cases that are evaluated again: %s.", "; ".join(sorted(reasons)))
        if len(kept) == len(self.cases):
            kept.popitem()  # an evaluator runs for one case or more
        if kept:
            logger.info(
                "Resuming: %d of %d cases are finished in %s with these weights and options.",
                len(kept),
                len(self.cases),
                self.folder,
            )
        return kept

    def _start(self, engine: Engine) -> None:
        if self.has_network and getattr(engine.state, "loaded_weights", None) is None:
            self.settings, self.kept = None, {}  # the network came with weights that no checkpoint names
            self._set_length(engine)

    def _complete(self, engine: Engine) -> None:
        self.kept = {}
        self._set_length(engine)
        if is_main_process():
            shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _set_length(engine: Any) -> None:
        engine.state.epoch_length = len(engine.data_loader)  # MONAI reads it once


class RemainingSampler(Sampler):
    """Places of the cases that this process still has to evaluate: a contiguous part of those that remain.

    Args:
        progress: the progress of the evaluation.
    """

    def __init__(self, progress: EvaluationProgress) -> None:
        self.progress = progress

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._places())

    def __iter__(self) -> Iterator[int]:
        """Places in the data set."""
        return iter(self._places())

    def _places(self) -> list[int]:
        remaining = self.progress.remaining
        return [remaining[n] for n in partition(len(remaining), rank(), world_size())]
