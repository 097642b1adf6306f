"""Use of private parts of MONAI, ignite and PyTorch: all such uses are in this module.

Each function says why the public interface is not enough. ``tests/utils/test_compat.py`` has a test for each, which
fails if a new release changes the private part; ``pyproject.toml`` allows only releases that have been tested.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.handlers import BaseParamScheduler, Checkpoint, EMAHandler
from monai.bundle.config_item import ConfigItem
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointSaver, TensorBoardHandler
from monai.metrics import Cumulative
from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "Averager",
    "Evaluator",
    "SummaryHandler",
    "become",
    "called_from",
    "caller_of",
    "changes_of",
    "checkpoints_of",
    "cpu_has_bfloat16",
    "first_to_count",
    "fixed_name",
    "gathered_scores",
    "give_metadata",
    "local_scores",
    "momentum_schedule",
    "network_of",
    "set_steps",
    "state_dict_metadata",
    "state_of",
    "unsynced_buffers",
]


_T = TypeVar("_T")


# MONAI


def caller_of(kind: type[_T]) -> _T | None:
    """Find the nearest object of a class that has a method on the stack; None if there is none.

    MONAI does not pass its ``ConfigParser`` to expressions of a config, so an expression that needs the config finds
    the parser on the stack.

    Args:
        kind: the class.
    """
    for frame in _frames():
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            return caller
    return None


def called_from(module: str) -> bool:
    """Whether a function of a module is on the stack.

    ``python -m monai.bundle`` leaves the command line to fire, and a config cannot see if it runs from a command line.

    Args:
        module: name of the module, such as ``fire.core``.
    """
    return any(frame.f_globals.get("__name__") == module for frame in _frames())


def _frames() -> Iterator[FrameType]:
    """Frames of the stack, from the calling function outwards."""
    frame = inspect.currentframe()
    while frame is not None and (frame := frame.f_back) is not None:
        yield frame


def become(item: ConfigItem, kind: type[ConfigItem]) -> None:
    """Change the class of an item of a parsed config in place.

    MONAI's ``ConfigParser`` creates items of fixed classes, and other objects keep references to them.

    Args:
        item: the item, of exactly the class that ``kind`` derives from.
        kind: a class that adds methods to it, and no attributes.
    """
    item.__class__ = kind


class Evaluator(SupervisedEvaluator):
    """MONAI's evaluator with a hook at the end of an epoch, before its metrics are computed.

    The evaluator attaches its metrics at construction, so all other handlers run after them.
    """

    def before_metrics(self, metrics: Sequence[Any]) -> None:
        """Hook that is called before the metrics are computed; does nothing unless overridden.

        Args:
            metrics: MONAI's handlers of the metrics.
        """

    def _register_metrics(self, k_metric: dict[str, Any], add_metrics: dict[str, Any] | None = None) -> None:
        handlers = list({**k_metric, **(add_metrics or {})}.values())
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.before_metrics(handlers))
        super()._register_metrics(k_metric, add_metrics)


def local_scores(metric: Cumulative) -> list[list[torch.Tensor]] | None:
    """Scores that a MONAI metric has collected in this process, one list per value; None if there are none.

    ``get_buffer`` first gathers from all processes, and hangs if one of them has no case.

    Args:
        metric: the metric.
    """
    return metric._buffers


def gathered_scores(metric: Cumulative, scores: Sequence[torch.Tensor]) -> None:
    """Give a MONAI metric the scores of all processes, so that it does not gather them itself.

    It has no method that accepts scores without gathering.

    Args:
        metric: the metric.
        scores: for each of its values the scores of all processes, batch first.
    """
    metric._synced_tensors = list(scores)
    metric._synced = True


def checkpoints_of(saver: CheckpointSaver) -> dict[str, Checkpoint]:
    """The parts of MONAI's saver that keep the best and the latest models, by name.

    Its own ``state_dict`` is empty, and its ``load_state_dict`` loads only the part of the best model.

    Args:
        saver: the saver.
    """
    found = {name: getattr(saver, name) for name in ("_key_metric_checkpoint", "_interval_checkpoint")}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}


def fixed_name(checkpoint: Checkpoint) -> str | None:
    """The fixed file name of such a part of MONAI's saver; None if the name depends on the model.

    Only the private class that writes the files knows it.

    Args:
        checkpoint: a part, as :py:func:`checkpoints_of` gives it.
    """
    disk: Any = checkpoint.save_handler
    return disk.filename


def network_of(engine: Engine) -> torch.nn.Module:
    """The network of a MONAI engine; handlers get ignite's type of engine, which has no network.

    Args:
        engine: a MONAI trainer or evaluator.
    """
    return getattr(engine, "network")  # noqa: B009


class SummaryHandler(TensorBoardHandler):
    """MONAI's handler for TensorBoard, whose writer has no public name."""

    @property
    def writer(self) -> SummaryWriter:
        """The summary writer."""
        return self._writer

    def add_summary(self, summary: Any) -> None:
        """Write a finished TensorBoard summary, for which ``SummaryWriter`` has no method.

        Args:
            summary: the summary, such as those of ``torch.utils.tensorboard.summary``.
        """
        file_writer: Any = self._writer.file_writer
        file_writer.add_summary(summary)


# ignite


class Averager(EMAHandler):
    """ignite's ``EMAHandler``, with its step as a public method that a subclass can override.

    ``attach`` registers a private method, and has no argument for another one.
    """

    def update(self, engine: Engine, name: str) -> None:
        """Update the average by one step.

        Args:
            engine: the trainer.
            name: name of the momentum in the trainer's state.
        """
        super()._update_ema_model(engine, name)

    def _update_ema_model(self, engine: Engine, name: str) -> None:
        self.update(engine, name)


def momentum_schedule(averager: EMAHandler) -> BaseParamScheduler:
    """The momentum schedule of an ``EMAHandler``, whose number of steps belongs to the training state.

    ignite's handler has no ``state_dict``, and the attribute exists only after it is attached with a warm-up.

    Args:
        averager: the handler.

    Raises:
        ValueError: when it has no schedule.
    """
    schedule = getattr(averager, "momentum_scheduler", None)
    if schedule is None:
        raise ValueError("the average of the weights has no schedule: give momentum_warmup and warmup_iters.")
    return schedule


def state_of(engine: Engine) -> Any:
    """The state of an engine, to which handlers may add attributes.

    ignite annotates its batch and output as numbers, and does not know the attributes that MONAI adds.

    Args:
        engine: the engine.
    """
    return engine.state


# PyTorch


def set_steps(scheduler: LRScheduler, steps: int) -> None:
    """Set a learning rate schedule to a number of steps; the next step sets the rate.

    ``step`` accepts a number of steps only for some schedules, with a deprecation warning. The count of calls is
    private; without it, the schedule warns that the optimizer has not made a step.

    Args:
        scheduler: the schedule.
        steps: number of steps that are done.
    """
    scheduler.last_epoch, scheduler._step_count = steps, steps + 1


def state_dict_metadata(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the network itself in a state dict; an empty dictionary if it has none.

    Hooks of a network get them by a public interface, but a state dict that was read from a file is just a dictionary.

    Args:
        weights: the state dict; a copy as a plain ``dict`` has none.
    """
    return getattr(weights, "_metadata", {}).get("", {})


def give_metadata(weights: Mapping[str, torch.Tensor], network: torch.nn.Module) -> OrderedDict[str, torch.Tensor]:
    """Copy a state dict, with the metadata of a network in place of its own.

    Args:
        weights: the state dict.
        network: the network that is to load it.
    """
    copied = OrderedDict(weights)
    copied._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    return copied


def changes_of(weights: torch.Tensor) -> int:
    """Number of in-place changes of a tensor; PyTorch counts them for autograd, without a public name.

    Args:
        weights: a tensor made outside of inference mode.
    """
    return weights._version


def first_to_count(name: str) -> bool:
    """Whether this process is the first to call this function for a name, without waiting for the others.

    Every public collective waits for all processes; the store with which the process group was set up does not.

    Args:
        name: what is counted.

    Raises:
        RuntimeError: when the process that holds the store has ended.
    """
    return dist.distributed_c10d._get_default_store().add(name, 1) == 1


def unsynced_buffers() -> dict[str, Any]:
    """The argument of ``DistributedDataParallel`` that keeps it from synchronizing buffers; PyTorch 2.13 renamed it."""
    names = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}


def cpu_has_bfloat16(machine: str) -> bool:
    """Whether the CPU has native bfloat16; oneDNN also emulates it, which is slower than float32.

    PyTorch has no public function for this on CPUs.

    Args:
        machine: value of ``platform.machine()``.
    """
    if machine.lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
