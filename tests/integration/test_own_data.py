"""Train, evaluate and check the same cases in every form of data set, by the commands that users type."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import Ended, bundle, module
from data_set_forms import FORMS, PATIENTS, SECTIONS, lgg, make_cases, options_of

SMALL = {"network_def#channels": "[2,4]", "spatial_size": "[64,64]", "roi_size": "[32,32]", "amp": "false"}
QUICK = {**SMALL, "epochs": 1, "slices_per_epoch": 8, "batch_size": 4, "num_workers": 0}


def train(output_dir: Path, **options: object) -> Ended:
    return bundle("training", "train.json", output_dir=output_dir, **{**QUICK, **options})


def evaluate(output_dir: Path, weights: Path, **options: object) -> Ended:
    options = {
        **SMALL,
        "checkpoint": weights,
        "min_lesion_volume": 0,
        "min_brain_fraction": 0,
        "min_lesion_fraction": 0,
        "min_lesion_slices": 1,
        "report": "false",
        **options,
    }
    return bundle("evaluation", "train.json", "evaluate.json", output_dir=output_dir, **{"threshold": 0.4, **options})


def dice_of(folder: Path) -> list[float]:
    with open(folder / "patients.csv", encoding="utf-8") as file:
        return [float(row["dice"]) for row in csv.DictReader(file)]


def workflow(form: str, folder: Path) -> tuple[list[float], list[float], Ended]:
    """Dice of training and validation patients after a training, and the check."""
    root = folder / "data"
    FORMS[form](root, make_cases())
    options = options_of(form, root)
    ended = train(folder / "run", **options)
    assert ended.status == 0, ended.stderr[-3000:]
    found = []
    for section in SECTIONS:
        ended = evaluate(folder / section, folder / "run" / "model.pt", section=section, **options)
        assert ended.status == 0, ended.stderr[-3000:]
        found.append(dice_of(folder / section))
    words = ["--datalist", str(options["datalist"])] if "datalist" in options else []
    return found[0], found[1], module("mri_seg.datasets", "check", str(root), *words)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], list[float], Ended]:
    return workflow("TCGA-LGG", tmp_path_factory.mktemp("lgg"))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_evaluates_and_is_checked_with_the_same_dice(
    form: str, reference: tuple[list[float], list[float], Ended], tmp_path: Path
) -> None:
    training, validation, checked = workflow(form, tmp_path)
    assert len(training) == len(SECTIONS["training"])
    assert max(training + validation) > 0
    assert training == pytest.approx(reference[0], abs=1e-6)
    assert validation == pytest.approx(reference[1], abs=1e-6)
    assert checked.status == 0, checked.stderr + checked.stdout
    assert checked.stdout.splitlines()[-1] == "no defects"


class TestSplits:
    def test_training_without_a_split_draws_one_by_patient_and_writes_it_for_the_evaluation(
        self, tmp_path: Path
    ) -> None:
        FORMS["pairs with _mask"](tmp_path / "data", make_cases())
        ended = train(tmp_path / "run", dataset_dir=tmp_path / "data")
        assert ended.status == 0, ended.stderr[-3000:]
        split = json.loads((tmp_path / "run" / "split.json").read_text())
        assert sorted([*split["training"], *split["validation"]]) == list(PATIENTS)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["split"] == "random:4:0"

        options = {"dataset_dir": tmp_path / "data", "split": tmp_path / "run" / "split.json"}
        ended = evaluate(tmp_path / "evaluation", tmp_path / "run" / "model.pt", **options)
        assert ended.status == 0, ended.stderr[-3000:]
        with open(tmp_path / "evaluation" / "patients.csv", encoding="utf-8") as file:
            assert [row["case"] for row in csv.DictReader(file)] == split["validation"]

    def test_training_on_all_patients_ends_with_the_last_weights(self, tmp_path: Path) -> None:
        lgg(tmp_path / "data", make_cases())
        options = {"dataset_dir": tmp_path / "data", "split": "all", "bundle_root": tmp_path / "bundle"}
        ended = train(tmp_path / "run", save_to_bundle="best", **options)
        assert ended.status == 0, ended.stderr[-3000:]
        last = tmp_path / "run" / "model_final.pt"
        assert not (tmp_path / "run" / "model.pt").exists()
        assert (tmp_path / "bundle" / "models" / "model.pt").read_bytes() == last.read_bytes()
        assert json.loads((tmp_path / "run" / "split.json").read_text())["training"] == list(PATIENTS)

    def test_missing_sections_end_the_command_before_a_volume_is_read(self, tmp_path: Path) -> None:
        lgg(tmp_path / "data", make_cases())
        for file in tmp_path.glob("data/*/*.tif"):
            file.write_bytes(b"no image")
        split = {"training": list(PATIENTS[:2]), "validation": ["P07"]}
        (tmp_path / "split.json").write_text(json.dumps(split))
        ended = train(tmp_path / "run", dataset_dir=tmp_path / "data", split=tmp_path / "split.json")
        assert ended.status == 1
        assert "missing: P07" in ended.stderr or "in no section" in ended.stderr
        assert "cannot be read" not in ended.stderr


class TestLabels:
    def test_evaluation_counts_the_chosen_label_values_of_the_chosen_volume(self, tmp_path: Path) -> None:
        """Against a label whose lesion is another value, nothing is found."""
        FORMS["BraTS"](tmp_path / "data", make_cases(label_value=4))
        options = {"dataset_dir": tmp_path / "data", "split": "random:2:0", "label_values": "1,4"}
        ended = train(tmp_path / "run", **options)
        assert ended.status == 0, ended.stderr[-3000:]
        dice = []
        for values in ("1,4", "2"):
            folder = tmp_path / values
            ended = evaluate(
                folder, tmp_path / "run" / "model.pt", **{**options, "label_values": values, "threshold": 0}
            )
            assert ended.status == 0, ended.stderr[-3000:]
            dice.append(max(dice_of(folder)))
        assert dice[0] > 0 == dice[1]
