"""Put further sequences of a case beside its FLAIR volume, as channels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation

from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.labels import same_grid
from mri_seg.utils.meta_tensors import as_meta_tensor
from mri_seg.utils.size_limit import MAX_VOXELS

__all__ = ["AddSequencesd"]


class AddSequencesd(MapTransform):
    """Read the further sequences of a case: ``(1, H, W, D)`` becomes ``(1 + sequences, H, W, D)``, FLAIR first.

    Their files are under the key ``sequences`` (:py:func:`mri_seg.io.sequences.with_sequences`), which is removed. They
    must be in the grid of the FLAIR volume, apart from flips and the order of axes.

    Args:
        keys: key of the FLAIR volume ``(1, H, W, D)``, as read.
        sequences: names of the sequences; if there are none, nothing changes.
        max_voxels: maximum number of voxels of a volume.
    """

    def __init__(self, keys: KeysCollection, sequences: Sequence[str] = (), *, max_voxels: int = MAX_VOXELS) -> None:
        super().__init__(keys)
        self.sequences = list(sequences)
        self._load = LoadVolumed("image", max_voxels=max_voxels)
        self._orient = Orientation(axcodes="RAS", labels=None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the sequences as channels.

        Raises:
            ValueError: when the case has no such files, or one is in another grid.
        """
        d = dict(data)
        files = d.pop("sequences", None) or []
        if len(files) != len(self.sequences):
            raise ValueError(
                f"{d.get('case', 'a case')}: has {len(files)} volumes beside FLAIR, expected {len(self.sequences)}: "
                f"{', '.join(self.sequences) or 'none'}. Several sequences are for cases in files, by the commands."
            )
        for key in self.key_iterator(d) if files else ():
            image = d[key]
            others = [self._in_grid(file, image) for file in files]
            d[key] = as_meta_tensor(torch.cat([image, *(other.to(image.dtype) for other in others)]))
        return d

    def _in_grid(self, file: str, image: MetaTensor) -> torch.Tensor:
        """A volume ``(1, H, W, D)`` in the order of axes of the image."""
        volume = self._load({"image": file})["image"]
        # In voxel coordinates of the image, whose axes are its rows, columns and slices.
        to_image = np.linalg.inv(np.asarray(image.affine, np.float64)) @ np.asarray(volume.affine, np.float64)
        oriented = as_meta_tensor(self._orient(MetaTensor(volume.as_tensor(), affine=torch.from_numpy(to_image))))
        if not same_grid(oriented.affine.numpy(), oriented.shape[1:], image.shape[1:]):
            raise ValueError(
                f"{file}: is in another grid ({' x '.join(map(str, volume.shape[1:]))} voxels) than FLAIR, "
                f"{image.meta.get('filename_or_obj', 'its image')} ({' x '.join(map(str, image.shape[1:]))} voxels). "
                "Register and resample all sequences of a case to FLAIR."
            )
        return oriented.as_tensor()
