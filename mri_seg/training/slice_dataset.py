"""Draw training slices from cached volumes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from torch.utils.data import Sampler

from mri_seg.training.slice_cache import (
    MappedSlices,
    SliceCache,
    cache_cases,
    choose_cache,
    describe_settings,
    tumor_slices,
)
from mri_seg.transforms.midline import mirrored
from mri_seg.transforms.volume import neighbor_offsets
from mri_seg.utils.distributed import rank as this_rank
from mri_seg.utils.distributed import world_size
from mri_seg.utils.flags import flag

__all__ = ["EpochSampler", "SliceDataset"]

logger = logging.getLogger(__name__)

_CASES_NAMED = 10  # maximum number of cases listed in a message


class SliceDataset(Dataset):
    """Slices of volumes that are read and preprocessed once.

    Volumes are kept as half-precision slices and byte masks: 192 KiB per slice of 256 x 256 for image and label, 384
    KiB with the mirrored slice and the mask of the brain, and 128 KiB more for each further sequence. They are kept in
    memory, or in memory-mapped files that all processes of a machine share (:py:mod:`mri_seg.training.slice_cache`).

    Args:
        data: cases, each a dictionary that ``transform`` reads.
        transform: preprocessing of a case; it returns volumes ``image`` ``(S, H, W, D)``, with S sequences, and
            ``label`` ``(1, H, W, D)``, which must all have the same H and W.
        num_slices: number of slices that the network sees at once, odd; slices at the ends of a volume are repeated.
        num_workers: number of threads for preprocessing.
        progress: whether to show a progress bar.
        device: where the slices are kept; on the training device, no slice has to be copied.
        mirror: whether the slice of the first sequence, mirrored about the midline, follows as one more channel.
        neighbor_steps: distances of the neighbors, in slices: item ``index + n * len(dataset)`` has the neighbors at
            the n-th distance (see ``variants`` of :py:class:`EpochSampler`). So the network sees other slice distances:
            0 repeats the slice, as if slices were thin; 2 leaves one out.
        cache: where the slices are kept: ``memory``, ``disk``, or ``auto``, which chooses memory if they take no more
            than half of what is available.
        cache_dir: folder of the slices on disk. A case is found there again as long as its files and the settings are
            the same; nothing is deleted.

    Raises:
        ValueError: when the volumes differ in H or W, ``num_slices`` is not odd, a step is not 0 or more, or ``cache``
            is something else.
        OSError: when the disk has no room for the slices.

    Each item is a dictionary of ``image`` ``(S * num_slices, H, W)`` in float16, with a channel more if ``mirror``, and
    ``label`` ``(1, H, W)`` in uint8, 0 or 1, or the number of the class; also ``brain``, a mask like the label, if the
    preprocessing gives it.
    """

    def __init__(
        self,
        data: Sequence[dict],
        transform: Callable,
        *,
        num_slices: int = 1,
        num_workers: int | None = 1,
        progress: bool = True,
        device: torch.device | str = "cpu",
        mirror: bool | str = False,
        neighbor_steps: Sequence[int] = (1,),
        cache: str = "memory",
        cache_dir: PathLike | str = "runs/cache",
    ) -> None:
        super().__init__(data, transform)
        self.neighbor_steps = torch.tensor([int(step) for step in neighbor_steps])
        if not len(self.neighbor_steps) or self.neighbor_steps.min() < 0:
            raise ValueError(f"neighbor_steps is {list(neighbor_steps)}, expected distances of 0 or more, such as [1].")
        if not len(data):
            raise ValueError("there are no cases to take slices from: the list of cases is empty.")
        offsets = torch.tensor(neighbor_offsets(num_slices))
        compact = _Compact(transform, flag(mirror, "mirror"))
        settings = describe_settings(transform, mirror=compact.mirror)  # before the transform is used
        self.cache, estimated = choose_cache(cache, data, compact, device=device)
        self.images: torch.Tensor | MappedSlices
        self.labels: torch.Tensor | MappedSlices
        volumes: Sequence[Mapping[str, torch.Tensor]]
        if self.cache == "disk":
            cases = cache_cases(
                SliceCache(cache_dir, settings),
                data,
                compact,
                estimated=estimated,
                num_workers=num_workers,
                progress=progress,
            )
            volumes = [case.tensors() for case in cases]
            tumor = [torch.tensor(case.tumor) for case in cases]
            device = "cpu"
        else:
            cached = CacheDataset(data, compact, num_workers=num_workers, progress=progress)
            volumes = [cached[n] for n in range(len(cached))]
            tumor = [tumor_slices(volume["label"]) for volume in volumes]
        count = sum(key.startswith(_FURTHER) for key in volumes[0])
        sizes = {tuple(volume["image"].shape[1:]) for volume in volumes}
        if len(sizes) != 1:
            raise ValueError(f"volumes differ in size ({sorted(sizes)}): resize them to one size in the preprocessing.")

        def joined(key: str) -> Any:
            parts = [volume[key] for volume in volumes]
            return MappedSlices(parts) if self.cache == "disk" else torch.cat(parts).to(device)  # (slices, H, W)

        self.images, self.labels = joined("image"), joined("label")
        self.further = [joined(f"{_FURTHER}{n}") for n in range(1, 1 + count)]
        """Slices of the sequences after the first."""
        self.mirrored, self.brain = (joined(key) if key in volumes[0] else None for key in ("mirrored", "brain"))
        self.tumor = torch.cat(tumor)
        """Whether each slice has tumour ``(slices,)``."""
        neighbors, first = [], 0
        for volume in volumes:
            depth = len(volume["image"])
            slices = torch.arange(depth)[:, None, None] + self.neighbor_steps[:, None] * offsets
            neighbors.append(first + slices.clamp(0, depth - 1))
            first += depth
        self.neighbors = torch.cat(neighbors).to(device)  # (slices, steps, num_slices), indices into `images`
        self._ends = torch.tensor([len(volume["image"]) for volume in volumes]).cumsum(0)
        self._log_cases_without_tumor([not has.any() for has in tumor])

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.neighbors)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # no slices and lists of places
        """One slice with its neighbors, and its place in the data set."""
        step, index = divmod(index, len(self))
        places = self.neighbors[index, step]
        parts = [images[places] for images in (self.images, *self.further)]
        if self.mirrored is not None:
            parts.append(self.mirrored[index][None])
        image = parts[0] if len(parts) == 1 else torch.cat(parts)
        item = {"image": image, "label": self.labels[index][None], "index": index}
        if self.brain is not None:
            item["brain"] = self.brain[index][None]
        return item

    def describe(self, index: int) -> str:
        """Describe where a slice comes from: its file, or the case and the number of the slice, from 1."""
        case = int(torch.searchsorted(self._ends, index, right=True))
        files = self.data[case].get("image")
        last, first = int(self._ends[case]), int(self._ends[case - 1]) if case else 0
        if isinstance(files, (list, tuple)) and len(files) == last - first:
            return str(files[index - first])
        return f"{self._name(case)}, slice {index - first + 1}"

    def weights(self, tumor_fraction: float | None) -> torch.Tensor:
        """Weights with which a sampler draws a given fraction of slices with tumour.

        Args:
            tumor_fraction: fraction of the drawn slices that have tumour, 0 to 1; None keeps the fraction of the data.

        Returns:
            weights ``(slices,)`` that sum to 1.

        Raises:
            ValueError: when ``tumor_fraction`` is not between 0 and 1.
        """
        tumor = self.tumor
        if tumor_fraction is None or tumor.all() or not tumor.any():
            return torch.full((len(self),), 1 / len(self), dtype=torch.float64)
        if not 0 <= tumor_fraction <= 1:
            raise ValueError(f"tumor_fraction must be between 0 and 1, got {tumor_fraction}.")
        weights = torch.where(tumor, tumor_fraction / tumor.sum(), (1 - tumor_fraction) / (~tumor).sum())
        return weights.double()

    def _name(self, case: int) -> str:
        return self.data[case].get("case") or f"case {case + 1}"

    def _log_cases_without_tumor(self, without: Sequence[bool]) -> None:
        """Log which labels are empty: a mask may be missing, or may belong to another case."""
        names = [self._name(case) for case, empty in enumerate(without) if empty]
        if not names or this_rank() > 0:
            return
        more = f" and {len(names) - _CASES_NAMED} more" if len(names) > _CASES_NAMED else ""
        logger.log(
            logging.WARNING if all(without) else logging.INFO,
            "%d of %d training cases have no tumour in their label: %s%s.",
            len(names),
            len(without),
            ", ".join(names[:_CASES_NAMED]),
            more,
        )


class EpochSampler(Sampler):
    """Draw slices by weight; the draws depend only on seed and epoch.

    So a resumed run draws the same slices as an uninterrupted one: set ``epoch``, and ``start`` for the position within
    it. In distributed training, all N processes make the same draws and each takes every N-th, so that together they
    use the same slices in a step as one process with a batch N times as large. The remaining draws, fewer than N, are
    dropped.

    Args:
        weights: weight of each slice ``(slices,)``.
        num_samples: number of slices drawn in an epoch, by all processes together.
        seed: seed of the draws.
        replacement: whether a slice may be drawn more than once in an epoch.
        variants: number of variants of each slice, such as distances of its neighbors, of which one is drawn too: the
            n-th variant of slice k is the index ``k + n * len(weights)``.
        num_replicas: number of processes; None for the world size.
        rank: rank of this process; None for its own rank.
    """

    def __init__(
        self,
        weights: torch.Tensor,
        num_samples: int,
        seed: int = 0,
        replacement: bool = True,
        *,
        variants: int = 1,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self.variants = variants
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.num_samples = num_samples
        self.seed = seed
        self.replacement = replacement
        self.num_replicas = world_size() if num_replicas is None else num_replicas
        self.rank = this_rank() if rank is None else rank
        self.epoch = 1
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to draw next, from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of slices that this process takes in an epoch."""
        return self.num_samples // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Indices of this process's slices; the first ``start`` draws of all processes together are skipped."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        drawn = torch.multinomial(self.weights, self.num_samples, replacement=self.replacement, generator=generator)
        if self.variants > 1:
            drawn += len(self.weights) * torch.randint(self.variants, (self.num_samples,), generator=generator)
        start, self.start = self.start, 0
        rest = drawn[start:].tolist()
        yield from rest[: len(rest) // self.num_replicas * self.num_replicas][self.rank :: self.num_replicas]


_KEPT = {"image": torch.float16, "label": torch.uint8, "brain": torch.uint8, "mirrored": torch.float16}
_FURTHER = "sequence"  # and its number, from 1: what the sequences after the first are kept as


class _Compact(Transform):
    """Preprocess a case and convert it to the compact form that is cached: slices first, float16 and uint8."""

    def __init__(self, transform: Callable, mirror: bool = False) -> None:
        self.transform = transform
        self.mirror = mirror

    def __call__(self, case: dict) -> dict[str, torch.Tensor]:
        volume = self.transform(case)
        if self.mirror:
            volume["mirrored"] = torch.from_numpy(mirrored(volume["image"].numpy()[0]))[None]
        further = {f"{_FURTHER}{n}": one[None] for n, one in enumerate(volume["image"][1:], start=1)}
        kept = _KEPT | dict.fromkeys(further, _KEPT["image"])
        return {
            # (D, H, W), without metadata, which would slow down every draw
            key: convert_to_tensor(one[0], track_meta=False).movedim(-1, 0).to(kept[key]).contiguous()
            for key, one in {**{key: volume[key] for key in _KEPT if key in volume}, **further}.items()
        }
