"""Copy lesions of one slice of a batch into the brain of another."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["transplant_lesions"]

_MIN_PIXELS = 30  # a smaller part of a lesion shows little


def transplant_lesions(
    image: torch.Tensor, label: torch.Tensor, brain: torch.Tensor, probability: float, *, mirror: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give slices a lesion of another slice of the batch, at a random place in the brain.

    A network sees lesions only where its patients have them, and may take one elsewhere, as in the cerebellum, for
    healthy tissue. Each channel gets the lesion from the same channel of the other slice. What would lie outside the
    brain is left out. The mirrored channel gets the lesion mirrored about the middle of the brain. After Yang et al.,
    "TumorCP: A Simple but Effective Object-Level Data Augmentation for Tumor Segmentation", MICCAI 2021.

    Args:
        image: normalized slices ``(B, C, H, W)``.
        label: labels ``(B, 1, H, W)``: 0 and 1, or numbers of classes.
        brain: masks of the brain ``(B, 1, H, W)``.
        probability: probability that a slice gets a lesion.
        mirror: whether the last channel is the slice mirrored about the midline.

    Returns:
        image and label, of the same shapes; what is given stays as it is.
    """
    lesions = label > 0
    donors = (lesions.flatten(1).sum(1) >= _MIN_PIXELS).nonzero()[:, 0]
    chosen = torch.rand(len(image), device=image.device) < probability
    chosen &= brain.flatten(1).any(dim=1)
    if not len(donors) or not chosen.any():
        return image, label
    own = image.shape[1] - mirror
    result, marked = image.clone(), label.clone()
    for n in chosen.nonzero()[:, 0].tolist():
        donor = int(donors[torch.randint(len(donors), (), device=donors.device)])
        places = brain[n, 0].nonzero()
        place = places[torch.randint(len(places), (), device=places.device)]
        middle = lesions[donor, 0].nonzero().to(torch.float32).mean(0)
        move = (place - middle).round().int().tolist()
        tissue, classes = _moved(image[donor], move), _moved(label[donor], move)
        near = F.max_pool2d((classes > 0).to(image.dtype), 3, 1, 1)
        weight = F.avg_pool2d(near, 5, 1, 2) * brain[n]  # fades out over a few pixels
        result[n, :own] = torch.lerp(result[n, :own], tissue[:own], weight)
        marked[n] = torch.where((classes > 0) & (brain[n] > 0), classes, marked[n])
        if mirror:
            shift = round(2 * float(places[:, 1].to(torch.float32).mean())) - (image.shape[3] - 1)
            weight, other = (torch.roll(one.flip(-1), shift, -1) for one in (weight[0], tissue[own // 2]))
            result[n, own] = torch.lerp(result[n, own], other, weight)
    return result, marked


def _moved(values: torch.Tensor, move: list[int]) -> torch.Tensor:
    """Shift rows and columns of ``(C, H, W)``; what comes in at the edges is 0."""
    rows, columns = move
    moved = torch.roll(values, (rows, columns), (1, 2))
    moved[:, slice(rows) if rows >= 0 else slice(rows, None)] = 0
    moved[:, :, slice(columns) if columns >= 0 else slice(columns, None)] = 0
    return moved
