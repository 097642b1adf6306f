"""Estimate the pixel size of TCGA-LGG, which its files do not give, from the size of the heads.

    python benchmarks/pixel_size.py --dataset_dir data/kaggle_3m

A head's breadth and length are those of the largest bright region in the upper half of the slices, above the ears. An
adult head is 151 mm broad and 194 mm long (mean of the medians of women and men in the US Army's survey ANSUR II of
2012: 147.5 and 154 mm, 188 and 199 mm), so that the ratio of the medians is a pixel size.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from scipy import ndimage

from mri_seg.datasets.lgg.index import find_patients, institution, slice_files
from mri_seg.io.load import LoadVolumed

ADULT_HEAD = (151.0, 194.0)  # breadth and length in mm


def head_size(volume: np.ndarray) -> tuple[int, int]:
    """Breadth and length in pixels of the head in a volume (H, W, D)."""
    low, high = np.percentile(volume, (0.5, 99.5))
    bright = ndimage.binary_opening(volume > low + 0.12 * (high - low), np.ones((5, 5, 1)))
    sizes = [(0, 0)]
    for n in range(volume.shape[-1] // 2, volume.shape[-1]):
        regions, count = ndimage.label(bright[..., n])
        if count:
            rows, columns = np.nonzero(regions == np.bincount(regions.ravel())[1:].argmax() + 1)
            sizes.append((int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1))
    breadths, lengths = zip(*sizes)
    return max(breadths), max(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    args = parser.parse_args()
    load = LoadVolumed("image")
    sizes = defaultdict(list)
    for patient, folder in find_patients(args.dataset_dir).items():
        volume = load({"image": [str(image) for _, image, _ in slice_files(folder)]})["image"].numpy()[0]
        size = head_size(volume)
        sizes[institution(patient)].append(size)
        sizes["all"].append(size)
    print("institution  patients  breadth, length in pixels  pixel size in mm by breadth, by length")
    for place, found in sorted(sizes.items()):
        median = np.median(found, axis=0)
        pixel = ADULT_HEAD / median
        print(f"{place:11}  {len(found):8}  {median[0]:7.0f}, {median[1]:16.0f}  {pixel[0]:.2f}, {pixel[1]:.2f}")


if __name__ == "__main__":
    main()
