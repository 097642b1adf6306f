"""Time the augmentation of a batch: `RandomAugment` against the same kinds of kornia transforms, in alternation.

    pip install kornia
    python benchmarks/augmentation.py

Both get 16 slices of 256 x 256 with two neighbours and a mask, and apply flip, affine, elastic deformation, blur or low
resolution, gamma, contrast and noise, each to 35 % of the slices. `RandomAugment` also draws a bias field.
"""

from __future__ import annotations

import argparse
import statistics
import time

import kornia.augmentation as K
import torch

from mri_seg.transforms.augment import RandomAugment

PROBABILITY = 0.35


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    contestants = {
        "kornia": K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomAffine(20, translate=(0.1, 0.1), scale=(0.8, 1.25), p=PROBABILITY),
            K.RandomElasticTransform(kernel_size=(63, 63), sigma=(32.0, 32.0), p=PROBABILITY),
            K.RandomGaussianBlur((5, 5), (0.5, 1.5), p=PROBABILITY),
            K.RandomGamma((0.6, 1.7), p=PROBABILITY),
            K.RandomContrast((0.65, 1.5), p=PROBABILITY),
            K.RandomGaussianNoise(std=0.1, p=PROBABILITY),
            data_keys=["input", "mask"],
        ),
        "RandomAugment": RandomAugment((256, 256), probability=PROBABILITY),
    }
    image, mask = torch.rand(16, 3, 256, 256), (torch.rand(16, 1, 256, 256) > 0.9).float()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.repeats + 1):
        for name, augment in contestants.items():
            started = time.perf_counter()
            augment(image.clone(), mask.clone())
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        times = [1000 * t for t in times[1:]]  # the first turn warms up
        print(f"{name}: {statistics.median(times):.0f} ms a batch ({min(times):.0f} to {max(times):.0f})")
    ratios = [k / a for k, a in zip(seconds["kornia"][1:], seconds["RandomAugment"][1:])]
    print(f"ratio: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
