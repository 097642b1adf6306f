"""Export the bundle to a folder for others: ``python -m mri_seg.export DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from mri_seg.export.folder import FORMATS, export_bundle
from mri_seg.utils.bundle_folder import bundle_folder
from mri_seg.utils.messages import reason


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mri_seg.export") -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Export the bundle to a folder for others: weights, TorchScript or ONNX, model card, metadata, "
        "configs, license and SHA256SUMS of all weights. The exported networks are compared with the original.",
    )
    parser.add_argument("output_dir", metavar="DIR", help="the folder to write, new or empty")
    parser.add_argument("--bundle_root", metavar="DIR", help="the bundle (default: that of the package)")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights (default: models/model.pt of the bundle)")
    parser.add_argument(
        "--formats", default="ts", help=f"one or more of {', '.join(FORMATS)}, comma-separated (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    formats = [name.strip() for name in options.formats.split(",") if name.strip()]
    logging.getLogger("monai.bundle.scripts").setLevel(logging.WARNING)  # it logs the arguments of each export
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that PyTorch has newer exporters
            folder = export_bundle(
                options.bundle_root or bundle_folder(),
                options.output_dir,
                checkpoint=options.checkpoint,
                formats=formats,
            )
    except (ImportError, OSError, ValueError) as error:
        print(f"{prog}: {reason(error)}", file=sys.stderr)
        return 1
    for file in sorted((folder / "models").iterdir()):
        print(file)
    print(f"The bundle is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
