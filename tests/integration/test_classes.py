"""Several label classes, from training to the mask, on cases in the form of BraTS."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import Ended, bundle
from data_set_forms import FORMS, PATIENTS, SECTIONS, SHAPE, make_cases

SMALL = {"network_def#channels": "[2,4]", "amp": "false", "dataset_dir": "data"}
QUICK = {**SMALL, "spatial_size": "[64,64]", "roi_size": "[32,32]", "epochs": 1, "slices_per_epoch": 8, "batch_size": 4}
EVALUATION = {
    **SMALL,
    "report": "false",
    "section": "validation",
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
    "fill_holes": "false",
}
MODES = {
    "exclusive": ("1,2,4", {"1": (1,), "2": (2,), "4": (4,)}),
    "regions": ("[1,2,4],[1,4],[4]", {"1+2+4": (1, 2, 4), "1+4": (1, 4), "4": (4,)}),
}
(VALIDATED,) = SECTIONS["validation"]


def write_brats(root: Path, *, labels: dict[int, int] | None = None) -> None:
    """Heads whose tumour has edema (2) around a core (1) with an enhancing part (4); `labels` replaces values."""
    rows, columns, slices = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    cases = []
    for number, case in enumerate(make_cases()):
        distance = (rows - 20 - number) ** 2 + (columns - 14 - number) ** 2 + 9 * (slices - 2) ** 2
        label = np.select([distance < 8, distance < 20, distance < 40], [4, 1, 2], 0)
        for old, new in (labels or {}).items():
            label[label == old] = new
        cases.append(case._replace(label=label.astype(np.uint8)))
    FORMS["BraTS"](root, cases)


def classes_of(mode: str) -> dict[str, object]:
    return {"label_mode": mode, "label_values": MODES[mode][0]}


def split(folder: Path) -> Path:
    file = folder / "split.json"
    file.write_text(json.dumps({name: list(patients) for name, patients in SECTIONS.items()}))
    return file


def checked(ended: Ended) -> Ended:
    assert ended.status == 0, ended.stderr[-3000:]
    return ended


def evaluate(output_dir: Path, **options: object) -> Ended:
    return bundle("evaluation", "train.json", "evaluate.json", output_dir=output_dir, **{**EVALUATION, **options})


def patient(folder: Path) -> dict[str, str]:
    with open(folder / "patients.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row


def dice(pred: np.ndarray, label: np.ndarray, values: tuple[int, ...]) -> float:
    one, other = np.isin(pred, values), np.isin(label, values)
    total = one.sum() + other.sum()
    return 2 * (one & other).sum() / total if total else 1.0


def volume(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


@pytest.fixture(scope="module", params=MODES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A mode and a folder with `data`, a `split.json` and weights that were trained for a moment."""
    folder = tmp_path_factory.mktemp(request.param)
    write_brats(folder / "data")
    options = {"dataset_dir": folder / "data", "split": split(folder), "num_workers": 0, **classes_of(request.param)}
    checked(bundle("training", "train.json", output_dir=folder / "run", **{**QUICK, **options}))
    return request.param, folder


class TestTrained:
    def test_evaluation_scores_each_class_as_in_the_masks_that_inference_writes(
        self, trained: tuple[str, Path]
    ) -> None:
        mode, folder = trained
        shared = {**classes_of(mode), "checkpoint": folder / "run" / "model_final.pt", "threshold": 0.3}
        shared |= {
            "min_lesion_volume": 0,
            "min_brain_fraction": 0,
            "min_lesion_fraction": 0,
            "min_lesion_slices": 1,
            "fill_holes": "true",
        }
        given = {**shared, "dataset_dir": folder / "data", "split": folder / "split.json"}
        checked(evaluate(folder / "evaluation", **given))
        inference = {**SMALL, **shared, "dataset_dir": folder / "data" / VALIDATED, "outputs": "mask,probability,page"}
        checked(bundle("inference", "inference.json", output_dir=folder / "cases", **inference))
        (file,) = folder.glob("cases/*/*_mask.nii.gz")
        pred, label = volume(file), volume(folder / "data" / VALIDATED / f"{VALIDATED}_seg.nii.gz")
        assert set(np.unique(pred)) <= {0, 1, 2, 4}
        assert (pred > 0).any()
        row = patient(folder / "evaluation")
        found = {name.removeprefix("dice_"): float(value) for name, value in row.items() if name.startswith("dice_")}
        assert found == pytest.approx({name: dice(pred, label, values) for name, values in MODES[mode][1].items()})
        assert float(row["dice"]) == pytest.approx(dice(pred, label, (1, 2, 4)))
        assert int(row["pred_voxels"]) == (pred > 0).sum()
        summary = json.loads((folder / "evaluation" / "metrics.json").read_text())
        assert {name: one["mean"] for name, one in summary["patient_protocol"]["class_dice"].items()} == found
        (probability,) = folder.glob("cases/*/*_probability.nii.gz")
        assert (volume(probability)[pred == 0] < 0.3).all()

    def test_weights_are_refused_with_other_classes(self, trained: tuple[str, Path]) -> None:
        mode, folder = trained
        options = {**SMALL, "checkpoint": folder / "run" / "model_final.pt", "dataset_dir": folder / "data" / VALIDATED}
        other = {"label_mode": "regions", "label_values": "[1,2,3],[2,3],[3]"}
        ended = bundle("inference", "inference.json", output_dir=folder / "refused", **{**options, **other})
        assert ended.status == 1
        if mode == "regions":
            assert '--label_values "[[1,2,4],[1,4],[4]]"' in ended.stderr
        assert not list(folder.glob("refused/*/*_mask.nii.gz"))


@pytest.mark.parametrize("mode", MODES)
class TestPredictions:
    def test_mask_that_confuses_two_classes_loses_these_alone(self, mode: str, tmp_path: Path) -> None:
        write_brats(tmp_path / "data")
        write_brats(tmp_path / "other", labels={4: 1})
        (tmp_path / "masks").mkdir()
        for name in PATIENTS:
            file = tmp_path / "other" / name / f"{name}_seg.nii.gz"
            (tmp_path / "masks" / f"{name}_flair_mask.nii.gz").write_bytes(file.read_bytes())
        options = {"dataset_dir": tmp_path / "data", "split": split(tmp_path), "predictions": tmp_path / "masks"}
        checked(evaluate(tmp_path / "evaluation", **options, **classes_of(mode)))
        row = patient(tmp_path / "evaluation")
        found = {name: float(row[f"dice_{name}"]) for name in MODES[mode][1]}
        assert float(row["dice"]) == 1
        assert found["4"] == 0
        assert {name for name, value in found.items() if value == 1} == (
            {"2"} if mode == "exclusive" else {"1+2+4", "1+4"}
        )


class TestRefused:
    @pytest.mark.parametrize(
        ("mode", "values", "message"),
        [
            ("exclusive", None, "needs --label_values"),
            ("regions", "[1,2],[3]", "no part of the one before it"),
            ("exclusive", "[1,2],[2,3]", "2 is in several classes"),
            ("binary", "[1,2],[3]", "--label_mode is binary"),
            ("softmax", "1,2", "expected binary, exclusive or regions"),
        ],
    )
    def test_classes_that_make_no_sense_end_training_before_it_reads(
        self, mode: str, values: str | None, message: str, tmp_path: Path
    ) -> None:
        options = {"label_mode": mode, **({} if values is None else {"label_values": values})}
        ended = bundle("training", "train.json", output_dir=tmp_path / "run", dataset_dir=tmp_path, **options)
        assert ended.status == 1
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "run").exists()
