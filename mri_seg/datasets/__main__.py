"""Command line of data sets of any form: ``python -m mri_seg.datasets check DATASET``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mri_seg.datasets.check import CheckReport, check
from mri_seg.datasets.data_set import DataSet
from mri_seg.datasets.lgg.check import CheckReport as LGGReport
from mri_seg.datasets.lgg.check import check as check_lgg
from mri_seg.datasets.lgg.form import is_lgg
from mri_seg.utils.messages import reason
from mri_seg.utils.sequence_names import sequence_names

_SILENCED = ("tifffile", "mri_seg.utils.case_flags")  # what they log is listed as defects


def main(argv: Sequence[str] | None = None, prog: str = "python -m mri_seg.datasets") -> int:
    """Run the command line and return its exit status: 0, or 1 after an error or when defects were found."""
    arguments = _parser(prog).parse_args(argv)
    try:
        with _silence():
            report = _check(arguments)
        print(*report.lines(), sep="\n")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    return 1 if report.defects else 0


@contextmanager
def _silence() -> Iterator[None]:
    """Silence what the report lists as defects."""
    loggers = [logging.getLogger(name) for name in _SILENCED]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _check(arguments: argparse.Namespace) -> CheckReport | LGGReport:
    root = Path(arguments.dataset_dir)
    has_options = arguments != _parser("").parse_args(["check", arguments.dataset_dir])
    if not has_options and root.is_dir() and is_lgg(root):
        return check_lgg(root)  # a report of its own, which takes no options
    return check(
        DataSet(root, arguments.datalist),
        split=arguments.split,
        seed=arguments.seed,
        label_values=arguments.label_values,
        volume=arguments.volume,
        spacing=arguments.spacing,
        sequences=sequence_names(arguments.sequences),
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Data sets of any form.")
    text = "list the cases of a data set and report every defect; exit status 1 if there are any"
    command = parser.add_subparsers(dest="command", required=True).add_parser("check", help=text, description=text)
    command.add_argument("dataset_dir", metavar="DATASET", help="folder of the data set")
    command.add_argument("--datalist", metavar="FILE", help="JSON file that lists the cases")
    command.add_argument("--split", default="auto", help="as in training; patients must be in one section of it")
    command.add_argument("--seed", type=int, default=0, help="seed of a random split")
    command.add_argument("--label_values", type=_numbers(int), metavar="1,2,4", help="values that count as tumour")
    command.add_argument("--sequences", metavar="t1ce,t2", help="sequences that the network sees beside FLAIR")
    command.add_argument("--volume", type=int, help="which volume of a 4D file is FLAIR, counted from 0")
    command.add_argument("--spacing", type=_numbers(float), metavar="ROWS,COLUMNS,SLICES", help="of slices, in mm")
    return parser


def _numbers(kind: type) -> Callable[[str], list[Any]]:
    """Reader of numbers with commas between them, with or without brackets."""

    def numbers(text: str) -> list[Any]:
        return [kind(part) for part in text.strip("[]() ").split(",")]

    return numbers


if __name__ == "__main__":
    sys.exit(main())
