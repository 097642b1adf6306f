"""Distributed training and evaluation: split cases over ranks, synchronize weights, average buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from os import PathLike
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.metrics import CumulativeIterationMetric
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler
from torch.utils.tensorboard import SummaryWriter

from mri_seg.utils.compat import Evaluator, gathered_scores, local_scores, unsynced_buffers
from mri_seg.utils.distributed import (
    LOGGING_HANDLERS,
    all_gather_object,
    broadcast_object,
    is_main_process,
    rank,
    world_size,
)
from mri_seg.utils.flags import flag

__all__ = [
    "AverageBuffers",
    "ContiguousDistributedSampler",
    "DistributedEvaluator",
    "partition",
    "rank_handlers",
    "rank_summary_writer",
    "sync_weights",
    "wrap_ddp",
]


def partition(number: int, rank: int, world_size: int) -> range:
    """Indices of the cases that a rank takes: a contiguous range, so that concatenated results are in order.

    Args:
        number: number of cases.
        rank: rank of the process, from 0.
        world_size: number of processes.

    Example::

        >>> [list(partition(5, rank, 3)) for rank in range(3)]
        [[0], [1, 2], [3, 4]]
    """
    return range(number * rank // world_size, number * (rank + 1) // world_size)


class ContiguousDistributedSampler(Sampler):
    """Places of the cases of a data set that this process takes: see :py:func:`partition`.

    MONAI's ``DistributedSampler`` repeats or drops cases to make the parts equal, and interleaves them; this one keeps
    every case once, and their order.

    Args:
        dataset: the cases.
    """

    def __init__(self, dataset: Sized) -> None:
        self.indices = partition(len(dataset), rank(), world_size())

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        """Indices in the data set."""
        return iter(self.indices)


class DistributedEvaluator(Evaluator):
    """MONAI's evaluator for a part of the cases; on every process, its metrics cover the cases of all processes.

    MONAI also gathers metrics, but hangs if a process has no case.

    Args:
        args: arguments of MONAI's ``SupervisedEvaluator``.
        kwargs: keyword arguments of MONAI's ``SupervisedEvaluator``.
    """

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]  # MONAI's evaluators take this, not data
        """Evaluate; a process without cases only takes part in what all processes do at the end."""
        if self.state.epoch_length != 0:
            super().run(global_epoch)
            return
        self.state.max_epochs = self.state.epoch = max(global_epoch, 1)
        for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
            self.fire_event(event)

    def before_metrics(self, metrics: Sequence[Any]) -> None:
        """Gather what the metrics have counted."""
        for handler in metrics:
            _gather_scores(handler.metric_fn)


def _gather_scores(metric: CumulativeIterationMetric) -> None:
    """Give a metric the scores of all processes, instead of letting MONAI's ``Cumulative`` gather them."""
    gathered = [scores for scores in all_gather_object(local_scores(metric)) if scores is not None]
    if gathered:
        gathered_scores(metric, [torch.stack([score for part in parts for score in part]) for parts in zip(*gathered)])


class AverageBuffers:
    """Handler that averages the network's buffers over the processes in every step.

    Buffers such as the statistics of batch normalization then depend on the slices of all processes, and the network is
    the same on each.

    Args:
        network: the network.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if world_size() > 1:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)  # the backward pass still needs them

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Average the buffers."""
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        joined = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(joined)
        joined /= world_size()
        for buffer, mean in zip(buffers, joined.split([buffer.numel() for buffer in buffers])):
            buffer.copy_(mean.view_as(buffer))


def sync_weights(network: torch.nn.Module, sync_batchnorm: bool | str = False) -> torch.nn.Module:
    """Copy the weights of rank 0 to the networks of all processes.

    Args:
        network: the network, on its device.
        sync_batchnorm: whether batch normalization uses the slices of all processes; on GPUs only.

    Raises:
        ValueError: when ``sync_batchnorm`` is true and the network is on a CPU.
    """
    if world_size() == 1:
        return network
    if flag(sync_batchnorm, "sync_batchnorm"):
        if next(network.parameters()).device.type != "cuda":
            raise ValueError("--sync_batchnorm: PyTorch supports it only on GPUs. Leave it out on CPUs.")
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    weights = {name: value.cpu() for name, value in network.state_dict().items()} if is_main_process() else {}
    network.load_state_dict(broadcast_object(weights))
    return network


def wrap_ddp(network: torch.nn.Module) -> torch.nn.Module:
    """Wrap the network in ``DistributedDataParallel`` for the trainer, so that gradients are averaged over processes.

    Everything else uses the network itself: the optimizer, the average of its weights, and checkpoints.
    :py:class:`AverageBuffers` averages the buffers.
    """
    if world_size() == 1:
        return network
    device = next(network.parameters()).device
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, **unsynced_buffers())


def rank_handlers(handlers: Sequence[Any]) -> list[Any]:
    """Select the handlers for this rank: all on rank 0; elsewhere all but those that only log or draw.

    A logging handler that must run on every rank has an attribute ``on_every_process`` that is true.
    """
    return [
        handler
        for handler in handlers
        if is_main_process() or getattr(handler, "on_every_process", False) or not isinstance(handler, LOGGING_HANDLERS)
    ]


def rank_summary_writer(log_dir: PathLike | str) -> Any:
    """A ``SummaryWriter`` on rank 0, and one that writes nothing on the other ranks."""
    return SummaryWriter(log_dir=str(log_dir)) if is_main_process() else NullSummaryWriter()


class NullSummaryWriter:
    """Summary writer that accepts every call and writes nothing."""

    def __getattr__(self, name: str) -> NullSummaryWriter:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> NullSummaryWriter:
        return self
