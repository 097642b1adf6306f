"""Commands run in this process."""

from __future__ import annotations

from typing import NamedTuple

from click.testing import CliRunner

from mri_seg.cli.config_command import Given
from mri_seg.cli.main import cli

SMALL = ("--network_def#channels", "[2,4]", "--tta_flip", "false", "--amp", "false")
"""Options that make inference quick."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def command(*words: object) -> Ended:
    ended = CliRunner().invoke(cli, [str(word) for word in words], prog_name="mri-seg")
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


class Caught:
    """Takes what a command would run."""

    def __init__(self) -> None:
        self.given: list[Given] = []

    def __call__(self, given: Given) -> int:
        self.given.append(given)
        return 0
