"""Print where the bundle lies: ``python -m mri_seg.bundle``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mri_seg.utils.bundle_folder import bundle_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mri_seg.bundle",
        description="Print the folder of the bundle (configs, weights, card): for --bundle_root and --config_file "
        "of python -m monai.bundle, and to copy it, if you want to change it.",
    )
    parser.parse_args(arguments)
    try:
        print(bundle_folder())
    except FileNotFoundError as error:
        print(f"python -m mri_seg.bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
