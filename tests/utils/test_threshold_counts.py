"""Counts of voxels by the threshold that their probability reaches."""

from __future__ import annotations

import pytest
import torch

from mri_seg.utils.threshold_counts import level_counts, positives, voxel_counts


class TestVoxelCounts:
    def test_counts_by_the_highest_threshold_reached(self) -> None:
        probability = torch.tensor([0.0, 0.24, 0.25, 0.5, 0.99, 1.0])
        label = torch.tensor([0, 0, 1, 1, 0, 1])
        assert voxel_counts(probability, label, 5).tolist() == [[2, 0, 0, 1, 0], [0, 1, 1, 0, 1]]

    def test_refuses_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match=r"the same shape, got \[4\] and \[5\]"):
            voxel_counts(torch.zeros(4), torch.zeros(5), 5)


class TestPositives:
    def test_agree_with_counting_at_each_threshold(self) -> None:
        level, label = torch.randint(0, 16, (9, 9, 3), dtype=torch.uint8), torch.rand(9, 9, 3) > 0.6
        true, false = positives(level_counts(level, label, 16))
        for threshold in range(16):
            pred = level >= threshold
            assert int(true[threshold]) == int((pred & label).sum())
            assert int(false[threshold]) == int((pred & ~label).sum())

    def test_threshold_counts_of_cases_add_up(self) -> None:
        cases = [(torch.randint(0, 4, (50,)), torch.rand(50) > 0.5) for _ in range(2)]
        together = level_counts(*(torch.cat(parts) for parts in zip(*cases)), 4)
        assert torch.equal(together, sum(level_counts(*case, 4) for case in cases))
