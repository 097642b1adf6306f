"""The forms of data sets that are understood, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mri_seg.datasets import bids, decathlon, dicom_segmentations, nnunet, pairs
from mri_seg.datasets.found import Found
from mri_seg.datasets.lgg import form as lgg
from mri_seg.io.cases import find_cases
from mri_seg.io.passed_over import PassedOver

__all__ = ["FORMS", "recognize"]

FORMS: Mapping[str, Callable[[Path], Found | None]] = {
    "TCGA-LGG (<patient>/<patient>_<n>.tif and _mask.tif)": lgg.find,
    "nnU-Net (imagesTr, labelsTr, dataset.json)": nnunet.find,
    "MSD (dataset.json with lists)": decathlon.find,
    "BIDS (sub-*/anat/*_FLAIR and masks in derivatives)": bids.find,
    "DICOM series with DICOM SEG": dicom_segmentations.find,
    "pairs (x and x_mask, x_label or x_seg; folders images and masks or labels)": pairs.find,
}
"""What finds the cases of a form and returns None for a folder in another form, by the form in words."""


def recognize(root: Path) -> Found:
    """Find the cases of a data set in any form.

    Args:
        root: an existing folder.

    Raises:
        ValueError: when the folder is in none of the forms, or the data set has a fault.
    """
    for find in FORMS.values():
        if found := find(root):
            return found
    raise ValueError(
        f"{root}: is no data set to train or evaluate on. It holds {_content(root)}. Understood are "
        f"{'; '.join(FORMS)}; or a list of cases, --datalist FILE.json."
    )


def _content(root: Path) -> str:
    """What a folder holds that has no image with a label."""
    passed_over = PassedOver()
    try:
        images = len(find_cases(root, passed_over=passed_over))
    except ValueError:
        images = 0
    parts = [f"{images} image{'' if images == 1 else 's'} and no label of any of them"] if images else []
    return "; ".join([*parts, str(passed_over)] if passed_over else parts) or "nothing that is an image"
