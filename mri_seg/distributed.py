"""Several processes that share the work, as torchrun starts them: on one machine or many, with GPUs or without.

Everything here also holds for a single process, where it changes nothing.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Sequence, Sized
from datetime import timedelta
from os import PathLike
from typing import Any, TypeVar

import ignite.distributed as idist
import ignite.handlers
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import MLFlowHandler, StatsHandler, TensorBoardHandler
from monai.metrics import CumulativeIterationMetric
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler
from torch.utils.tensorboard import SummaryWriter

from mri_seg.options import flag

__all__ = [
    "AverageBuffers",
    "CaseSampler",
    "ShareEvaluator",
    "agreed",
    "end",
    "first_to_fail",
    "gathered",
    "handlers",
    "highest",
    "is_first",
    "local_device",
    "parallel",
    "rank",
    "same_network",
    "share",
    "start",
    "sum_up",
    "summary_writer",
    "world_size",
]

T = TypeVar("T")

_TELLING = (StatsHandler, TensorBoardHandler, MLFlowHandler, ignite.handlers.ProgressBar)
_PATIENCE = timedelta(days=1)  # for a process with nothing left to do, until the others are done

_control: Any = None
"""Group for decisions and results: over the network of the CPUs, so that no GPU has to wait for them."""


def start(device: str | torch.device) -> None:
    """Join the processes that torchrun started; without torchrun, or with one process, do nothing.

    They talk by NCCL where ``device`` is a GPU, by gloo where it is not. All but the first log warnings only.

    Args:
        device: where this process computes.
    """
    global _control
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    idist.sync()  # it talks to the others when it is first used, so all have to use it at once
    if not is_first():
        logging.getLogger().setLevel(logging.WARNING)


def end() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device() -> torch.device:
    """The device of this process: a GPU each, or the CPU for all.

    Raises:
        ValueError: when the machine has GPUs, but fewer than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise ValueError(f"--nproc_per_node: expected at most {count}, the GPUs of this machine. Or add --device cpu.")
    return torch.device("cuda", place)


def rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return rank() == 0


def first_to_fail() -> bool:
    """Whether this process should show its error: the first that fails does, as the others fail because of it."""
    if world_size() == 1:
        return os.environ.get("RANK", "0") == "0"  # before they have joined, all fail alike
    try:
        return dist.distributed_c10d._get_default_store().add("mri_seg/failed", 1) == 1
    except RuntimeError:  # the first process kept count, has failed and told, and is gone; with torchrun, torchrun does
        return is_first()


def agreed(value: T) -> T:
    """The first process's value, on all processes. Every process must call it."""
    if world_size() == 1:
        return value
    values = [value if is_first() else None]
    dist.broadcast_object_list(values, src=0, group=_control)
    return values[0]


def gathered(value: T) -> list[T]:
    """The values of all processes in order, on all processes. Every process must call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def highest(number: int) -> int:
    """The highest number of all processes. Every process must call it."""
    if world_size() == 1:
        return number
    numbers = torch.tensor([number])
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_control)
    return int(numbers)


def sum_up(counts: torch.Tensor) -> torch.Tensor:
    """Sum of the counts of all processes, on the CPU. Every process must call it."""
    counts = counts.cpu().clone()
    if world_size() > 1:
        dist.all_reduce(counts, group=_control)
    return counts


def share(number: int, rank: int, world_size: int) -> range:
    """Places of the cases that a process takes: each once, in one piece, so that results put together are in order.

    Args:
        number: number of cases.
        rank: number of the process, from 0.
        world_size: number of processes.

    Example::

        >>> [list(share(5, rank, 3)) for rank in range(3)]
        [[0], [1, 2], [3, 4]]
    """
    return range(number * rank // world_size, number * (rank + 1) // world_size)


class CaseSampler(Sampler):
    """Places of the cases of a data set that this process takes: see :py:func:`share`.

    MONAI's ``DistributedSampler`` repeats cases to make the shares equal, or deals them out like cards; this one keeps
    their order.

    Args:
        dataset: the cases.
    """

    def __init__(self, dataset: Sized) -> None:
        self.places = share(len(dataset), rank(), world_size())

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        """Places in the data set."""
        return iter(self.places)


class ShareEvaluator(SupervisedEvaluator):
    """MONAI's evaluator of a share of the cases, whose metrics are those of all cases on every process.

    MONAI gathers metrics as well, but waits for ever where a process has no case.

    Args:
        args: arguments of MONAI's ``SupervisedEvaluator``.
        kwargs: further ones.
    """

    def run(self, global_epoch: int = 1) -> None:
        """Evaluate; where there is no case, take part in what the others do at the end."""
        if self.state.epoch_length != 0:
            super().run(global_epoch)
            return
        self.state.max_epochs = self.state.epoch = max(global_epoch, 1)
        for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
            self.fire_event(event)

    def _register_metrics(self, k_metric: dict, add_metrics: dict | None = None) -> None:
        @self.on(Events.EPOCH_COMPLETED)  # before the metrics themselves
        def _gather() -> None:
            for handler in {**k_metric, **(add_metrics or {})}.values():
                _gather_scores(handler.metric_fn)

        super()._register_metrics(k_metric, add_metrics)


def _gather_scores(metric: CumulativeIterationMetric) -> None:
    """Put the scores of all processes in place of what MONAI's ``Cumulative`` would gather."""
    shares = [share for share in gathered(metric._buffers) if share is not None]
    if shares:
        metric._synced_tensors = [torch.stack([score for part in parts for score in part]) for parts in zip(*shares)]
        metric._synced = True


class AverageBuffers:
    """Handler that averages the network's buffers, such as batch normalisation's, over the processes after every step.

    So they rest on the slices of all processes, and the network is the same on each.

    Args:
        network: the network.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if world_size() > 1:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)  # which still needs them

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Average."""
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(together)
        together /= world_size()
        for buffer, mean in zip(buffers, together.split([buffer.numel() for buffer in buffers])):
            buffer.copy_(mean.view_as(buffer))


def same_network(network: torch.nn.Module, sync_batchnorm: bool | str = False) -> torch.nn.Module:
    """Give the network the first process's weights, on all processes.

    Args:
        network: the network, on its device.
        sync_batchnorm: whether batch normalisation uses the slices of all processes; on GPUs only.

    Raises:
        ValueError: when ``sync_batchnorm`` is asked for on CPUs.
    """
    if world_size() == 1:
        return network
    if flag(sync_batchnorm, "sync_batchnorm"):
        if next(network.parameters()).device.type != "cuda":
            raise ValueError("--sync_batchnorm: PyTorch has it on GPUs only. Leave it out on CPUs.")
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    weights = {name: value.cpu() for name, value in network.state_dict().items()} if is_first() else {}
    network.load_state_dict(agreed(weights))
    return network


def parallel(network: torch.nn.Module) -> torch.nn.Module:
    """The network as the trainer calls it, so that gradients are averaged over the processes.

    Everything else takes the network itself: the optimizer, the average of its weights, checkpoints. Buffers are the
    task of :py:class:`AverageBuffers`.
    """
    if world_size() == 1:
        return network
    device = next(network.parameters()).device
    names = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # torch before 2.13
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None, **{name: False})


def handlers(handlers: Sequence[Any]) -> list[Any]:
    """Those of a list of handlers that belong on this process: on all but the first, none that only tell or draw.

    A handler that tells, but needs every process, says so by an attribute ``on_every_process``.
    """
    return [
        handler
        for handler in handlers
        if is_first() or getattr(handler, "on_every_process", False) or not isinstance(handler, _TELLING)
    ]


def summary_writer(log_dir: PathLike | str) -> Any:
    """A ``SummaryWriter`` on the first process; on the others one that writes nothing."""
    return SummaryWriter(log_dir=str(log_dir)) if is_first() else _Silent()


class _Silent:
    """Takes any call, to any depth."""

    def __getattr__(self, name: str) -> _Silent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Silent:
        return self
