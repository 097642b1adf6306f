"""Rank of this process, and what processes tell one another."""

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


_TELLING = (StatsHandler, TensorBoardHandler, MLFlowHandler, ignite.handlers.ProgressBar)


_PATIENCE = timedelta(days=1)  # for a process with nothing left to do, until the others are done


_control: Any = None
"""Group for decisions and results: over the network of the CPUs, so that no GPU has to wait for them."""


def init_distributed(device: str | torch.device) -> None:
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
    if not is_main_process():
        logging.getLogger().setLevel(logging.WARNING)


def cleanup() -> None:
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


def is_main_process() -> bool:
    """Whether this process is the one that writes and tells."""
    return rank() == 0


def print_on_main_process(*values: object) -> None:
    """Print values as ``print`` does, on one of the processes alone."""
    if is_main_process():
        print(*values)


def first_to_fail() -> bool:
    """Whether this process should show its error: the first that fails does, as the others fail because of it."""
    if world_size() == 1:
        return os.environ.get("RANK", "0") == "0"  # before they have joined, all fail alike
    try:
        return first_to_count("mri_seg/failed")
    except RuntimeError:  # the first process kept count, has failed and told, and is gone; with torchrun, torchrun does
        return is_main_process()


def broadcast_object(value: T | None) -> T:
    """The first process's value, on all processes. Every process must call it; what the others give does not matter."""
    values: list[Any] = [value if is_main_process() else None]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0, group=_control)
    return values[0]


def all_gather_object(value: T) -> list[T]:
    """The values of all processes in order, on all processes. Every process must call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def all_reduce_max(number: int) -> int:
    """The highest number of all processes. Every process must call it."""
    if world_size() == 1:
        return number
    numbers = torch.tensor([number])
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_control)
    return int(numbers)


def all_reduce_sum(counts: torch.Tensor) -> torch.Tensor:
    """Sum of the counts of all processes, on the CPU. Every process must call it."""
    counts = counts.cpu().clone()
    if world_size() > 1:
        dist.all_reduce(counts, group=_control)
    return counts
