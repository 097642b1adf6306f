"""Training slices drawn from cached volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Transform
from monai.utils import convert_to_tensor

from mri_seg.transforms import neighbour_offsets

__all__ = ["SliceDataset"]


class SliceDataset(Dataset):
    """Slices of volumes that are read and preprocessed once.

    Volumes are kept as half-precision slices and byte labels: 192 KiB a slice of 256 x 256.

    Args:
        data: cases, each a dictionary with what ``transform`` reads.
        transform: preprocessing of a case, giving ``image`` and ``label`` volumes ``(1, H, W, D)``, all of the same
            H and W.
        neighbouring_slices: how many slices the network sees at once, an odd number; slices at the edge repeat.
        num_workers: threads that preprocess.
        progress: whether to show a progress bar.

    Raises:
        ValueError: when the volumes differ in H or W, or ``neighbouring_slices`` is not odd.

    Each item is a dictionary of ``image`` ``(neighbouring_slices, H, W)`` in float16 and ``label`` ``(1, H, W)`` in
    uint8, 0 or 1.
    """

    def __init__(
        self,
        data: Sequence[dict],
        transform: Callable,
        *,
        neighbouring_slices: int = 1,
        num_workers: int | None = 1,
        progress: bool = True,
    ) -> None:
        super().__init__(data, transform)
        if not len(data):
            raise ValueError("there is no case to take slices from.")
        offsets = torch.tensor(neighbour_offsets(neighbouring_slices))
        volumes = CacheDataset(data, _Compact(transform), num_workers=num_workers, progress=progress)
        sizes = {tuple(volume["image"].shape[1:]) for volume in volumes}
        if len(sizes) != 1:
            raise ValueError(f"volumes differ in size ({sorted(sizes)}): bring them to one size in the preprocessing.")
        self.images = torch.cat([volume["image"] for volume in volumes])  # (slices, H, W)
        self.labels = torch.cat([volume["label"] for volume in volumes])
        neighbours, first = [], 0
        for volume in volumes:
            depth = len(volume["image"])
            slices = torch.arange(depth)[:, None] + offsets
            neighbours.append(first + slices.clamp(0, depth - 1))
            first += depth
        self.neighbours = torch.cat(neighbours)  # (slices, neighbouring_slices), places in `images`

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.neighbours)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One slice with its neighbours."""
        return {"image": self.images[self.neighbours[index]], "label": self.labels[index, None]}

    def weights(self, tumour_fraction: float | None) -> torch.Tensor:
        """Weight of each slice by which a sampler draws tumour slices in the given proportion.

        Args:
            tumour_fraction: share of slices drawn that show tumour, 0 to 1; None keeps the data's own share.

        Returns:
            weights ``(slices,)`` that sum to 1.

        Raises:
            ValueError: when ``tumour_fraction`` is not between 0 and 1.
        """
        tumour = (self.labels > 0).flatten(1).any(dim=1)
        if tumour_fraction is None or tumour.all() or not tumour.any():
            return torch.full((len(self),), 1 / len(self), dtype=torch.float64)
        if not 0 <= tumour_fraction <= 1:
            raise ValueError(f"tumour_fraction must be between 0 and 1, got {tumour_fraction}.")
        share = torch.where(tumour, tumour_fraction / tumour.sum(), (1 - tumour_fraction) / (~tumour).sum())
        return share.double()


class _Compact(Transform):
    """Preprocessing followed by the compact form that is cached: slices first, float16 and uint8, no metadata."""

    def __init__(self, transform: Callable) -> None:
        self.transform = transform

    def __call__(self, case: dict) -> dict[str, torch.Tensor]:
        volume = self.transform(case)
        return {
            # (D, H, W), without metadata, which would slow every slice drawn
            key: convert_to_tensor(volume[key][0], track_meta=False).movedim(-1, 0).to(dtype).contiguous()
            for key, dtype in (("image", torch.float16), ("label", torch.uint8))
        }
