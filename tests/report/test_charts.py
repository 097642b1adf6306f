"""Charts as elements of a page: valid, readable by all, made of the right points, and the same each time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from mri_seg.report import charts
from mri_seg.report.compare import compare
from mri_seg.report.curves import calibration
from mri_seg.report.error_analysis import KINDS

SVG = "{http://www.w3.org/2000/svg}"
PATIENTS = [
    {
        "case": f"TCGA_{place}_{n:04d}_19990101",
        "dice": f"{0.75 + 0.02 * n}",
        "label_voxels": 900 * n,
        "pred_voxels": 1000,
        "group": place,
    }
    for n, place in enumerate(("CS", "CS", "HT", "HT", "HT"), start=1)
]
VOLUMES, UNIT = charts.tumor_volumes(PATIENTS, {})
COUNTS = np.random.default_rng(0).integers(1, 99, (2, 256)) * np.array([np.arange(256)[::-1], np.arange(256)])
ERRORS = [{"case": "a", **dict(zip(KINDS, (100, 50, 0, 250, 100)))}]
COMPARISON = compare(PATIENTS, [{**row, "dice": 0.8} for row in PATIENTS])

CHARTS: dict[str, Callable[[], str | None]] = {
    "groups": lambda: charts.dice_by_group(PATIENTS),
    "volumes": lambda: charts.dice_against_volume(PATIENTS, VOLUMES, UNIT),
    "bland_altman": lambda: charts.bland_altman(VOLUMES, UNIT),
    "precision_recall": lambda: charts.precision_recall_curve(COUNTS),
    "calibration": lambda: charts.calibration_curve(calibration(COUNTS)),
    "errors": lambda: charts.errors_bar(ERRORS),
    "comparison": lambda: charts.comparison_scatter(COMPARISON),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {name: draw() for name, draw in CHARTS.items()}


def words(svg: str) -> list[str]:
    """Texts that are seen."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def description(svg: str) -> str:
    return ElementTree.fromstring(svg).find(f"{SVG}desc").text


def points(svg: str) -> dict[str | None, str]:
    """Tooltip of each point by its case."""
    groups = ElementTree.fromstring(svg).iter(f"{SVG}g")
    return {g.get("data-case"): g.find(f"{SVG}title").text for g in groups if g.get("class") == "point"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Events of three epochs of ten iterations, the loss 1, 2 and 3 in each, and a fourth just begun."""
    with SummaryWriter(tmp_path) as writer:
        for epoch in (1, 2, 3):
            start = 1000.0 * epoch
            for n in range(10):
                writer.add_scalar("train/loss", epoch, 10 * (epoch - 1) + n + 1, walltime=start + n)
            writer.add_scalar("train/learning_rate", 1e-3 / epoch, epoch, walltime=start + 10)
            writer.add_scalar("validation/patient_dice", 0.2 * epoch, epoch, walltime=start + 20)
        writer.add_scalar("train/loss", 9.0, 31, walltime=4000.0)
        writer.add_scalar("train/loss", 9.0, 32, walltime=4001.0)
    return tmp_path


class TestEveryChart:
    @pytest.mark.parametrize("name", CHARTS)
    def test_every_chart_is_one_element_with_a_title_and_a_description_for_screen_readers(
        self, name: str, drawn: dict[str, str]
    ) -> None:
        root = ElementTree.fromstring(drawn[name])
        assert drawn[name].startswith("<svg ")
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert [root[0].tag, root[1].tag] == [f"{SVG}title", f"{SVG}desc"]
        assert root[0].get("id") == root.get("aria-labelledby")
        assert root[0].text
        assert root[1].get("id") == root.get("aria-describedby")
        assert root[1].text

    @pytest.mark.parametrize("name", CHARTS)
    def test_every_chart_takes_the_colour_of_the_page_and_leaves_the_page_alone(
        self, name: str, drawn: dict[str, str]
    ) -> None:
        svg = drawn[name]
        assert "currentColor" in svg
        assert not re.search(r"#0{6}|#f{6}|black|white|#010203", svg, re.IGNORECASE)
        assert "<style" not in svg  # it would hold for the whole page
        assert not re.search(r"https?://(?!www\.w3\.org/)", svg)
        assert "<metadata" not in svg

    @pytest.mark.parametrize("name", CHARTS)
    def test_every_chart_has_ids_of_its_own_and_points_to_no_other(self, name: str, drawn: dict[str, str]) -> None:
        ids = re.findall(r'\bid="([^"]+)"', drawn[name])
        assert len(ids) == len(set(ids))
        others = {n for key, svg in drawn.items() if key != name for n in re.findall(r'\bid="([^"]+)"', svg)}
        assert not others & set(ids)
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawn[name])) <= {
            pair for n in ids for pair in ((n, ""), ("", n))
        }

    def test_every_chart_is_the_same_each_time(self, drawn: dict[str, str]) -> None:
        assert {name: draw() for name, draw in CHARTS.items()} == drawn

    def test_every_chart_does_not_take_settings_of_the_user(self, drawn: dict[str, str]) -> None:
        import matplotlib

        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
            assert CHARTS["volumes"]() == drawn["volumes"]
            assert matplotlib.rcParams["font.size"] == 30

    def test_every_chart_labels_its_axes(self, drawn: dict[str, str]) -> None:
        labels = {
            "groups": ["Dice of the patient", "group, number of patients"],
            "volumes": ["Dice of the patient", "reference volume (voxels)"],
            "bland_altman": ["predicted − reference (voxels)", "mean of predicted and reference volume (voxels)"],
            "precision_recall": ["precision of voxels", "recall of voxels"],
            "calibration": ["mean probability of the bin", "observed fraction of tumour"],
            "errors": ["false pixels of all patients (percentage)"],
            "comparison": ["Dice, this", "Dice, the other"],
        }
        assert {
            name: [text for text in expected if text in words(drawn[name])] for name, expected in labels.items()
        } == (labels)

    def test_every_chart_escapes_names(self) -> None:
        name = "a\"<b>&'$x$"
        svg = charts.dice_by_group([{"case": name, "dice": 0.5}])
        assert points(svg) == {name: f"{name}: Dice 0.500"}

    def test_every_chart_is_none_when_there_is_nothing_to_draw(self, tmp_path: Path) -> None:
        nothing = np.zeros((2, 256), dtype=np.int64)
        assert charts.dice_by_group([]) is None
        assert charts.dice_against_volume([], {}, "mL") is None
        assert charts.bland_altman({}, "mL") is None
        assert charts.precision_recall_curve(nothing) is None
        assert charts.calibration_curve(calibration(nothing)) is None
        assert charts.errors_bar([]) is None
        assert charts.learning_curves(tmp_path) is None
        assert charts.learning_curves(tmp_path / "absent") is None


class TestTumourVolumes:
    def test_tumor_volumes_are_in_ml_where_all_voxels_are_known(self) -> None:
        volumes, unit = charts.tumor_volumes(PATIENTS[:2], {row["case"]: 5.0 for row in PATIENTS})
        assert unit == "mL"
        assert volumes[PATIENTS[1]["case"]] == (9.0, 5.0)

    def test_tumor_volumes_are_in_voxels_where_one_is_not(self) -> None:
        volumes, unit = charts.tumor_volumes(PATIENTS, {PATIENTS[0]["case"]: 5.0, PATIENTS[1]["case"]: None})
        assert unit == "voxels"
        assert volumes[PATIENTS[0]["case"]] == (900.0, 1000.0)


class TestDiceByGroup:
    def test_shows_each_patient_and_the_median_of_each_group(self, drawn: dict[str, str]) -> None:
        svg = drawn["groups"]
        assert list(points(svg)) == [row["case"] for row in PATIENTS]
        assert points(svg)[PATIENTS[0]["case"]] == f"{PATIENTS[0]['case']}: Dice 0.770"
        assert description(svg) == "CS: 2 patients, median 0.780; HT: 3 patients, median 0.830"

    def test_patients_without_a_group_stand_together(self) -> None:
        mine = [{"case": f"phantom_{n}", "dice": 0.5} for n in range(3)]
        assert description(charts.dice_by_group(mine)) == "all: 3 patients, median 0.500"
        assert description(charts.dice_by_group(mine + PATIENTS)).endswith("other: 3 patients, median 0.500")


class TestDiceAgainstVolume:
    def test_dice_against_volume_takes_patients_without_tumour(self) -> None:
        svg = charts.dice_against_volume(
            [{"case": "a", "dice": 1}, {"case": "b", "dice": 0}], {"a": (0, 0), "b": (20, 0)}, "mL"
        )
        assert points(svg) == {"a": "a: 0 mL, Dice 1.000", "b": "b: 20 mL, Dice 0.000"}


class TestBlandAltman:
    def test_bland_altman_tells_bias_and_limits(self) -> None:
        svg = charts.bland_altman({"a": (10.0, 12.0), "b": (20.0, 20.0), "c": (30.0, 34.0)}, "mL")
        assert description(svg) == "3 patients; bias 2 mL, 95 % limits of agreement −1.92 to 5.92 mL"
        assert "bias 2" in words(svg)

    def test_bland_altman_has_no_limits_for_one_patient(self) -> None:
        assert "bias" not in charts.bland_altman({"a": (10.0, 12.0)}, "mL")


class TestPrecisionRecallCurve:
    def test_precision_recall_curve_marks_the_threshold_chosen(self) -> None:
        counts = np.zeros((2, 256), dtype=np.int64)
        counts[0, [0, 200]], counts[1, [60, 200]] = (90, 5), (10, 15)
        assert description(charts.precision_recall_curve(counts)) == "threshold 0.5: precision 0.750, recall 0.600"
        lower = charts.precision_recall_curve(counts, threshold=0.2)
        assert "threshold 0.2: precision 0.833, recall 1.000" in words(lower)


class TestCalibrationCurve:
    def test_calibration_curve_tells_both_errors(self) -> None:
        counts = np.zeros((2, 256), dtype=np.int64)
        counts[0, [0, 255]], counts[1, 255] = (300, 50), 50
        assert "expected error 0.1250; 0.500 where p ≥ 0.05" in words(charts.calibration_curve(calibration(counts)))


class TestErrorsBar:
    def test_errors_bar_tells_pixels_and_share_of_each_kind(self, drawn: dict[str, str]) -> None:
        shown = [text.strip() for text in words(drawn["errors"])]
        assert "tumour missed at the border: 100 (20 %)" in shown
        assert "whole lesions missed: 0 (0 %)" in shown
        assert "prediction spilled over the border: 250 (50 %)" in shown

    def test_errors_bar_takes_a_prediction_without_errors(self) -> None:
        assert "separate false lesions: 0 (0 %)" in description(charts.errors_bar([dict.fromkeys(KINDS, 0)]))


class TestLearningCurves:
    def test_learning_curves_are_drawn_by_epoch(self, run: Path) -> None:
        svg = charts.learning_curves(run)
        assert {"epoch", "training loss", "validation Dice", "learning rate", "patients"} <= set(words(svg))
        assert description(svg) == (
            "training loss 9 at epoch 4; validation Dice 0.6 at epoch 3; learning rate 0.0003333 at epoch 3"
        )

    def test_learning_curves_are_drawn_without_a_validation(self, tmp_path: Path) -> None:
        with SummaryWriter(tmp_path) as writer:
            writer.add_scalar("train/loss", 0.5, 1)
            writer.add_scalar("train/loss", float("nan"), 2)
        assert description(charts.learning_curves(tmp_path)) == "training loss 0.5 at epoch 1"


class TestComparisonScatter:
    def test_comparison_scatter_tells_who_is_better(self, drawn: dict[str, str]) -> None:
        svg = drawn["comparison"]
        assert description(svg) == "5 patients: 3 better, 2 worse, 0 equal; mean difference +0.0100"
        assert points(svg)[PATIENTS[0]["case"]] == f"{PATIENTS[0]['case']}: Dice 0.770, the other 0.800"

    def test_comparison_scatter_shortens_long_names(self) -> None:
        svg = charts.comparison_scatter(COMPARISON, name="runs/" + "x" * 50 + "/last", other="b")
        assert any(re.fullmatch("Dice, …x+/last", text) for text in words(svg))
