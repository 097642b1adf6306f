"""Lesions copied into other slices: where they come to lie, in which channels, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from mri_seg.transforms.augment import RandomAugment
from mri_seg.transforms.transplant import transplant_lesions

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
LESION = (slice(20, 30), slice(40, 52))


def batch(number: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Brains of 0 in air of -3; the first slice alone has a lesion, of another brightness in each channel."""
    brain = torch.zeros(number, 1, 64, 80)
    brain[:, :, 8:56, 10:66] = 1
    image = (brain * 3 - 3).repeat(1, 4, 1, 1)
    label = torch.zeros(number, 1, 64, 80)
    label[0, 0][LESION] = 1
    for channel in range(3):
        image[0, channel][LESION] = 2.0 + channel
    return image, label, brain


def test_slices_get_the_lesion_of_another_slice_channel_by_channel() -> None:
    torch.manual_seed(0)
    image, label, brain = batch()
    changed, marked = transplant_lesions(image, label, brain, 1.0)
    for n in range(1, 4):
        lesion = marked[n, 0] > 0
        assert 0 < lesion.sum() <= 120
        for channel in range(3):
            assert changed[n, channel][lesion].max() == pytest.approx(2.0 + channel, abs=0.1)


def test_lesions_lie_in_the_brain_and_at_many_places() -> None:
    torch.manual_seed(0)
    image, label, brain = batch(64)
    changed, marked = transplant_lesions(image, label, brain, 1.0)
    assert not (marked * (1 - brain)).any()
    air = (brain == 0).expand_as(image)
    assert torch.equal(changed[air], image[air])
    rows = torch.tensor([one[0].nonzero().float().mean(0)[0] for one in marked[1:]])
    assert rows.min() < 16
    assert rows.max() > 48


def test_mirrored_channel_gets_the_lesion_mirrored_about_the_middle_of_the_brain() -> None:
    torch.manual_seed(2)
    image, label, brain = batch(16)
    changed, marked = transplant_lesions(image, label, brain, 1.0, mirror=True)
    middle = (10 + 65) / 2
    for n in range(1, 16):
        columns = marked[n, 0].any(0).nonzero()[:, 0].float().mean()
        seen = (changed[n, 3] - image[n, 3]).abs().sum(0)
        other = (seen * torch.arange(80)).sum() / seen.sum()
        assert float(columns + other) / 2 == pytest.approx(middle, abs=1.0)


def test_what_is_given_stays_as_it_is() -> None:
    image, label, brain = batch()
    before = image.clone(), label.clone()
    transplant_lesions(image, label, brain, 1.0)
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])


def test_numbers_of_classes_come_along() -> None:
    image, label, brain = batch()
    label[0, 0, 22:26, 42:46] = 3
    _, marked = transplant_lesions(image, label, brain, 1.0)
    assert set(marked[1:].unique().tolist()) <= {0.0, 1.0, 3.0}
    assert (marked[1:] == 3).any()


@pytest.mark.parametrize("missing", ["lesion", "brain", "probability"])
def test_nothing_changes_without(missing: str) -> None:
    image, label, brain = batch()
    if missing == "lesion":
        label = torch.zeros_like(label)
    if missing == "brain":
        brain = torch.zeros_like(brain)
    changed, marked = transplant_lesions(image, label, brain, 0.0 if missing == "probability" else 1.0)
    assert torch.equal(changed, image)
    assert torch.equal(marked, label)


def test_augmentation_transplants_with_a_mask_of_the_brain_alone() -> None:
    off = {"flip": 0.0, "probability": 0.0}
    augment = RandomAugment((64, 80), transplant_probability=1.0, **off)
    image, label, brain = batch()
    _, marked = augment(image, label, brain)
    assert marked[1:].flatten(1).any(dim=1).all()
    assert torch.equal(augment(image, label)[1], label)


@pytest.mark.parametrize("probability", [0.0, 0.2])
def test_training_has_the_mask_of_the_brain_that_transplants_need(probability: float) -> None:
    config = ConfigParser()
    config.read_config(CONFIGS / "train.json")
    config.update({"scalp_probability": 0, "strip_probability": 0, "transplant_probability": probability})
    names = [type(one).__name__ for one in config.get_parsed_content("train#preprocessing").transforms]
    assert ("BrainMaskd" in names) == (probability > 0)
