"""Which flags the lesions of a mask get."""

from __future__ import annotations

import json

import numpy as np
import torch
from monai.data import MetaTensor

from mri_seg.quality.frame import HeadFrame
from mri_seg.quality.lesion_checks import BESIDE, LesionChecksd
from mri_seg.utils.bundle_folder import bundle_folder
from mri_seg.utils.case_flags import case_flags

SHAPE = (100, 80, 20)

# A box whose first axis is the columns about 39.5, whose second the rows and whose third the slices.
FRAME = HeadFrame(np.array([[0, 1 / 40, 0, -39.5 / 40], [1 / 100, 0, 0, 0], [0, 0, 1 / 20, 0], [0, 0, 0, 1.0]]), 40.0)


def flags(*lesions: tuple[slice, slice, slice], probability: float = 0.95, frame: str = "", **meta: object) -> dict:
    """Messages of the flags of a mask with these lesions, by name."""
    mask = torch.zeros(1, *SHAPE)
    for lesion in lesions:
        mask[(0, *lesion)] = 1
    meta = {"spacing_known": False, **meta}
    item = {
        "pred": MetaTensor(mask, affine=torch.eye(4), meta=dict(meta)),
        "probability": MetaTensor(mask * probability, affine=torch.eye(4), meta=dict(meta)),
        "image": MetaTensor(torch.zeros(1, 4, 4, 4), meta={"head_frame": "" if frame == "none" else FRAME.to_text()}),
    }
    done = LesionChecksd("pred")(item)["pred"]
    return {flag["name"]: flag["message"] for flag in case_flags(done.meta)}


def box(row: int, column: int, number: int, *, side: int = 16, slices: int = 8) -> tuple[slice, slice, slice]:
    return slice(row, row + side), slice(column, column + side), slice(number, number + slices)


FRONTAL = box(20, 50, 10)


class TestLesions:
    def test_large_lesion_in_a_usual_place_gets_no_flag(self) -> None:
        assert flags(FRONTAL) == {}

    def test_mask_without_a_lesion_is_flagged(self) -> None:
        assert list(flags()) == ["nothing_found"]

    def test_lesion_in_the_highest_slice_is_cut(self) -> None:
        assert "lesion 1 is at the end" in flags(box(20, 50, 12))["head_cut"]

    def test_lesion_at_the_edge_of_the_slices_is_cut(self) -> None:
        assert "head_cut" in flags(box(30, 64, 10))

    def test_lesion_in_the_cerebellum_is_where_training_has_none(self) -> None:
        found = flags(FRONTAL, box(75, 45, 1, slices=4))
        assert "lesion 2 is where" in found["lesion_where_training_has_none"]

    def test_place_is_not_judged_without_a_frame(self) -> None:
        assert flags(box(70, 45, 2), frame="none") == {}

    def test_small_lesion_beside_a_large_one_is_in_doubt(self) -> None:
        found = flags(FRONTAL, box(50, 10, 12, side=5, slices=3), box(60, 60, 12, side=5, slices=3))
        assert "lesions 2 and 3 are in doubt" in found["lesion_doubtful"]

    def test_only_lesion_is_not_in_doubt_however_small_it_is(self) -> None:
        assert flags(box(20, 50, 10, side=5, slices=3), probability=0.6) == {}

    def test_second_lesion_of_a_seventh_of_the_largest_is_not_in_doubt(self) -> None:
        assert "lesion_doubtful" not in flags(FRONTAL, box(60, 60, 12, side=9, slices=4))


class TestLeftOut:
    def test_lesions_that_were_left_out_are_told_of(self) -> None:
        found = flags(FRONTAL, left_out="[0.04, 0.012, 0.01]")["lesion_left_out"]
        assert found.startswith("3 small lesions are left out, with 4.0, 1.2 and 1.0 % of the volume of the largest")
        assert "--min_lesion_fraction 0 --min_lesion_slices 1 keeps them" in found

    def test_nothing_is_told_where_nothing_was_left_out(self) -> None:
        assert "lesion_left_out" not in flags(FRONTAL, left_out="[]")

    def test_lesions_are_left_out_by_default_where_they_would_be_in_doubt(self) -> None:
        config = json.loads((bundle_folder() / "configs" / "inference.json").read_text(encoding="utf-8"))
        assert config["min_lesion_fraction"] == BESIDE


class TestOutsideBrain:
    def test_lesions_outside_the_brain_are_told_of(self) -> None:
        found = flags(FRONTAL, outside_brain="[2340.0, 950.0]")["lesion_outside_brain"]
        assert found.startswith("2 lesions lie outside the brain and are left out, with 2.3 and 0.9 mL")
        assert "--min_brain_fraction 0 keeps them" in found

    def test_one_lesion_is_told_of_in_the_singular(self) -> None:
        found = flags(outside_brain="[2340.0]")
        assert set(found) == {"nothing_found", "lesion_outside_brain"}
        assert found["lesion_outside_brain"].startswith("1 lesion lies outside the brain and is left out, with 2.3 mL")

    def test_nothing_is_told_where_nothing_was_outside(self) -> None:
        assert flags(FRONTAL, outside_brain="[]") == {}


class TestLooks:
    def test_each_flagged_lesion_says_why_it_is_worth_a_look(self) -> None:
        mask = torch.zeros(1, *SHAPE)
        for lesion in (FRONTAL, box(75, 45, 1, slices=4), box(60, 60, 12, side=5, slices=3)):
            mask[(0, *lesion)] = 1
        image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"head_frame": FRAME.to_text()})
        item = {"pred": MetaTensor(mask, affine=torch.eye(4)), "probability": MetaTensor(mask), "image": image}
        first, second, third = json.loads(LesionChecksd("pred")(item)["pred"].meta["looks"])
        assert first == ""
        assert second == "almost no training patient has tumour there"
        assert "3.7 % of the volume of the largest lesion" in third

    def test_mask_without_a_lesion_has_nothing_to_look_at(self) -> None:
        mask = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4))
        assert LesionChecksd("pred")({"pred": mask, "probability": mask.clone()})["pred"].meta["looks"] == "[]"


class TestMask:
    def test_mask_is_left_as_it_is_and_gets_the_frame(self) -> None:
        mask = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4))
        image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"head_frame": FRAME.to_text()})
        done = LesionChecksd("pred")({"pred": mask.clone(), "probability": mask, "image": image})["pred"]
        assert torch.equal(done.as_tensor(), mask.as_tensor())
        assert HeadFrame.from_text(done.meta["head_frame"]) is not None

    def test_mask_without_the_image_of_the_check_is_judged_too(self) -> None:
        mask = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4))
        done = LesionChecksd("pred")({"pred": mask, "probability": mask.clone()})["pred"]
        assert [flag["name"] for flag in case_flags(done.meta)] == ["nothing_found"]
