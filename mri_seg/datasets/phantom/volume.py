"""One synthetic FLAIR volume with its tumour mask."""

from __future__ import annotations

import numpy as np

from mri_seg.datasets.phantom.patient import PhantomPatient, has_tumor

__all__ = ["has_tumor", "phantom_volume"]


def phantom_volume(
    seed: int, index: int, *, slices: int | None = None, size: int = 256, tumor: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Make the synthetic FLAIR volume of one patient, and the mask of its tumour: the patient's scan 0.

    Slices are 5 mm apart, pixels 0.94 mm wide at the usual size. As in real data, the 8-bit scale differs between
    patients; some use only a tenth of the range. :py:class:`~mri_seg.datasets.phantom.PhantomPatient` makes further
    scans of a patient, and tumours of a given size and place.

    Args:
        seed: seed of the data set, 0 or more.
        index: index of the patient, from 0. The same seed and index give the same volume.
        slices: number of slices; by default 24 to 30, drawn for the patient. Fewer lie around the tumour, or around the
            middle of the cerebrum.
        size: rows and columns of a slice; the field of view stays 240 mm.
        tumor: whether there is a tumour; by default, five of every six patients have one.

    Returns:
        The image ``(H, W, D)`` uint8 and the mask ``(H, W, D)`` bool. Rows run anterior to posterior, columns from the
        patient's right to left, slices from inferior to superior.

    Raises:
        ValueError: when an argument is out of range.
        ImportError: when nilearn is not installed.

    Example::

        >>> image, mask = phantom_volume(seed=0, index=0, slices=4, size=32)
        >>> image.shape, image.dtype, mask.dtype
        ((32, 32, 4), dtype('uint8'), dtype('bool'))
    """
    scan = PhantomPatient(seed, index, tumor=tumor).scan(slices=slices, size=size)
    return scan.image, scan.mask
