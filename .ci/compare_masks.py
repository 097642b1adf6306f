"""Compare the volumes that two runs of inference wrote: ``python compare_masks.py EXPECTED FOUND``."""

import sys
from pathlib import Path

import nibabel
import numpy as np


def compare(expected: Path, found: Path) -> str:
    """Compare masks and probabilities voxel for voxel; returns what was compared, or ends the process."""
    files = sorted(expected.glob("*/*.nii.gz"))
    tumour = 0
    for file in files:
        first, second = (nibabel.load(folder / file.relative_to(expected)) for folder in (expected, found))
        voxels = [np.asarray(volume.dataobj) for volume in (first, second)]
        if not np.array_equal(first.affine, second.affine) or not np.array_equal(*voxels):
            differ = (voxels[0] != voxels[1]).sum() if voxels[0].shape == voxels[1].shape else "the shape and"
            sys.exit(f"{found / file.relative_to(expected)}: {differ} voxels or the affine differ from {file}")
        if file.name.endswith("_mask.nii.gz"):
            tumour += int((voxels[0] > 0).sum())
    if not tumour:
        sys.exit(f"{expected}: no mask with tumour, so the comparison says nothing")
    return f"{len(files)} volumes, {tumour} voxels of tumour: equal"


if __name__ == "__main__":
    print(compare(*map(Path, sys.argv[1:])))
