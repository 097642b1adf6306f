"""Save the full state of a training, so that an interrupted run resumes exactly."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import Trainer
from monai.handlers import CheckpointSaver
from monai.utils import set_determinism
from torch.optim.lr_scheduler import LRScheduler

from mri_seg.config.provenance import evaluated_config, write_record
from mri_seg.utils.compat import checkpoints_of, fixed_name, momentum_schedule, set_steps, state_of
from mri_seg.utils.distributed import (
    all_gather_object,
    all_reduce_max,
    broadcast_object,
    is_main_process,
    rank,
    world_size,
)
from mri_seg.utils.files import atomic_write, read_json, sha256, write_json
from mri_seg.utils.flags import flag
from mri_seg.utils.random_state import load_random_state, random_state

__all__ = ["TrainingCheckpoint", "begin_run", "find_checkpoint", "refuse_other_config", "run_folder", "run_training"]

logger = logging.getLogger(__name__)


_INDEX = "checkpoints.json"


_WEIGHTS = ("model_final.pt", "model.pt")  # of a run that is complete; of one that is not


# Keys of the config that do not change what a run computes, or only by the number of processes (multi_gpu_train.json).
_HARMLESS = {
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "run_name",
    "run_dir",
    "num_workers",
    "resume",
    "keep_checkpoints",
    "save_execute_config",  # and the others of experiment tracking
    "tracking_uri",
    "experiment_name",
    "max_voxels",
    "imports",
    "device",
    "network",
    "sync_batchnorm",
    "summary_writer",
    "average_buffers",
    "initialize",
    "finalize",
    "train#dataset#progress",
    "train#trainer#network",
    "train#trainer#train_handlers",
    "validate#dataset#progress",
    "validate#dataset#runtime_cache",
    "validate#dataloader#sampler",
    "validate#evaluator#_target_",
    "validate#evaluator#val_handlers",
}


class TrainingCheckpoint:
    """Handler of the trainer that writes a checkpoint every epoch, and goes on from the last one when training starts.

    A checkpoint holds the state of all objects given, the trainer's epoch and iteration, every random state, and what
    is known of the best model so far. It is written beside its place, synced to the disk and renamed, with its SHA-256
    in ``checkpoints.json``; a checkpoint that does not agree with it is passed over with a warning, for the one before.
    (ignite's ``Checkpoint`` saves no random state and no checksum, and does not act on signals.)

    On SIGTERM and SIGINT the step that runs is finished, a checkpoint written and the process left with status 128 and
    the number of the signal; a second signal does not wait. The sampler must give the batches of an epoch from where it
    is told to (:py:class:`mri_seg.training.slice_dataset.EpochSampler`), so that a run can go on within an epoch.

    Of several processes the first reads and writes; they stop after the same step, whichever heard of it. Another
    number of processes goes on at the same place among the slices drawn, rounded down to its own steps, with the
    learning rate of the same share of the training.

    Attach it after all other handlers, so that it sees what they have done.

    Args:
        folder: folder of the run.
        objects: what to save by name: anything with ``state_dict`` and ``load_state_dict``, or ignite's ``EMAHandler``.
        sampler: sampler of the training data, told where an epoch begins.
        evaluator: the evaluator that validates, whose best metric is kept.
        savers: handlers among which MONAI's ``CheckpointSaver`` keep the best model; others are passed over.
        keep: how many checkpoints to keep.
        batch_size: slices of a step, by which the sampler counts; with several processes, of a step of each.
    """

    def __init__(
        self,
        folder: PathLike | str,
        *,
        objects: Mapping[str, Any],
        sampler: Any,
        batch_size: int,
        evaluator: Engine | None = None,
        savers: Sequence[Any] = (),
        keep: int = 2,
    ) -> None:
        self.folder = Path(folder)
        self.objects = {
            name: _Averaging(thing) if isinstance(thing, EMAHandler) else thing
            for name, thing in objects.items()
            if thing is not None
        }
        self.sampler = sampler
        self.batch_size = batch_size
        self.evaluator = evaluator
        self.savers = [saver for saver in savers if isinstance(saver, CheckpointSaver)]
        self.keep = keep
        self._signal: int | None = None
        self._random: list[dict] | None = None
        self._former: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._tell_sampler)
        engine.add_event_handler(Events.ITERATION_STARTED, self._restore_random_state)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_told)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, self._restore_signal_handlers)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread
                self._former[number] = signal.signal(number, self._on_signal)
        if engine.state.iteration:  # trained by this process: a round of a federation, with the weights it sent
            return
        found: tuple[Path, dict[str, Any]] | None = broadcast_object(
            find_checkpoint(self.folder) if is_main_process() else None
        )
        if found is None:
            return
        path, state = found
        trainer = state_of(engine)
        iteration = self._iteration_of(state, trainer.epoch_length)
        missing = self.objects.keys() ^ state["objects"].keys()
        if missing:
            raise ValueError(f"{path}: holds other parts than this run, apart in {', '.join(sorted(missing))}.")
        for name, thing in self.objects.items():
            if isinstance(thing, LRScheduler) and iteration != state["iteration"]:
                set_steps(thing, iteration)  # of as many steps as it has now
            else:
                thing.load_state_dict(state["objects"][name])
        for saver, saved in zip(self.savers, state["savers"], strict=True):
            _load_saver(saver, saved)
        if self.evaluator is not None:
            best = state_of(self.evaluator)
            best.best_metric, best.best_metric_epoch = state["best"]
        trainer.iteration = iteration
        trainer.epoch = iteration // trainer.epoch_length
        self._random = [state["random"], *state.get("random_of_others", [])]
        done = trainer.epoch, iteration % trainer.epoch_length
        if done[0] >= trainer.max_epochs:
            logger.info("%s is complete: all %d epochs are done.", self.folder, done[0])
        else:
            logger.info("Resuming from %s, after %d epochs and %d steps.", path, *done)

    def _tell_sampler(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)
        self.sampler.start = engine.state.iteration % state_of(engine).epoch_length * self._step

    @property
    def _step(self) -> int:
        """Slices of a step of all processes."""
        return self.batch_size * world_size()

    def _iteration_of(self, state: Mapping[str, Any], epoch_length: int) -> int:
        """The iteration of a checkpoint in steps of now, which are larger or smaller with other processes."""
        length, step = state.get("epoch_length", epoch_length), state.get("step", self._step)
        epochs, steps = divmod(state["iteration"], length)
        return epochs * epoch_length + min(steps * step // self._step, epoch_length - 1)

    def _restore_random_state(self) -> None:
        if self._random is not None:
            load_random_state(self._random[min(rank(), len(self._random) - 1)])
            if rank() >= len(self._random):  # a process that the run did not have draws what no other draws
                set_determinism(int(torch.randint(2**31, (1,))) + rank())
            self._random = None

    def _save(self, engine: Engine) -> None:
        random_states = all_gather_object(random_state())
        if not is_main_process():
            return
        state = {
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "step": self._step,
            "objects": {name: thing.state_dict() for name, thing in self.objects.items()},
            "savers": [_saver_state(saver) for saver in self.savers],
            "best": None
            if self.evaluator is None
            else [float(state_of(self.evaluator).best_metric), int(state_of(self.evaluator).best_metric_epoch)],
            "random": random_states[0],
            "random_of_others": random_states[1:],
        }
        path = self.folder / f"checkpoint_iteration={engine.state.iteration}.pt"
        with atomic_write(path) as unfinished:
            torch.save(state, unfinished)
            _sync(unfinished)
        index = [entry for entry in _read_index(self.folder) if entry["file"] != path.name]
        index.append({"file": path.name, "iteration": engine.state.iteration, "sha256": sha256(path)})
        kept = sorted(index, key=lambda entry: entry["iteration"])[-self.keep :]
        write_json(self.folder / _INDEX, kept)
        names = {entry["file"] for entry in kept}
        for old in self.folder.glob("checkpoint_iteration=*.pt"):
            if old.name not in names:
                old.unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal is not None and world_size() == 1:
            self._restore_signal_handlers()
            raise SystemExit(128 + number)
        if self._signal is None and is_main_process():
            logger.warning("%s: finishing the step, then stopping.", signal.Signals(number).name)
        self._signal = number  # torchrun may repeat a signal, and kills by itself after half a minute

    def _stop_if_told(self, engine: Engine) -> None:
        told = all_reduce_max(self._signal or 0)
        # After the last step of an epoch the epoch is finished first, with its validation.
        if told and engine.state.iteration % state_of(engine).epoch_length:
            self._save(engine)
            self._leave(told)

    def _end_epoch(self, engine: Engine) -> None:
        self._save(engine)
        if told := all_reduce_max(self._signal or 0):
            self._leave(told)

    def _leave(self, number: int) -> None:
        broadcast_object("saved")  # torchrun ends the others when one has left
        self._restore_signal_handlers()
        if is_main_process():
            logger.warning("Stopped. The same command goes on from the last checkpoint in %s.", self.folder)
        raise SystemExit(128 + number)

    def _restore_signal_handlers(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._restore_signal_handlers()
        raise error


class _Averaging:
    """State of ignite's EMAHandler, which has none of its own; its schedule is there once it is attached."""

    def __init__(self, handler: EMAHandler) -> None:
        self.handler = handler

    def state_dict(self) -> dict[str, Any]:
        # Of the schedule the number of steps alone: the rest is its settings, one of them a function.
        return {"model": self.handler.ema_model.state_dict(), "steps": momentum_schedule(self.handler).event_index}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.handler.ema_model.load_state_dict(state["model"])
        momentum_schedule(self.handler).event_index = state["steps"]


def run_folder(output_dir: PathLike | str, resume: bool | str = True) -> Path:
    """Folder of a run: the one asked for, or without ``resume`` a new one beside it where it holds a run already."""
    folder = Path(output_dir)
    if not flag(resume, "resume") and (folder / "config.json").exists():
        numbers = itertools.count(2)
        folder = next(new for n in numbers if not (new := folder.with_name(f"{folder.name}-{n}")).exists())
    return broadcast_object(folder)


def begin_run(folder: PathLike | str, **facts: Any) -> Path:
    """Record what a run is, unless it goes on with a run of another config: see :py:func:`refuse_other_config`.

    Args:
        folder: folder of the run.
        facts: as for :py:func:`mri_seg.config.provenance.write_record`, which is called from a config likewise.
    """
    if is_main_process():
        refuse_other_config(folder, evaluated_config())
        write_record(folder, **facts)
    return broadcast_object(Path(folder))


def run_training(trainer: Trainer, folder: PathLike | str) -> None:
    """Run a trainer, unless it has finished already: ignite would begin at its first epoch with the trained weights.

    Args:
        trainer: the trainer.
        folder: folder of the run.
    """
    if trainer.state.iteration and trainer.state.epoch >= trainer.state.max_epochs:
        logger.info("%s is complete: all %d epochs are done.", folder, trainer.state.epoch)
        return
    trainer.run()


def find_checkpoint(folder: PathLike | str) -> tuple[Path, dict] | None:
    """Find the last checkpoint of a run that is whole.

    Returns:
        its path and its content, or None where there is none.

    Raises:
        ValueError: when there are checkpoints, none of them whole.
    """
    folder = Path(folder)
    index = _read_index(folder)
    for entry in reversed(index):
        path = folder / entry["file"]
        if path.is_file() and sha256(path) == entry["sha256"]:
            return path, torch.load(path, map_location="cpu", weights_only=True)
        logger.warning("%s: is not what was written (by its SHA-256). Trying the checkpoint before it.", path)
    if index:
        raise ValueError(f"{folder}: none of its {len(index)} checkpoints is whole. Start anew with --resume false.")
    return None


def refuse_other_config(folder: PathLike | str, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose config differs in anything that changes its result.

    Args:
        folder: folder of the run, with its ``config.json``.
        config: the config of now.

    Raises:
        ValueError: when they differ; the message names the keys with both values.
    """
    file = Path(folder) / "config.json"
    if not file.is_file() or not _read_index(Path(folder)):
        return
    former, now = read_json(file), json.loads(json.dumps(dict(config), default=str))
    record = file.with_name("run.json")
    processes = read_json(record).get("processes", 1) if record.is_file() else 1
    # Other processes may take other batches, so that a step of all stays the same.
    harmless = _HARMLESS if processes == world_size() else _HARMLESS | {"batch_size"}
    for name in harmless:
        _remove(former, name)
        _remove(now, name)
    differing = [
        f"{key} was {former.get(key)!r:.60}, now {now.get(key)!r:.60}"
        for key in sorted(former.keys() | now.keys())
        if former.get(key) != now.get(key)
    ]
    if differing:
        weights = next((file for name in _WEIGHTS if (file := Path(folder) / name).is_file()), None)
        raise ValueError(
            f"{folder}: holds a run with another config: {'; '.join(differing)}. Give the same options to go on with "
            "it, or another --output_dir or --resume false to begin a new run"
            + (f"; to train its weights on: --initial_weights {weights} --output_dir NEW_FOLDER." if weights else ".")
        )


def _remove(config: dict[str, Any], name: str) -> None:
    """Remove a key of a config, named as the command line does: ``train#trainer#network``."""
    *path, key = name.split("#")
    functools.reduce(lambda part, key: part.get(key, {}), path, config).pop(key, None)


def _saver_state(saver: CheckpointSaver) -> dict[str, Any]:
    """What MONAI's saver has saved, and how good it was."""
    return {
        name: [[float(priority), str(filename)] for priority, filename in kept.state_dict()["_saved"]]
        for name, kept in checkpoints_of(saver).items()
    }


def _load_saver(saver: CheckpointSaver, state: Mapping[str, Any]) -> None:
    for name, kept in checkpoints_of(saver).items():
        # A better model may have taken a file's place after the checkpoint: it will be saved again.
        fixed = fixed_name(kept)  # the one name that MONAI gives to whatever is the best
        there = [item for item in state[name] if (Path(saver.save_dir) / (fixed or item[1])).is_file()]
        kept.load_state_dict({"_saved": there})


def _read_index(folder: Path) -> list[dict[str, Any]]:
    file = folder / _INDEX
    return read_json(file) if file.is_file() else []


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
