"""Several classes of a label and of a prediction."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss

from mri_seg.training.loss import loss_of_classes
from mri_seg.transforms.augment import RandomAugment
from mri_seg.transforms.classes import AssignClassesd, UniteClassesd
from mri_seg.transforms.labels import BinaryLabeld
from mri_seg.utils.label_classes import LabelClasses

EXCLUSIVE = LabelClasses("exclusive", (1, 2, 4))
REGIONS = LabelClasses("regions", [[1, 2, 4], [1, 4], [4]])
VALUES = torch.tensor([0, 1, 2, 4, 3])


def volume(values: torch.Tensor) -> MetaTensor:
    return MetaTensor(values.float().reshape(1, -1, 1, 1), affine=torch.diag(torch.tensor([2.0, 1, 5, 1])))


def assigned(classes: LabelClasses, *probabilities: list[float], threshold: float = 0.5) -> dict:
    """Union and label values of voxels, of which each class has a list of probabilities."""
    pred = MetaTensor(torch.tensor(probabilities)[:, :, None, None])
    data = UniteClassesd("pred", classes)({"pred": pred})
    united = data["pred"].flatten().tolist()
    data["pred"] = (data["pred"] >= threshold).float()
    data = AssignClassesd("pred", classes, threshold=threshold)(data)
    return {"union": united, "values": data["pred_classes"].flatten().tolist(), "keys": sorted(data)}


class TestLabels:
    def test_label_becomes_its_union_and_keeps_its_values(self) -> None:
        found = BinaryLabeld("label", classes=EXCLUSIVE)({"label": volume(VALUES)})
        assert found["label"].flatten().tolist() == [0, 1, 1, 1, 0]
        assert found["label_classes"].flatten().tolist() == VALUES.tolist()
        assert torch.equal(found["label"].affine, volume(VALUES).affine)

    @pytest.mark.parametrize(("classes", "numbers"), [(EXCLUSIVE, [0, 1, 2, 3, 0]), (REGIONS, [0, 2, 1, 3, 0])])
    def test_label_for_training_holds_the_number_of_the_class(self, classes: LabelClasses, numbers: list[int]) -> None:
        found = BinaryLabeld("label", classes=classes, numbered=True)({"label": volume(VALUES)})
        assert found["label"].flatten().tolist() == numbers
        assert "label_classes" not in found

    def test_values_that_are_in_no_class_are_named_once(self, caplog: pytest.LogCaptureFixture) -> None:
        divide = BinaryLabeld("label", classes=LabelClasses("exclusive", [2, [1, 3]]))
        with caplog.at_level(logging.WARNING):
            divide({"label": volume(VALUES)})
            divide({"label": volume(VALUES)})
        (line,) = caplog.messages
        assert "the values 4 of this label are in no class" in line

    def test_one_class_is_as_without_classes(self) -> None:
        found = BinaryLabeld("label", classes=LabelClasses())({"label": volume(VALUES)})
        assert found["label"].flatten().tolist() == [0, 1, 1, 1, 1]
        assert list(found) == ["label"]


class TestPrediction:
    def test_exclusive_classes_add_up_and_the_most_probable_is_assigned(self) -> None:
        found = assigned(EXCLUSIVE, [0.1, 0.3, 0.9], [0.1, 0.25, 0.05], [0.1, 0.05, 0.0])
        assert found["union"] == pytest.approx([0.3, 0.6, 0.95])
        assert found["values"] == [0, 1, 1]
        assert found["keys"] == ["pred", "pred_classes"]

    def test_smallest_region_above_the_threshold_is_assigned(self) -> None:
        found = assigned(REGIONS, [0.9, 0.9, 0.9, 0.2, 0.4], [0.1, 0.8, 0.8, 0.1, 0.6], [0.1, 0.1, 0.7, 0.3, 0.1])
        assert found["union"] == pytest.approx([0.9, 0.9, 0.9, 0.3, 0.6])
        assert found["values"] == [2, 1, 4, 0, 1]

    def test_filled_hole_gets_the_most_probable_class(self) -> None:
        data = UniteClassesd("pred", REGIONS)({"pred": MetaTensor(torch.tensor([0.2, 0.3, 0.1]).reshape(3, 1, 1, 1))})
        data["pred"] = torch.ones_like(data["pred"])
        assert AssignClassesd("pred", REGIONS)(data)["pred_classes"].item() == 1

    def test_one_class_stays_as_it_is(self) -> None:
        pred = MetaTensor(torch.rand(1, 2, 2, 2))
        data = AssignClassesd("pred", LabelClasses())(UniteClassesd("pred", LabelClasses())({"pred": pred}))
        assert list(data) == ["pred"]
        assert data["pred"] is pred


class TestWritten:
    @pytest.mark.parametrize(
        ("mode", "values", "written"),
        [
            ("exclusive", [3, [7, 2]], (3, 2)),
            ("regions", [[1, 2, 3], [3]], (1, 3)),
            ("regions", [[1, 2, 4], [1, 4], [4]], (2, 1, 4)),
            ("regions", 300, (300,)),
        ],
    )
    def test_mask_gets_a_value_of_each_class(self, mode: str, values: list, written: tuple[int, ...]) -> None:
        assert LabelClasses(mode, values).written == written

    @pytest.mark.parametrize("values", [[1, True], [0], [70000], [[]], [1.5]])
    def test_values_that_are_no_label_values_are_refused(self, values: list) -> None:
        with pytest.raises(ValueError, match=r"--label_values: .* expected whole numbers, 1 to 65535"):
            LabelClasses("exclusive", values)


class TestTraining:
    def test_augmented_label_holds_whole_classes_without_gaps_between_them(self) -> None:
        """Background is nowhere beside the border between two classes."""
        label = torch.ones(8, 1, 64, 64)
        label[..., 32:] = 3
        torch.manual_seed(0)
        _, found = RandomAugment((32, 32), classes=3, probability=1.0)(torch.randn(8, 1, 64, 64), label)
        assert found.unique().tolist() == [1, 3]

    def test_loss_of_regions_is_that_of_each_region_on_average(self) -> None:
        binary = DiceCELoss(sigmoid=True, batch=True)
        logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 4, (2, 1, 8, 8)).float()
        parts = [binary(logits[:, [k]], (label > k).float()) for k in range(3)]
        assert torch.allclose(loss_of_classes(binary, REGIONS)(logits, label), torch.stack(parts).mean())

    def test_loss_of_one_class_is_the_loss_itself(self) -> None:
        loss = DiceCELoss(sigmoid=True)
        assert loss_of_classes(loss, LabelClasses()) is loss


def test_logits_of_exclusive_classes_have_the_softmax_as_their_sigmoid() -> None:
    from mri_seg.inference.inferers import class_logits

    logits = 5 * torch.randn(2, 4, 8, 8)
    np.testing.assert_allclose(class_logits(logits).sigmoid(), logits.softmax(1)[:, 1:], atol=1e-6)
