"""Which warnings of libraries are silenced, and that no others are."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from monai.data import MetaTensor
from monai.metrics.utils import get_mask_edges
from monai.transforms import Invertd, Orientation, Orientationd

from mri_seg.utils.library_warnings import silence_library_warnings


@pytest.fixture(autouse=True)
def level_is_restored() -> object:
    logger = logging.getLogger("tensorboard")
    level = logger.level
    yield
    logger.setLevel(level)


def warned(act: object) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        silence_library_warnings()
        act()
    return [str(warning.message) for warning in found]


def overwritten_affine() -> None:
    MetaTensor(torch.zeros(1, 2, 2, 2), affine=torch.eye(4), meta={"affine": torch.eye(4)})


def no_geometry() -> None:
    Orientation("RAS", labels=None)(torch.zeros(1, 2, 2, 2))


def not_inverted() -> None:
    turn = Orientationd("image", "RAS", labels=None)
    Invertd("pred", turn, orig_keys="image")({"pred": MetaTensor(torch.zeros(1, 2, 2, 2))})


def deprecated_argument() -> None:
    mask = torch.ones(4, 4, 4)
    get_mask_edges(mask, mask, always_return_as_numpy=True)


class TestSilence:
    @pytest.mark.parametrize("act", [overwritten_affine, no_geometry, not_inverted, deprecated_argument])
    def test_warnings_that_a_user_can_do_nothing_about_are_silenced(self, act: object) -> None:
        with pytest.warns((UserWarning, FutureWarning)):
            act()
        assert warned(act) == []

    @pytest.mark.parametrize(
        "message", ["something else", "The affine is singular", "get_mask_edges: spacing is wrong"]
    )
    def test_other_warnings_stay(self, message: str) -> None:
        assert warned(lambda: warnings.warn(message)) == [message]

    def test_tensorboard_logs_warnings_only(self) -> None:
        silence_library_warnings()
        logger = logging.getLogger("tensorboard")
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
