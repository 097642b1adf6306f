"""The command line in processes of its own that may be killed: forks of one that has imported everything, once."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from command_line import ROOT

CONFIGS = ROOT / "bundle" / "configs"

_context = get_context(None if os.name == "nt" else "forkserver")
if os.name != "nt":
    _context.set_forkserver_preload(
        [
            "monai.bundle",
            "torch.utils.tensorboard",
            "mri_seg.training.tensorboard",
            "mri_seg.report",
            "mri_seg.inference.outputs",
        ]
    )


class Forked:
    """``python -m monai.bundle run``, started from the repository, on one thread.

    Args:
        log: file of what it prints and logs.
        run_id: what to run.
        configs: names of config files of the bundle.
        environment: variables of its own.
        prepare: called in the process before anything else; it must be picklable.
        options: keys of the configs.
    """

    def __init__(
        self,
        log: Path,
        run_id: str,
        *configs: str,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
        **options: object,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        self.process = _context.Process(target=_run, args=(log, run_id, configs, environment or {}, prepare, options))
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        """Exit status; minus the signal if one has killed it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def wait_for(self, file: Path, seconds: float = 300) -> None:
        """Wait until the process has written a file."""
        end = time.monotonic() + seconds
        while not file.exists():
            assert self.process.is_alive(), self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.01)

    def text(self) -> str:
        """The end of what it has printed and logged so far."""
        return self.log.read_text(encoding="utf-8")[-5000:] if self.log.exists() else ""


def pause_in_second_epoch(go_on: Path) -> Callable[[], None]:
    """For ``prepare``: training waits for a file when it begins its second epoch, so that a signal finds it there."""
    return partial(_pause_in_second_epoch, go_on)


def _pause_in_second_epoch(go_on: Path) -> None:
    from ignite.engine import Events
    from monai.engines import SupervisedTrainer

    def wait() -> None:
        while not go_on.exists():
            time.sleep(0.01)

    run = SupervisedTrainer.run

    def run_with_pause(trainer: SupervisedTrainer) -> None:
        trainer.add_event_handler(Events.EPOCH_STARTED(once=2), wait)
        run(trainer)

    SupervisedTrainer.run = run_with_pause


def _run(
    log: Path,
    run_id: str,
    configs: tuple[str, ...],
    environment: Mapping[str, str],
    prepare: Callable[[], None] | None,
    options: Mapping[str, object],
) -> None:
    stream = log.open("w", encoding="utf-8")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    os.chdir(ROOT)
    os.environ |= environment
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    sys.argv = ["monai.bundle", "run", run_id, "--config_file", str([str(CONFIGS / name) for name in configs]), *words]
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
