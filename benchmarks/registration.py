"""Measure how well real heads are brought to the same place: each is imaged twice by simulation and registered.

    python benchmarks/registration.py --dataset_dir data/kaggle_3m
    python benchmarks/registration.py --dataset_dir data/kaggle_3m --every 4 --turn 40     # heads that lie turned

The heads of TCGA-LGG (DU, FG, HT) are imaged as in ``repeatability.py``, so that the two images of a head lie up to 35
degrees apart, in different grids and with other values; ``--turn`` turns the second one further in plane. The error is
the mean distance in mm between where the transform puts eight places of the brain and where they are. Pairs of
different heads say how often two people pass for one.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from nibabel.affines import apply_affine
from repeatability import INSTITUTIONS, affine_of, imaged_again
from scipy.spatial.transform import Rotation
from slice_distance import read_distances

from mri_seg.datasets.lgg import datalist
from mri_seg.follow_up.registration import Registration, register
from mri_seg.io.load import LoadVolumed

PLACES = np.array(list(itertools.product((-50, 50), (-70, 70), (-40, 40))))  # mm from the middle of the volume

Image = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def turned(image: Image, degrees: float) -> Image:
    """The image as if the head had been turned in plane about the middle of its grid."""
    values, mask, grid, pose = image
    middle = apply_affine(grid, (np.array(values.shape) - 1) / 2)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return values, mask, turn @ grid, pose @ np.linalg.inv(turn)


def registered(one: Image, other: Image) -> Registration:
    return register(one[0], one[2], other[0], other[2], fixed_lesion=one[1], moving_lesion=other[1])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default="data/kaggle_3m")
    parser.add_argument("--every", type=int, default=1, help="take every so many heads")
    parser.add_argument("--turn", type=float, default=0.0, help="further turn of the second image in degrees")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    load, distances = LoadVolumed(["image", "label"]), read_distances()
    errors, angles, seconds, failed, doubtful, mistaken, before = [], [], [], [], 0, [], None
    cases = [
        case
        for place in INSTITUTIONS[1:]
        for case in datalist(given.dataset_dir, f"institution/{place}", "validation", allow_missing=True)
    ]
    for n, case in enumerate(cases[:: given.every]):
        item = load(dict(case))
        volume, label = item["image"].numpy()[0], item["label"].numpy()[0] > 0
        affine = affine_of(distances[case["case"]].mm)
        one, other = (imaged_again(volume, label, affine, np.random.default_rng([given.seed, n, k])) for k in (0, 1))
        other = turned(other, given.turn)
        true = np.linalg.inv(other[3]) @ one[3]
        began = time.process_time()
        found = registered(one, other)
        seconds.append(time.process_time() - began)
        places = PLACES + apply_affine(affine, (np.array(volume.shape) - 1) / 2)
        off = np.linalg.norm(apply_affine(found.matrix, places) - apply_affine(true, places), axis=1).mean()
        angles.append(np.degrees(Rotation.from_matrix(true[:3, :3]).magnitude()))
        if found.quality.failed:
            failed.append(case["case"])
        else:
            errors.append(off)
            doubtful += found.quality.doubtful
        if before is not None:
            mistaken.append(not registered(before, other).quality.failed)
        before = one
        print(f"{case['case']}: {angles[-1]:.0f} degrees apart, {off:.1f} mm off, {found.quality}", flush=True)
    names = f" ({', '.join(failed)})" if failed else ""
    print(
        f"\n{len(angles)} heads, {min(angles):.0f} to {max(angles):.0f} degrees apart: {len(failed)} failed{names}, "
        f"{doubtful} doubtful. Error of the others {np.median(errors):.2f} mm (median; 95 % under "
        f"{np.percentile(errors, 95):.2f}, largest {max(errors):.2f}). CPU time {np.median(seconds):.1f} s (median; "
        f"largest {max(seconds):.1f}).\nOf {len(mistaken)} pairs of different heads, {sum(mistaken)} were not refused."
    )


if __name__ == "__main__":
    main()
