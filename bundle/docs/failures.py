"""Draw the worst slice of each kind of error in an evaluation, as outlines without the patients' images.

python bundle/docs/failures.py runs/evaluation-validation bundle/docs/failures.png

reads what the evaluation kept for its report (`--report true`). The report itself shows the images too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import ndimage

from mri_seg.report.archive import ArchivedCase, load_case
from mri_seg.report.error_analysis import KINDS, classify
from mri_seg.visualize.overlays import finite_percentiles

HEAD, REFERENCE, PREDICTION, ERROR = "0.75", "#0072b2", "#d55e00", "#f0e442"
FOREGROUND = 0.12  # brighter than this share of the volume's range is head, as in the preprocessing


def worst_slices(folder: Path) -> dict[str, tuple[int, str, int]]:
    """Find for each kind the slice with the most pixels of it: how many, the case, the slice; each case once."""
    found: dict[str, list[tuple[int, str, int]]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("cases/*.npz")):
        kinds = classify(load_case(path))
        for number, kind in enumerate(KINDS, start=1):
            pixels = (kinds == number).sum(axis=(0, 1))
            found[kind].append((int(pixels.max()), path.stem, int(pixels.argmax())))
    chosen: dict[str, tuple[int, str, int]] = {}
    for kind in sorted(KINDS, key=lambda kind: max(found[kind])):  # the rarest kinds choose first
        taken = {case for _, case, _ in chosen.values()}
        worst = max((slice_ for slice_ in found[kind] if slice_[1] not in taken), default=(0, "", 0))
        if worst[0]:
            chosen[kind] = worst
    return {kind: chosen[kind] for kind in KINDS if kind in chosen}


def draw(axes: Axes, case: ArchivedCase, index: int, kind: str) -> None:
    """Draw the outlines of a slice, rows towards posterior, and fill its errors of one kind."""
    errors = classify(case)[:, :, index] == list(KINDS).index(kind) + 1
    fill = np.ma.masked_where(~errors, np.ones(errors.shape))
    axes.imshow(fill, cmap=plt.matplotlib.colors.ListedColormap([ERROR]), interpolation="nearest")
    low, high = finite_percentiles(case.image, (0.5, 99.5))
    bright = case.image[:, :, index] > low + FOREGROUND * (high - low)
    head = ndimage.binary_fill_holes(ndimage.binary_closing(ndimage.binary_opening(bright, iterations=2), iterations=4))
    shapes = ((head, HEAD), (case.label[:, :, index], REFERENCE), (case.pred[:, :, index], PREDICTION))
    for mask, color in shapes:
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=color, linewidths=1.3)
    axes.set_aspect(case.spacing[0] / case.spacing[1])
    axes.axis("off")


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="output folder of an evaluation")
    parser.add_argument("output", type=Path, help="the picture")
    args = parser.parse_args()
    chosen = worst_slices(args.evaluation)
    if not chosen:
        parser.error(f"{args.evaluation}/cases: no errors of kept cases. Evaluate with --report true.")
    figure, panels = plt.subplots(1, len(chosen), figsize=(2.6 * len(chosen), 3.1), layout="constrained", squeeze=False)
    for axes, (kind, (pixels, name, index)) in zip(panels[0], chosen.items()):
        draw(axes, load_case(args.evaluation / "cases" / f"{name}.npz"), index, kind)
        patient = "_".join(name.split("_")[1:3])
        axes.set_title(f"{KINDS[kind]}\n{patient}, slice {index + 1}: {pixels} pixels", fontsize=8)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
