"""What a tumour gained, lost and kept, as a label map in the grid of the later scan."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from mri_seg.follow_up.registration import resample
from mri_seg.follow_up.timeline import Timeline, TimePoint
from mri_seg.utils.files import atomic_write

__all__ = ["GAINED", "LABELS", "LOST", "STABLE", "change_labels", "change_map", "write_change_map"]

STABLE, GAINED, LOST = 1, 2, 3
LABELS = {STABLE: "Stable", GAINED: "Gained", LOST: "Lost"}
"""Names of the labels."""


def change_map(timeline: Timeline) -> np.ndarray:
    """Compare the latest scan with the baseline of its epoch; see :py:func:`change_labels`.

    Args:
        timeline: a timeline with two scans at least in its last epoch; with one, all tumour is stable.
    """
    latest = timeline.points[-1]
    return change_labels(timeline.points[timeline.epoch(latest.epoch)[0]], latest)


def change_labels(earlier: TimePoint, later: TimePoint) -> np.ndarray:
    """Compare two scans in the later one's own grid.

    Only the earlier mask is resampled, so that stable and gained voxels together are exactly the later mask, except
    where the earlier scan shows nothing: these voxels count as neither.

    Args:
        earlier: the scan that is compared with.
        later: the scan whose grid is used.

    Returns:
        labels ``(H, W, D)``, uint8: 0, 1 stable, 2 gained, 3 lost.
    """
    now = np.asarray(later.scan.mask) > 0
    to_earlier = earlier.from_first @ np.linalg.inv(later.from_first)
    before, inside = resample(
        np.asarray(earlier.scan.mask, dtype=np.float32), earlier.scan.affine, to_earlier, now.shape, later.scan.affine
    )
    before = before >= 0.5
    labels = np.zeros(now.shape, dtype=np.uint8)
    labels[now & before] = STABLE
    labels[now & ~before & inside] = GAINED
    labels[before & ~now] = LOST
    return labels


def write_change_map(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    """Write a change map as NIfTI.

    Args:
        path: the file to write.
        labels: result of :py:func:`change_map`.
        affine: ``(4, 4)``, from voxels of the latest scan to RAS in mm.
    """
    image = nibabel.Nifti1Image(labels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"1 stable, 2 gained, 3 lost"
    with atomic_write(path) as unfinished:
        nibabel.save(image, unfinished)
