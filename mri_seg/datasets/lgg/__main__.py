"""Command line of the TCGA-LGG data set: ``python -m mri_seg.datasets.lgg fetch DIR`` and ``... check DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from mri_seg.utils.messages import reason

from .check import check
from .fetch import fetch


def main(argv: Sequence[str] | None = None, prog: str = "python -m mri_seg.datasets.lgg") -> int:
    """Run the command line and return its exit status: 0, or 1 after an error or when defects were found."""
    arguments = _parser(prog).parse_args(argv)
    try:
        if arguments.command == "fetch":
            added = fetch(arguments.dir)
            print(f"{len(added)} patients added to {arguments.dir}")
        return _check(arguments.dir)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1


def _check(dataset_dir: str) -> int:
    # Silence what tifffile logs about damaged files, since the report names each as a defect.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    report = check(dataset_dir)
    print(*report.lines(), sep="\n")
    return 1 if report.defects else 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="The TCGA-LGG data set.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("fetch", "download the data set from Kaggle into a folder, then check it"),
        ("check", "count patients and slices in a folder and report every defect; exit status 1 if there are any"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("dir", metavar="DIR", help="folder that holds the patient folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
