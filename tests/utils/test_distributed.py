"""How work is dealt out over processes."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from mri_seg.training.ddp import partition
from mri_seg.training.slice_dataset import EpochSampler


class TestShare:
    @pytest.mark.parametrize("number", [0, 1, 2, 5, 7])
    @pytest.mark.parametrize("world_size", [1, 2, 3, 8])
    def test_takes_each_case_once_in_order(self, number: int, world_size: int) -> None:
        shares = [partition(number, rank, world_size) for rank in range(world_size)]
        assert list(chain(*shares)) == list(range(number))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


class TestEpochSampler:
    @pytest.mark.parametrize(("num_replicas", "batch"), [(2, 4), (3, 2), (4, 2)])
    @pytest.mark.parametrize("start", [0, 5])
    def test_steps_of_all_processes_are_those_of_one(self, num_replicas: int, batch: int, start: int) -> None:
        alone, *samplers = (
            EpochSampler(torch.ones(50), 30, seed=1, num_replicas=number, rank=rank)
            for number, rank in [(1, 0), *((num_replicas, rank) for rank in range(num_replicas))]
        )
        for sampler in (alone, *samplers):
            sampler.start = start
        drawn, shares = list(alone), [list(sampler) for sampler in samplers]
        assert len({len(part) for part in shares}) == 1  # or one process would wait for another for ever
        step = num_replicas * batch
        for n in range(len(shares[0]) // batch):
            together = chain(*(part[n * batch : (n + 1) * batch] for part in shares))
            assert sorted(together) == sorted(drawn[n * step : (n + 1) * step])

    def test_says_how_many_it_takes(self) -> None:
        sampler = EpochSampler(torch.ones(50), 30, num_replicas=4, rank=3)
        assert len(sampler) == len(list(sampler)) == 7
