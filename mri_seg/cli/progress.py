"""A bar over the cases of a workflow, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple
from tqdm import tqdm

from mri_seg.utils.compat import state_of
from mri_seg.utils.distributed import is_main_process

__all__ = ["CaseBar", "show_cases"]

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
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE | Events.EXCEPTION_RAISED, self._close)

    def _name(self, engine: Engine) -> None:
        image = state_of(engine).batch["image"]
        self.bar.set_description_str(str(ensure_tuple(image.meta["case"])[0]))

    def _count(self, engine: Engine) -> None:
        self.bar.update((self.done() if self.done else engine.state.iteration) - self.bar.n)

    def _close(self, *_: Any) -> None:
        self.bar.close()


def show_cases(workflow: ConfigWorkflow) -> None:
    """Show a bar over the cases of a workflow that segments or evaluates, if stderr is a terminal.

    Args:
        workflow: the workflow, initialized.
    """
    parser = workflow.parser
    if not sys.stderr.isatty() or not is_main_process():
        return
    if "writer" in parser:
        dataset, writer = (parser.get_parsed_content(name) for name in ("dataset", "writer"))
        kept = len(writer.rows)  # or failed already
        bar = CaseBar(len(dataset.data), lambda: len(writer.rows) - kept)
        bar.attach(parser.get_parsed_content("evaluator"))
    elif "evaluation" in parser:
        CaseBar(len(parser.get_parsed_content("validate#dataset"))).attach(
            parser.get_parsed_content("validate#evaluator")
        )
