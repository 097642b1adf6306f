"""Both protocols, their intervals, and the files of an evaluation."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import AsDiscreted

from mri_seg.evaluation.metrics import SliceProtocolMetric
from mri_seg.evaluation.writer import EvaluationWriter, bootstrap_interval, describe, patient_row, slice_rows, summarize
from mri_seg.inference.case_quality import CaseQuality
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.files import sha256

Box = tuple[slice, slice, slice]


def volume(*boxes: Box, shape: tuple[int, ...] = (12, 10, 4), **meta: Any) -> MetaTensor:
    """A binary volume with the boxes set, of spacing 2 x 1 x 5 mm."""
    result = MetaTensor(
        torch.zeros(1, *shape), affine=torch.diag(torch.tensor([2.0, 1, 5, 1])), meta={"case": "a", **meta}
    )
    for box in boxes:
        result[(0, *box)] = 1
    return result


def box(rows: tuple[int, int], columns: tuple[int, int], slices: tuple[int, int]) -> Box:
    return slice(*rows), slice(*columns), slice(*slices)


TUMOUR = box((2, 6), (3, 7), (1, 3))  # 4 x 4 pixels in slices 2 and 3
SHIFTED = box((3, 7), (3, 7), (1, 3))  # a row further: 12 of 16 pixels shared in each slice


class TestSliceRows:
    def test_slice_rows_agree_with_those_by_hand(self) -> None:
        pred, label = volume(SHIFTED, box((0, 1), (0, 1), (3, 4))), volume(TUMOUR)
        first, second, third, fourth = slice_rows("a", pred, label)
        assert [first["slice"], fourth["slice"]] == [1, 4]
        assert first == {
            **{"case": "a", "slice": 1, "dice": 1, "precision": 1, "recall": 1},
            **{"label_pixels": 0, "pred_pixels": 0, "overlap_pixels": 0},
        }
        assert second["dice"] == pytest.approx(24 / 32)
        assert (second["precision"], second["recall"]) == (pytest.approx(0.75), pytest.approx(0.75))
        assert (second["label_pixels"], second["pred_pixels"], second["overlap_pixels"]) == (16, 16, 12)
        assert {**third, "slice": 2} == second
        assert [fourth[key] for key in ("dice", "precision", "recall")] == pytest.approx([0, 0, 1], abs=1e-5)

    def test_values_are_plain_numbers(self) -> None:
        assert json.dumps(slice_rows("a", volume(SHIFTED), volume(TUMOUR)))


class TestPatientRow:
    def test_patient_row_agrees_with_one_by_hand_in_mm(self) -> None:
        row = patient_row("a", volume(SHIFTED), volume(TUMOUR))
        assert row["dice"] == pytest.approx(24 / 32)
        assert row["hd95"] == pytest.approx(2)  # a row is 2 mm high
        assert row["distance_unit"] == "mm"
        assert (row["label_voxels"], row["pred_voxels"], row["slices"]) == (32, 32, 4)

    def test_patient_row_agrees_with_one_by_hand_in_pixels(self) -> None:
        row = patient_row("a", volume(SHIFTED, spacing_known=False), volume(TUMOUR))
        assert row["hd95"] == pytest.approx(1)
        assert row["distance_unit"] == "pixel"

    def test_distance_between_slices_counts(self) -> None:
        one, other = volume(box((5, 6), (5, 6), (0, 1))), volume(box((5, 6), (5, 6), (2, 3)))
        assert patient_row("a", one, other)["hd95"] == pytest.approx(10)
        one.meta["spacing_known"] = False
        assert patient_row("a", one, other)["hd95"] == pytest.approx(2)

    def test_plain_tensors_are_in_pixels(self) -> None:
        row = patient_row("a", volume(SHIFTED).as_tensor(), volume(TUMOUR).as_tensor())
        assert (row["hd95"], row["distance_unit"]) == (pytest.approx(1), "pixel")

    def test_agreement_is_perfect(self) -> None:
        row = patient_row("a", volume(TUMOUR), volume(TUMOUR))
        assert (row["dice"], row["hd95"], row["surface_dice"]) == (1, 0, 1)

    @pytest.mark.parametrize(("tolerance", "agrees"), [(1.9, False), (2.0, True)])
    def test_surfaces_agree_within_the_tolerance(self, tolerance: float, agrees: bool) -> None:
        row = patient_row("a", volume(SHIFTED), volume(TUMOUR), surface_tolerance=tolerance)
        assert (row["surface_dice"] == pytest.approx(1)) is agrees
        assert 0 < row["surface_dice"] <= 1

    def test_tolerance_is_in_pixels_where_spacing_is_unknown(self) -> None:
        row = patient_row("a", volume(SHIFTED, spacing_known=False), volume(TUMOUR), surface_tolerance=1.0)
        assert row["surface_dice"] == pytest.approx(1)

    def test_nothing_to_find_and_nothing_found_has_no_distance(self) -> None:
        row = patient_row("a", volume(), volume())
        assert row["dice"] == 1
        assert math.isnan(row["hd95"])
        assert math.isnan(row["surface_dice"])

    @pytest.mark.parametrize(("pred", "label"), [((TUMOUR,), ()), ((), (TUMOUR,))], ids=["false tumour", "missed"])
    @pytest.mark.parametrize(
        ("spacing_known", "diagonal"), [(True, math.hypot(12 * 2, 10 * 1, 4 * 5)), (False, math.hypot(12, 10, 4))]
    )
    def test_one_empty_mask_is_as_far_as_the_volume_allows(
        self, pred: tuple, label: tuple, spacing_known: bool, diagonal: float
    ) -> None:
        row = patient_row("a", volume(*pred, spacing_known=spacing_known), volume(*label))
        assert (row["dice"], row["surface_dice"]) == (0, 0)
        assert row["hd95"] == pytest.approx(diagonal)

    @pytest.mark.parametrize(
        "unknown",
        [
            {"slice_spacing_known": False},
            {"spacing_known": False},
            {"spacing_known": False} | {"slice_spacing_known": False},
        ],
    )
    def test_patient_row_is_in_mm_only_if_all_three_spacings_are_known(self, unknown: dict) -> None:
        one, other = volume(box((5, 6), (5, 6), (0, 1)), **unknown), volume(box((5, 6), (5, 6), (2, 3)))
        row = patient_row("a", one, other)
        assert (row["hd95"], row["distance_unit"]) == (pytest.approx(2), "pixel")

    @pytest.mark.parametrize("at", [(0, 4), (8, 12)])
    def test_tumour_at_the_edge_of_the_volume(self, at: tuple[int, int]) -> None:
        edge = volume(box(at, (0, 10), (0, 4)))
        row = patient_row("a", edge, edge)
        assert (row["hd95"], row["surface_dice"]) == (0, 1)

    def test_patient_row_does_not_depend_on_the_size_of_the_volume(self) -> None:
        small = patient_row("a", volume(SHIFTED, shape=(12, 10, 4)), volume(TUMOUR, shape=(12, 10, 4)))
        large = patient_row("a", volume(SHIFTED, shape=(40, 30, 4)), volume(TUMOUR, shape=(40, 30, 4)))
        assert small == large

    def test_patient_row_takes_a_single_slice(self) -> None:
        one = box((2, 6), (3, 7), (0, 1)), box((3, 7), (3, 7), (0, 1))
        row = patient_row("a", volume(one[0], shape=(12, 10, 1)), volume(one[1], shape=(12, 10, 1)))
        assert row["hd95"] == pytest.approx(2)
        assert row["slices"] == 1


def patient(case: str, dice: float, hd95: float = math.nan, unit: str = "mm", voxels: tuple[int, int] = (5, 5)) -> dict:
    scores = {"case": case, "dice": dice, "hd95": hd95, "surface_dice": dice, "distance_unit": unit}
    return {**scores, "label_voxels": voxels[0], "pred_voxels": voxels[1]}


def slices_of(case: str, *dice: float, label: int = 5, pred: int = 5) -> list[dict]:
    scores = [{"dice": d, "precision": d, "recall": d} for d in dice]
    return [
        {"case": case, "slice": n + 1, **s, "label_pixels": label, "pred_pixels": pred} for n, s in enumerate(scores)
    ]


def by_brute_force(
    pred: np.ndarray, label: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> tuple[float, float]:
    """HD95 and surface Dice of masks of boxes, by the definition: each element of surface, its distance to all others.

    An element lies where eight voxels meet. On a side of a box its area is that of a voxel's face, on an edge that of
    the rectangle that cuts the edge off, at a corner that of the triangle that cuts the corner off.
    """

    def elements(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.pad(mask, 1)
        points, areas = [], []
        h = np.array(spacing) / 2
        for place in np.ndindex(*(n - 1 for n in padded.shape)):
            cell = padded[tuple(slice(p, p + 2) for p in place)]
            if cell.sum() in (1, 7):  # a corner: the triangle through the middles of three edges
                a, b, c = np.diag(h)
                area = np.linalg.norm(np.cross(b - a, c - a)) / 2
            elif cell.sum() in (2, 6):  # an edge: a rectangle along the axis that both voxels lie on
                (along,) = (axis for axis in range(3) if (cell.sum(axis=axis) != 1).all())
                across = [h[axis] for axis in range(3) if axis != along]
                area = 2 * h[along] * np.hypot(*across)
            elif cell.sum() == 4:  # a face
                (across,) = (axis for axis in range(3) if (cell.sum(axis=axis) == 1).all())
                area = np.prod([2 * h[axis] for axis in range(3) if axis != across])
            else:
                continue
            points.append(np.array(place) * spacing)
            areas.append(area)
        return np.array(points), np.array(areas)

    (a, area_a), (b, area_b) = elements(pred), elements(label)
    all_distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    hd95 = within = 0.0
    for distances, areas in ((all_distances.min(axis=1), area_a), (all_distances.min(axis=0), area_b)):
        order = np.argsort(distances)
        reached = np.cumsum(areas[order]) / areas.sum()
        hd95 = max(hd95, distances[order][min(np.searchsorted(reached, 0.95), len(order) - 1)])
        within += areas[distances <= tolerance].sum()
    return hd95, within / (area_a.sum() + area_b.sum())


class TestSurfaces:
    def test_surfaces_of_two_cubes_agree_with_those_by_hand(self) -> None:
        """Two voxels of 1 mm next but one: each surface has 8 corners, 4 of them 1 mm nearer to the other."""
        one, other = (volume(box((5, 6), column, (1, 2))) for column in ((2, 3), (4, 5)))
        one.affine = other.affine = torch.eye(4)
        row = patient_row("a", one, other, surface_tolerance=1.0)
        # Corners lie at columns 2 and 3, and 4 and 5: half of either is 1 away, half 2.
        assert row["hd95"] == pytest.approx(2)
        assert row["surface_dice"] == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("pred", "label"),
        [
            (SHIFTED, TUMOUR),
            (box((2, 9), (3, 5), (1, 3)), box((4, 8), (2, 9), (1, 4))),
            (box((0, 3), (0, 10), (0, 2)), box((1, 12), (3, 5), (0, 2))),
        ],
        ids=["shifted", "crossed", "at the edges of the volume"],
    )
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.94, 0.94, 5.0), (2.0, 1.0, 0.7)])
    def test_surfaces_are_those_of_the_definition(
        self, pred: Box, label: Box, spacing: tuple[float, float, float]
    ) -> None:
        masks = [volume(pred), volume(label)]
        for mask in masks:
            mask.affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
        row = patient_row("a", *masks, surface_tolerance=1.5)
        expected = by_brute_force(*(mask[0].numpy() > 0 for mask in masks), spacing, 1.5)
        assert (row["hd95"], row["surface_dice"]) == pytest.approx(expected, rel=1e-5)

    def test_surfaces_of_a_square_in_one_slice_are_its_outline(self) -> None:
        """4 x 4 pixels of 2 x 1 mm, a row apart: an outline has four corners, and three steps on each side."""
        one, other = (volume(box(rows, (3, 7), (0, 1)), shape=(12, 10, 1)) for rows in ((3, 7), (2, 6)))
        row = patient_row("a", one, other, surface_tolerance=1.0)
        corner = math.hypot(2, 1) / 2
        outline = 4 * corner + 2 * 3 * 2 + 2 * 3 * 1
        # 2 mm away: the side outside the other square whole, and the middle of the side within it.
        assert row["hd95"] == pytest.approx(2)
        assert row["surface_dice"] == pytest.approx(1 - (2 * corner + 3 + 1) / outline)

    def test_surfaces_of_a_lesion_in_one_slice_of_several_are_solid(self) -> None:
        """Nothing but the caps of a plate that is 40 mm wide counts as 95 %: the border may be anywhere."""
        shape = (44, 44, 3)
        plate, smaller = (volume(box((2, end), (2, 42), (1, 2)), shape=shape) for end in (42, 41))
        assert patient_row("a", plate, smaller)["hd95"] == 0


class TestSummarise:
    @pytest.fixture
    def summary(self) -> dict:
        patients = [patient("a", 0.9, 2.0), patient("b", 0.8, 4.0), patient("c", 0.1, voxels=(0, 0))]
        slices = [
            *slices_of("a", 0.9, 0.8),
            *slices_of("b", 0.5),
            *slices_of("b", 1.0, 1.0, label=0, pred=0),
            *slices_of("c", 0.0, label=0),
        ]
        return summarize(patients, slices)

    def test_summary_counts_patients_and_slices(self, summary: dict) -> None:
        assert (summary["patients"], summary["slices"], summary["tumour_slices"]) == (3, 6, 3)

    def test_summary_averages_over_slices(self, summary: dict) -> None:
        by_slice = summary["slice_protocol"]
        assert by_slice["dice"]["mean"] == pytest.approx((0.9 + 0.8 + 0.5 + 1 + 1 + 0) / 6)
        assert by_slice["dice_of_tumour_slices"]["mean"] == pytest.approx((0.9 + 0.8 + 0.5) / 3)
        assert by_slice["healthy_slices_with_false_tumour"]["mean"] == pytest.approx(1 / 3)

    def test_summary_averages_over_patients(self, summary: dict) -> None:
        dice = summary["patient_protocol"]["dice"]
        assert dice["patients"] == 3
        assert dice["mean"] == pytest.approx(0.6)
        assert dice["median"] == pytest.approx(0.8)
        assert dice["lowest"] == 0.1

    def test_summary_leaves_out_patients_without_a_distance(self, summary: dict) -> None:
        distance = summary["patient_protocol"]["hd95_mm"]
        assert (distance["patients"], distance["mean"]) == (2, pytest.approx(3))
        assert (distance["one_mask_empty"], distance["both_masks_empty"]) == (0, 1)

    def test_a_missed_tumour_worsens_the_means(self) -> None:
        cases = {
            "found": patient_row("found", volume(SHIFTED), volume(TUMOUR)),
            "missed": patient_row("missed", volume(), volume(TUMOUR)),
        }
        slices = {
            "found": slice_rows("found", volume(SHIFTED), volume(TUMOUR)),
            "missed": slice_rows("missed", volume(), volume(TUMOUR)),
        }
        alone = summarize([cases["found"]], slices["found"])["patient_protocol"]
        both = summarize([*cases.values()], [row for rows in slices.values() for row in rows])["patient_protocol"]
        assert both["hd95_mm"]["mean"] > alone["hd95_mm"]["mean"]
        assert both["surface_dice_mm"]["mean"] == pytest.approx(alone["surface_dice_mm"]["mean"] / 2)
        assert (both["hd95_mm"]["patients"], both["hd95_mm"]["one_mask_empty"]) == (2, 1)

    def test_intervals_hold_their_means(self, summary: dict) -> None:
        low, high = summary["slice_protocol"]["dice"]["interval"]
        assert 0 <= low < summary["slice_protocol"]["dice"]["mean"] < high <= 1
        dice = summary["patient_protocol"]["dice"]
        for name in ("mean", "median"):
            low, high = dice[f"{name}_interval"]
            assert 0.1 <= low <= dice[name] <= high <= 0.9

    def test_intervals_over_slices_weigh_patients_by_their_slices(self) -> None:
        small = [f"small {n}" for n in range(19)]
        slices = [*slices_of("large", *[1.0] * 80), *(row for case in small for row in slices_of(case, 0.0))]
        summary = summarize([patient(case, 0.5) for case in ("large", *small)], slices)
        assert summary["slice_protocol"]["dice"]["mean"] == pytest.approx(80 / 99)
        assert summary["slice_protocol"]["dice"]["interval"][1] > 80 / 99

    def test_summary_does_not_mix_units(self) -> None:
        rows = [patient("a", 0.9, 2.0), patient("b", 0.8, 9.0, "pixel")]
        protocol = summarize(rows, [*slices_of("a", 0.9), *slices_of("b", 0.8)])["patient_protocol"]
        assert (protocol["hd95_mm"]["mean"], protocol["hd95_pixel"]["mean"]) == (2, 9)
        assert protocol["hd95_mm"]["patients"] == protocol["hd95_pixel"]["patients"] == 1

    def test_one_patient_has_no_interval(self) -> None:
        summary = summarize([patient("a", 0.9, 2.0)], slices_of("a", 0.9, 0.7))
        assert summary["slice_protocol"]["dice"] == {"mean": pytest.approx(0.8), "interval": None}
        assert summary["patient_protocol"]["dice"]["mean_interval"] is None

    def test_patients_without_tumour_and_without_error(self) -> None:
        cases = "ab"
        rows = [patient(case, 1.0, voxels=(0, 0)) for case in cases]
        summary = summarize(rows, [row for case in cases for row in slices_of(case, 1.0, label=0, pred=0)])
        assert summary["slice_protocol"]["dice_of_tumour_slices"] == {"mean": None, "interval": None}
        assert summary["slice_protocol"]["healthy_slices_with_false_tumour"]["mean"] == 0
        assert summary["patient_protocol"]["hd95_mm"]["mean"] is None
        assert summary["patient_protocol"]["hd95_mm"]["patients"] == 0

    def test_summary_repeats(self) -> None:
        rows, slices = [patient("a", 0.9), patient("b", 0.2)], [*slices_of("a", 0.9), *slices_of("b", 0.2)]
        assert json.dumps(summarize(rows, slices)) == json.dumps(summarize(rows, slices))

    def test_summary_needs_a_patient(self) -> None:
        with pytest.raises(ValueError, match="no patient"):
            summarize([], [])

    def test_summary_reads_as_text(self, summary: dict) -> None:
        text = describe(summary)
        assert "3 patients, 6 slices, 3 with tumour" in text
        assert "mean Dice 0.6000 [" in text
        assert "lowest 0.1000" in text
        assert "HD95 in mm: mean 3.0000" in text
        assert "2 patients, 0 of them with one mask empty" in text
        assert "1 with both masks empty left out" in text

    def test_text_says_what_a_pixel_is_between_slices(self) -> None:
        text = describe(summarize([patient("a", 0.9, 2.0, "pixel")], slices_of("a", 0.9)))
        assert "HD95 in pixels (slices count as 1 apart)" in text

    def test_summary_reads_as_text_where_there_is_nothing_to_say(self) -> None:
        text = describe(summarize([patient("a", 1.0)], slices_of("a", 1.0, label=0, pred=0)))
        assert "Dice of tumour slices none" in text
        assert "mean Dice 1.0000, median" in text


class TestBootstrapInterval:
    def test_bootstrap_interval_is_that_of_the_mean_of_many(self) -> None:
        values = np.random.default_rng(1).normal(10, 2, 400)
        low, high = bootstrap_interval((values,), np.mean)
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)

    def test_narrows_to_a_point_where_all_agree(self) -> None:
        assert bootstrap_interval((np.full(5, 0.7),), np.median) == pytest.approx([0.7, 0.7])

    @pytest.mark.parametrize("number", [0, 1])
    def test_bootstrap_interval_needs_two_patients(self, number: int) -> None:
        assert bootstrap_interval((np.ones(number),), np.mean) is None

    def test_bootstrap_interval_depends_on_the_seed_alone(self) -> None:
        values = np.random.default_rng(1).normal(size=10)
        first, second, other = (bootstrap_interval((values,), np.mean, seed=seed) for seed in (0, 0, 1))
        assert first == second != other

    def test_bootstrap_interval_is_that_of_patients_drawn_with_replacement(self) -> None:
        values, weights = np.random.default_rng(1).random((2, 12))
        drawn = np.random.default_rng(5).integers(12, size=(300, 12))
        expected = np.percentile(values[drawn].sum(axis=1) / weights[drawn].sum(axis=1), (2.5, 97.5))
        ratio = bootstrap_interval(
            (values, weights), lambda v, w, axis: v.sum(axis) / w.sum(axis), resamples=300, seed=5
        )
        assert ratio == pytest.approx(expected)


def _flag_empty_masks(engine: Engine) -> None:
    for output in engine.state.output:
        if not output["pred"].any():
            add_flag(output["pred"].meta, "nothing_found", "Nothing was found.")


def _keep_probability(engine: Engine) -> None:
    for output in engine.state.output:
        output["probability"] = output["pred"] * 0.9


class TestEvaluationWriter:
    @pytest.fixture
    def cases(self) -> list[dict]:
        """A shifted prediction, a perfect one of another size, a patient without tumour; the network adds nothing."""
        return [
            {"image": volume(SHIFTED, case="a"), "label": volume(TUMOUR, case="a"), "group": "CS"},
            {
                "image": volume(TUMOUR, shape=(14, 10, 6), case="b", spacing_known=False),
                "label": volume(TUMOUR, shape=(14, 10, 6), case="b", spacing_known=False),
                "group": "",
            },
            {"image": volume(case="c"), "label": volume(case="c")},
        ]

    @pytest.fixture
    def evaluator(self, cases: list[dict], tmp_path: Path) -> SupervisedEvaluator:
        writer = EvaluationWriter(tmp_path / "results", resamples=50, facts={"section": "validation"})
        metric = IgniteMetricHandler(SliceProtocolMetric(), output_transform=from_engine(["pred", "label"]))
        return SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(cases), batch_size=1),
            network=torch.nn.Identity(),
            postprocessing=AsDiscreted("pred", threshold=0.5),
            key_val_metric={"slice_dice": metric},
            val_handlers=[writer],
        )

    def test_estimates_of_quality_and_flags_stand_beside_dice(
        self, evaluator: SupervisedEvaluator, cases: list[dict], tmp_path: Path
    ) -> None:
        quality = CaseQuality(False)
        quality.fitted = {
            "declared_for": {},
            "expected_dice": {"slope": 0.6, "least": 0.1, "most": 1.2, "base": 0.02},
            "volume": {"width": 2.0, "base": 0.02},
        }
        add_flag(cases[1]["image"].meta, "odd", "Look.")
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, _keep_probability)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, _flag_empty_masks)
        EvaluationWriter(tmp_path / "estimated", resamples=50, quality=quality).attach(evaluator)
        evaluator.run()
        with (tmp_path / "estimated" / "patients.csv").open(newline="") as stream:
            patients = list(csv.DictReader(stream))
        assert [bool(row["expected_dice"]) for row in patients] == [True, True, False]  # the last mask is empty
        assert float(patients[0]["volume_ratio_low"]) < 1 < float(patients[0]["volume_ratio_high"])
        assert [row["flags"] for row in patients] == ["", "odd", "nothing_found"]

    def test_evaluation_writer_writes_tables_whose_figures_agree(
        self, evaluator: SupervisedEvaluator, tmp_path: Path
    ) -> None:
        evaluator.run()
        folder = tmp_path / "results"
        assert sorted(file.name for file in folder.iterdir()) == ["metrics.json", "patients.csv", "slices.csv"]
        metrics = json.loads((folder / "metrics.json").read_text())
        with (folder / "patients.csv").open(newline="") as stream:
            patients = list(csv.DictReader(stream))
        with (folder / "slices.csv").open(newline="") as stream:
            slices = list(csv.DictReader(stream))

        assert [row["case"] for row in patients] == ["a", "b", "c"]
        assert [float(row["dice"]) for row in patients] == pytest.approx([0.75, 1, 1])
        assert [row["distance_unit"] for row in patients] == ["mm", "pixel", "mm"]
        assert [row["group"] for row in patients] == ["CS", "", ""]  # empty, or none in the data set
        assert [(row["case"], row["slice"]) for row in slices[3:6]] == [("a", "4"), ("b", "1"), ("b", "2")]
        assert len(slices) == metrics["slices"] == sum(int(row["slices"]) for row in patients) == 14
        assert metrics["patients"] == 3
        mean = sum(float(row["dice"]) for row in slices) / len(slices)
        assert metrics["slice_protocol"]["dice"]["mean"] == pytest.approx(mean)
        assert metrics["slice_protocol"]["dice"]["mean"] == pytest.approx(
            evaluator.state.metrics["slice_dice"], abs=1e-6
        )
        assert metrics["patient_protocol"]["dice"]["mean"] == pytest.approx(2.75 / 3)
        assert metrics["patient_protocol"]["hd95_mm"] == {
            **{"patients": 1, "mean": pytest.approx(2), "mean_interval": None},
            **{"median": pytest.approx(2), "median_interval": None},
            **{"one_mask_empty": 0, "both_masks_empty": 1},
        }

    def test_evaluation_writer_says_what_was_evaluated_and_with_what(
        self, evaluator: SupervisedEvaluator, tmp_path: Path
    ) -> None:
        evaluator.run()
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert metrics["section"] == "validation"
        assert metrics["surface_tolerance"] == 2.0
        assert metrics["bootstrap_resamples"] == 50
        assert metrics["versions"]["torch"] == torch.__version__

    def test_says_which_weights_were_loaded(self, evaluator: SupervisedEvaluator, tmp_path: Path) -> None:
        evaluator.run()
        assert json.loads((tmp_path / "results" / "metrics.json").read_text())["checkpoint"] is None
        weights = tmp_path / "own.pt"
        torch.save(evaluator.network.state_dict(), weights)
        evaluator.state.loaded_weights = str(weights)
        evaluator.run()
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        assert (metrics["checkpoint"], metrics["checkpoint_sha256"]) == (str(weights), sha256(weights))

    def test_starts_anew_with_every_run(self, evaluator: SupervisedEvaluator, tmp_path: Path) -> None:
        evaluator.run()
        evaluator.run()
        assert json.loads((tmp_path / "results" / "metrics.json").read_text())["patients"] == 3

    def test_evaluation_writer_logs_both_protocols(
        self, evaluator: SupervisedEvaluator, caplog: pytest.LogCaptureFixture
    ) -> None:
        evaluator.logger.setLevel("INFO")
        with caplog.at_level("INFO"):
            evaluator.run()
        assert "slice protocol: dice" in caplog.text
        assert "patient protocol: mean Dice 0.9167" in caplog.text
