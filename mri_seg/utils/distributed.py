"""Rank of this process, and communication between the processes of a distributed run."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any, TypeVar

import ignite.distributed as idist
import ignite.handlers
import torch
import torch.distributed as dist
from monai.handlers import MLFlowHandler, StatsHandler, TensorBoardHandler

from mri_seg.utils.compat import first_to_count

__all__ = [
    "LOGGING_HANDLERS",
    "all_gather_object",
    "all_reduce_max",
    "all_reduce_sum",
    "broadcast_object",
    "cleanup",
    "first_to_fail",
    "init_distributed",
    "is_main_process",
    "local_device",
    "print_on_main_process",
    "rank",
    "world_size",
]


T = TypeVar("T")


LOGGING_HANDLERS = (StatsHandler, TensorBoardHandler, MLFlowHandler, ignite.handlers.ProgressBar)
"""Handlers that only log or draw, so that rank 0 alone needs them."""


_TIMEOUT = timedelta(days=1)  # how long a process without work waits for the others


_control: Any = None
"""Process group for decisions and results; it uses gloo, so that no GPU has to wait for it."""


def init_distributed(device: str | torch.device) -> None:
    """Initialize the process group of the processes that torchrun started; with a single process, do nothing.

    The backend is NCCL if ``device`` is a GPU, otherwise gloo. All ranks except 0 log only warnings.

    Args:
        device: the device of this process.
    """
    global _control
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    idist.sync()  # ignite communicates when it is first used, so all processes must first use it together
    if not is_main_process():
        logging.getLogger().setLevel(logging.WARNING)


def cleanup() -> None:
    """Destroy the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device() -> torch.device:
    """The device of this process: one GPU per process, or the CPU for all.

    Raises:
        ValueError: when the machine has GPUs, but fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise ValueError(
            f"--nproc_per_node: expected at most {count}, the number of GPUs of this machine. Or add --device cpu."
        )
    return torch.device("cuda", place)


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is rank 0, which writes files and logs."""
    return rank() == 0


def print_on_main_process(*values: object) -> None:
    """Print values like ``print``, but only on rank 0."""
    if is_main_process():
        print(*values)


def first_to_fail() -> bool:
    """Whether this process should show its error: the first process to fail does, since it makes the others fail."""
    if world_size() == 1:
        return os.environ.get("RANK", "0") == "0"  # before the group is initialized, all fail with the same error
    try:
        return first_to_count("mri_seg/failed")
    except RuntimeError:  # rank 0 held the store, showed its error and is gone; under torchrun, torchrun holds it
        return is_main_process()


def broadcast_object(value: T | None) -> T:
    """The first process's value, on all processes. Every process must call it; what the others give does not matter."""
    values: list[Any] = [value if is_main_process() else None]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0, group=_control)
    return values[0]


def all_gather_object(value: T) -> list[T]:
    """Return the values of all processes, in order of rank, on all processes. Every process must call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def all_reduce_max(number: int) -> int:
    """Return the maximum over all processes. Every process must call it."""
    if world_size() == 1:
        return number
    numbers = torch.tensor([number])
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_control)
    return int(numbers)


def all_reduce_sum(counts: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes, on the CPU. Every process must call it."""
    counts = counts.cpu().clone()
    if world_size() > 1:
        dist.all_reduce(counts, group=_control)
    return counts
