"""Write synthetic cases: ``python -m mri_seg.datasets.phantom DIR --patients N --seed S``."""

from __future__ import annotations

import argparse
import logging
import sys

from mri_seg.datasets.phantom import make_phantom


def main(arguments: list[str] | None = None, prog: str = "python -m mri_seg.datasets.phantom") -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write synthetic FLAIR cases with tumours in the folder structure of the TCGA-LGG data set, with "
        "split.json. They are for trying out and testing software; they are not patients.",
    )
    parser.add_argument("dir", metavar="DIR", help="folder to write to; created if missing")
    parser.add_argument("--patients", type=int, default=12, help="number of patients (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files (default: %(default)s)")
    parser.add_argument("--slices", type=int, help="slices of each patient (default: 24 to 30, drawn for each)")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="overwrite the files of an earlier run in DIR")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dest = options.pop("dir")
    try:
        folders = make_phantom(dest, **options)
    except (FileExistsError, FileNotFoundError, ImportError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    cases = "1 synthetic case" if len(folders) == 1 else f"{len(folders)} synthetic cases"
    print(f"{cases} (invented, not patients) and split.json are in {dest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
