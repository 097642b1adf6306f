"""How cases are dealt out over processes."""

from __future__ import annotations

from itertools import chain

import pytest

from mri_seg.training.ddp import partition


class TestShare:
    @pytest.mark.parametrize("number", [0, 1, 2, 5, 7])
    @pytest.mark.parametrize("world_size", [1, 2, 3, 8])
    def test_partition_takes_each_case_once_in_order(self, number: int, world_size: int) -> None:
        shares = [partition(number, rank, world_size) for rank in range(world_size)]
        assert list(chain(*shares)) == list(range(number))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
