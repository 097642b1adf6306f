"""Show how far a workflow has come: a bar over its cases on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple
from tqdm import tqdm

from mri_seg.utils.compat import state_of
from mri_seg.utils.distributed import is_main_process

__all__ = ["CaseBar", "CaseLines", "show_cases"]

logger = logging.getLogger(__name__)

_FORMAT = "{n_fmt}/{total_fmt} |{bar:30}| {remaining} left  {desc}"


class CaseBar:
    """Handler that shows a bar over cases: how many are done, the time left, and the case that is in work.

    Args:
        total: number of cases.
        done: number of cases that are done so far; by default it counts iterations.
        options: arguments of ``tqdm``.
    """

    def __init__(self, total: int, done: Callable[[], int] | None = None, **options: Any) -> None:
        self.bar = tqdm(total=total, bar_format=_FORMAT, **{"disable": False, "leave": False, **options})
        self.done = done

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._name)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def _name(self, engine: Engine) -> None:
        self.bar.set_description_str(_case_of(engine))

    def _count(self, engine: Engine) -> None:
        self.bar.update((self.done() if self.done else engine.state.iteration) - self.bar.n)

    def close(self) -> None:
        """Wipe the bar away."""
        self.bar.close()


class CaseLines:
    """Handler that logs a line for each case that is done, for evaluators whose handlers do not.

    Args:
        total: number of cases.
    """

    def __init__(self, total: int) -> None:
        self.total = total

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._log)

    def _log(self, engine: Engine) -> None:
        logger.info("%s: done, %d of %d", _case_of(engine), engine.state.iteration, self.total)


def _case_of(engine: Engine) -> str:
    """Name of the case in work; its batch is a list of one case after the iteration."""
    batch = state_of(engine).batch
    image = (batch[0] if isinstance(batch, list) else batch)["image"]
    return str(ensure_tuple(image.meta["case"])[0])


def show_cases(workflow: ConfigWorkflow) -> CaseBar | None:
    """Show how far a workflow that segments or evaluates has come: a bar if stderr is a terminal, else lines.

    Args:
        workflow: the workflow, initialized.

    Returns:
        the bar, to be closed after an error too; None if there is none. (A handler for errors would keep ignite from
        raising them.)
    """
    parser = workflow.parser
    has_terminal = sys.stderr.isatty()
    bar = None
    if not is_main_process():
        return None
    if "writer" in parser and has_terminal:  # elsewhere, the writer logs a line for each case
        dataset, writer = (parser.get_parsed_content(name) for name in ("dataset", "writer"))
        before = len(writer.rows)  # kept, or failed already
        if dataset.data:
            bar = CaseBar(len(dataset.data), lambda: len(writer.rows) - before)
            bar.attach(parser.get_parsed_content("evaluator"))
    elif "evaluation" in parser:
        total = len(parser.get_parsed_content("validate#dataset"))
        evaluator = parser.get_parsed_content("validate#evaluator")
        if has_terminal:
            bar = CaseBar(total)
            bar.attach(evaluator)
        else:
            CaseLines(total).attach(evaluator)
    return bar
