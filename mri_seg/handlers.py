"""Handlers of MONAI's engines that MONAI and ignite do not have in a form a JSON config can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ignite.handlers
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

__all__ = ["GradientClip", "OnEvent", "ProgressBar"]


_BAR = "{desc}[{n_fmt}/{total_fmt}] {percentage:3.0f}%|{bar}{postfix} [{elapsed}<{remaining}, {rate_fmt}]"


class OnEvent:
    """Attach a function or an ignite handler that has no ``attach`` of its own to an event.

    Args:
        event: name of an event of ignite's ``Events`` or MONAI's ``IterationEvents``, such as ``ITERATION_COMPLETED``.
        handler: called with the engine when the event fires.

    Raises:
        ValueError: when there is no such event.
    """

    def __init__(self, event: str, handler: Callable[[Engine], Any]) -> None:
        events = {**Events.__members__, **IterationEvents.__members__}
        if event not in events:
            raise ValueError(f"event must be one of {', '.join(events)}, got {event!r}.")
        self.event = events[event]
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Attach the handler to an engine."""
        engine.add_event_handler(self.event, self.handler)


class GradientClip:
    """Scale gradients down to a largest norm before every optimizer step.

    Args:
        network: the network whose gradients are clipped.
        max_norm: largest 2-norm of all gradients together.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class ProgressBar(ignite.handlers.ProgressBar):
    """ignite's progress bar, with the loss beside the speed in iterations.

    Args:
        kwargs: arguments of ignite's ``ProgressBar``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"persist": True, "bar_format": _BAR, **kwargs})

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Attach to a trainer."""
        every = Events.ITERATION_COMPLETED(every=10)  # a log file should not fill with a line a step
        super().attach(engine, output_transform=_loss, event_name=every)


def _loss(output: dict | list[dict]) -> dict[str, torch.Tensor]:
    """Loss of an iteration, whose output MONAI's trainer takes apart by default."""
    return {"loss": (output[0] if isinstance(output, list) else output)["loss"]}
