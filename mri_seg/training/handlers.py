"""Handlers that MONAI and ignite do not have in a form that a JSON config can use."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

import ignite.handlers
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mri_seg.utils.compat import Averager, momentum_schedule, state_of

__all__ = ["GradientClip", "ProgressBar", "RaiseErrors", "StopOnBadLoss", "WeightAveraging"]


_BAR = "{desc}[{n_fmt}/{total_fmt}] {percentage:3.0f}%|{bar}{postfix} [{elapsed}<{remaining}, {rate_fmt}]"


class GradientClip:
    """Clip the gradients to a maximum norm before every optimizer step.

    Args:
        network: the network whose gradients are clipped.
        max_norm: maximum 2-norm of all gradients together.
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


class StopOnBadLoss:
    """Stop training if the loss is not finite or explodes, with an error that names the slices and what to try.

    Args:
        dataset: the training data, with a method ``describe(index)`` that names the file of a slice.
        factor: the loss explodes if it is above this multiple of the median of the last losses; None for no such limit.
        window: number of last losses.
        largest: losses up to this value never count as exploding.
    """

    def __init__(
        self, dataset: Any = None, *, factor: float | None = 100.0, window: int = 200, largest: float = 10.0
    ) -> None:
        self.dataset = dataset
        self.factor = factor
        self.largest = largest
        self._last: deque[float] = deque(maxlen=window)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of the step, before the weights change.

        Raises:
            ValueError: when the loss is not finite, or explodes.
        """
        loss = float(state_of(engine).output["loss"].detach())
        usual = statistics.median(self._last) if self._last else math.inf
        self._last.append(loss)
        explodes = self.factor is not None and loss > max(self.factor * usual, self.largest)
        if math.isfinite(loss) and not explodes:
            return
        batch = state_of(engine).batch
        names = [self.dataset.describe(int(n)) for n in batch["index"]] if self.dataset and "index" in batch else []
        raise ValueError(
            f"step {engine.state.iteration}: the loss is {loss:g}"
            + (f", usually {usual:g}" if math.isfinite(usual) else "")
            + ". Try a lower learning_rate, a lower max_grad_norm or --amp false, or check the slices of the batch: "
            + (", ".join(names) or "not known")
        )


class RaiseErrors:
    """Raise errors again unchanged; attach it before MONAI's ``StatsHandler``, which would also log the traceback."""

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: Exception) -> None:
        """Raise the error again."""
        raise error


class ProgressBar(ignite.handlers.ProgressBar):
    """ignite's progress bar, with the loss beside the speed in iterations.

    Args:
        kwargs: arguments of ignite's ``ProgressBar``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"persist": True, "bar_format": _BAR, **kwargs})

    def attach(self, engine: Engine) -> None:  # type: ignore[override]  # configs attach handlers without arguments
        """Attach to a trainer."""
        every = Events.ITERATION_COMPLETED(every=10)  # one line per step would fill a log file
        super().attach(engine, output_transform=_loss, event_name=every)


class WeightAveraging(Averager):
    """ignite's ``EMAHandler``, but whenever training starts, the average restarts from the network's current weights.

    In federated learning, the weights that arrive differ from those that were averaged. A resumed run loads its average
    afterwards. All weights are averaged by one call, since one call per weight takes several times as long.
    """

    def attach(self, engine: Engine, **kwargs: Any) -> None:  # type: ignore[override]  # ignite's own, by name
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self._begin)
        super().attach(engine, **kwargs)

    def _begin(self) -> None:
        self.ema_model.load_state_dict(self.model.state_dict())
        momentum_schedule(self).event_index = 0
        models = ([*model.parameters(), *model.buffers()] for model in (self.ema_model, self.model))
        self._pairs = list(zip(*models))

    def update(self, engine: Engine, name: str) -> None:
        """Move the average on by a step."""
        if self.handle_buffers != "update":
            super().update(engine, name)
            return
        averages, latest = zip(*(pair for pair in self._pairs if pair[0].is_floating_point()))
        get_ema_multi_avg_fn(1 - getattr(engine.state, name))(averages, latest, None)
        for average, value in self._pairs:
            if not average.is_floating_point():  # counters
                average.copy_(value)


def _loss(output: dict | list[dict]) -> dict[str, torch.Tensor]:
    """Loss of an iteration; MONAI's trainer splits its output into a list by default."""
    return {"loss": (output[0] if isinstance(output, list) else output)["loss"]}
