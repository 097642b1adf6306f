"""Save the full training state, so that an interrupted run resumes exactly."""

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


_WEIGHTS = ("model_final.pt", "model.pt")  # weights of a complete run, and of one that is not


# Config keys that do not change the result of a run, or only through the number of processes (multi_gpu_train.json).
_HARMLESS = {
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "run_name",
    "run_dir",
    "num_workers",
    "cache",
    "cache_dir",
    "resume",
    "keep_checkpoints",
    "save_execute_config",  # this and the next two belong to experiment tracking
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
    """Handler that writes a checkpoint after every epoch, and resumes from the last one when training starts.

    A checkpoint holds the state of all given objects, the epoch and iteration of the trainer, every random state, and
    the score of the best model so far. It is written to a temporary file, synced to the disk and renamed, and its
    SHA-256 is written to ``checkpoints.json``. If a checkpoint does not match its SHA-256, the one before it is used,
    with a warning.
    (ignite's ``Checkpoint`` saves no random state and no checksum, and does not act on signals.)

    On SIGTERM and SIGINT, the handler finishes the current step, writes a checkpoint, and exits with status 128 plus
    the number of the signal. A second signal exits at once. To resume within an epoch, the sampler must be able to
    start there (:py:class:`mri_seg.training.slice_dataset.EpochSampler`).

    In distributed training, rank 0 reads and writes, and all ranks stop after the same step, whichever of them got the
    signal. A run may resume with another number of processes: it continues at the same position among the drawn
    slices, rounded down to a whole step, with the learning rate of that position.

    Attach it after all other handlers, so that it saves the state after they have run.

    Args:
        folder: folder of the run.
        objects: what to save, by name: objects with ``state_dict`` and ``load_state_dict``, or ignite's ``EMAHandler``.
        sampler: sampler of the training data; its epoch and start are set when an epoch begins.
        evaluator: evaluator for validation, whose best metric is saved.
        savers: handlers; the MONAI ``CheckpointSaver`` among them keep the best model, others are ignored.
        keep: number of checkpoints to keep.
        batch_size: number of slices in a step of one process.
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
            name: _EMAState(thing) if isinstance(thing, EMAHandler) else thing
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
        self._previous_handlers: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._set_sampler)
        engine.add_event_handler(Events.ITERATION_STARTED, self._restore_random_state)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_on_signal)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, self._restore_signal_handlers)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
        if engine.state.iteration:  # this process has trained before: the next round of federated learning
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
            raise ValueError(
                f"{path}: does not hold the same parts as this run: they differ in {', '.join(sorted(missing))}. "
                "Start a new run with --resume false."
            )
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

    def _set_sampler(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)
        self.sampler.start = engine.state.iteration % state_of(engine).epoch_length * self._step

    @property
    def _step(self) -> int:
        """Number of slices in a step of all processes together."""
        return self.batch_size * world_size()

    def _iteration_of(self, state: Mapping[str, Any], epoch_length: int) -> int:
        """Convert a checkpoint's iteration to steps of this run, whose size depends on the number of processes."""
        length, step = state.get("epoch_length", epoch_length), state.get("step", self._step)
        epochs, steps = divmod(state["iteration"], length)
        return epochs * epoch_length + min(steps * step // self._step, epoch_length - 1)

    def _restore_random_state(self) -> None:
        if self._random is not None:
            load_random_state(self._random[min(rank(), len(self._random) - 1)])
            if rank() >= len(self._random):  # a rank that the run did not have before needs its own random numbers
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
        self._signal = number  # torchrun may repeat a signal, and kills the process after half a minute

    def _stop_on_signal(self, engine: Engine) -> None:
        number = all_reduce_max(self._signal or 0)
        # After the last step of an epoch, the epoch is finished first, with its validation.
        if number and engine.state.iteration % state_of(engine).epoch_length:
            self._save(engine)
            self._exit(number)

    def _end_epoch(self, engine: Engine) -> None:
        self._save(engine)
        if number := all_reduce_max(self._signal or 0):
            self._exit(number)

    def _exit(self, number: int) -> None:
        broadcast_object("saved")  # wait for rank 0 to save: torchrun ends the other ranks when one exits
        self._restore_signal_handlers()
        if is_main_process():
            logger.warning("Stopped. Run the same command to resume from the last checkpoint in %s.", self.folder)
        raise SystemExit(128 + number)

    def _restore_signal_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._restore_signal_handlers()
        raise error


class _EMAState:
    """Save and load ignite's EMAHandler, which has no ``state_dict``; its schedule exists once it is attached."""

    def __init__(self, handler: EMAHandler) -> None:
        self.handler = handler

    def state_dict(self) -> dict[str, Any]:
        # Only the number of steps of the schedule: the rest are settings, one of them a function.
        return {"model": self.handler.ema_model.state_dict(), "steps": momentum_schedule(self.handler).event_index}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.handler.ema_model.load_state_dict(state["model"])
        momentum_schedule(self.handler).event_index = state["steps"]


def run_folder(output_dir: PathLike | str, resume: bool | str = True) -> Path:
    """Choose the folder of a run: ``output_dir``, or a new one beside it if it holds a run and ``resume`` is false."""
    folder = Path(output_dir)
    if not flag(resume, "resume") and (folder / "config.json").exists():
        numbers = itertools.count(2)
        folder = next(new for n in numbers if not (new := folder.with_name(f"{folder.name}-{n}")).exists())
    return broadcast_object(folder)


def begin_run(folder: PathLike | str, **facts: Any) -> Path:
    """Check that the run does not resume one with another config, and write its config and provenance.

    Like :py:func:`mri_seg.config.provenance.write_record`, it must be called from an expression of a config.

    Args:
        folder: folder of the run.
        facts: further entries of ``run.json``.

    Raises:
        ValueError: as in :py:func:`refuse_other_config`.
    """
    if is_main_process():
        refuse_other_config(folder, evaluated_config())
        write_record(folder, **facts)
    return broadcast_object(Path(folder))


def run_training(trainer: Trainer, folder: PathLike | str) -> None:
    """Run a trainer unless it has finished; ignite would restart a finished one at its first epoch.

    Args:
        trainer: the trainer.
        folder: folder of the run.
    """
    if trainer.state.iteration and trainer.state.epoch >= trainer.state.max_epochs:
        logger.info("%s is complete: all %d epochs are done.", folder, trainer.state.epoch)
        return
    trainer.run()


def find_checkpoint(folder: PathLike | str) -> tuple[Path, dict] | None:
    """Find the last intact checkpoint of a run.

    Returns:
        its path and its content, or None if the run has no checkpoint.

    Raises:
        ValueError: when there are checkpoints, but none of them is intact.
    """
    folder = Path(folder)
    index = _read_index(folder)
    for entry in reversed(index):
        path = folder / entry["file"]
        if path.is_file() and sha256(path) == entry["sha256"]:
            return path, torch.load(path, map_location="cpu", weights_only=True)
        logger.warning("%s: is missing or does not match its SHA-256. Trying the checkpoint before it.", path)
    if index:
        raise ValueError(
            f"{folder}: none of its {len(index)} checkpoints is intact. Start a new run with --resume false."
        )
    return None


def refuse_other_config(folder: PathLike | str, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose config differs in a key that changes the result.

    Args:
        folder: folder of the run, with its ``config.json``.
        config: the current config.

    Raises:
        ValueError: when the configs differ; the message names the keys with both values.
    """
    file = Path(folder) / "config.json"
    if not file.is_file() or not _read_index(Path(folder)):
        return
    saved, current = read_json(file), json.loads(json.dumps(dict(config), default=str))
    record = file.with_name("run.json")
    processes = read_json(record).get("processes", 1) if record.is_file() else 1
    # With another number of processes, batch_size may differ, so that a step of all together stays the same.
    harmless = _HARMLESS if processes == world_size() else _HARMLESS | {"batch_size"}
    for name in harmless:
        _remove(saved, name)
        _remove(current, name)
    differing = [
        f"{key} was {saved.get(key)!r:.60}, now {current.get(key)!r:.60}"
        for key in sorted(saved.keys() | current.keys())
        if saved.get(key) != current.get(key)
    ]
    if differing:
        weights = next((file for name in _WEIGHTS if (file := Path(folder) / name).is_file()), None)
        raise ValueError(
            f"{folder}: holds a run with another config: {'; '.join(differing)}. Give the same options to resume it, "
            "or give another --output_dir or --resume false to start a new run"
            + (f"; to start from its weights: --initial_weights {weights} --output_dir NEW_FOLDER." if weights else ".")
        )


def _remove(config: dict[str, Any], name: str) -> None:
    """Remove a key of a config, named as on the command line: ``train#trainer#network``."""
    *path, key = name.split("#")
    functools.reduce(lambda part, key: part.get(key, {}), path, config).pop(key, None)


def _saver_state(saver: CheckpointSaver) -> dict[str, Any]:
    """The files that MONAI's saver has saved, with their scores."""
    return {
        name: [[float(priority), str(filename)] for priority, filename in kept.state_dict()["_saved"]]
        for name, kept in checkpoints_of(saver).items()
    }


def _load_saver(saver: CheckpointSaver, state: Mapping[str, Any]) -> None:
    for name, kept in checkpoints_of(saver).items():
        # A better model may have replaced a file after the checkpoint; it will be saved again.
        fixed = fixed_name(kept)  # the fixed name that MONAI gives to the best model
        there = [item for item in state[name] if (Path(saver.save_dir) / (fixed or item[1])).is_file()]
        kept.load_state_dict({"_saved": there})


def _read_index(folder: Path) -> list[dict[str, Any]]:
    file = folder / _INDEX
    return read_json(file) if file.is_file() else []


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
