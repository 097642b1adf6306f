"""Write the report of an evaluation: ``python -m mri_seg.report FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mri_seg.report.document import write_report


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mri_seg.report") -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write the report of an evaluation as one HTML file that opens without a network connection.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="folder of an evaluation, or of a run that contains exactly one",
    )
    parser.add_argument(
        "--compare", metavar="OTHER", help="folder of another evaluation of the same patients, to compare with"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="the HTML file to write (default: report.html in the evaluation's folder)"
    )
    parser.add_argument(
        "--largest_megabytes",
        metavar="MB",
        type=float,
        default=25,
        help="maximum size of the file; viewers are left out to stay below it (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        file = write_report(
            options.folder, options.output, other=options.compare, largest_megabytes=options.largest_megabytes
        )
    except (ImportError, OSError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    print(f"The report is {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
