"""Train, evaluate and infer on phantom cases by MONAI's own command line, as a newcomer does.

The first command is a process of its own, in a folder of its own; the others run in this one.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from command_line import ROOT, bundle
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mri_seg.utils.files import sha256

pytestmark = pytest.mark.interpreter
AS_PREDICTED = {
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
    "fill_holes": "false",
    "amp": "false",
}


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short training on phantom cases, started outside the repository: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("work")
    options = {
        "bundle_root": folder / "bundle",
        "dataset_dir": phantom,
        "split": phantom / "split.json",
        "output_dir": folder / "run",
        "epochs": 2,
        "slices_per_epoch": 32,
        "batch_size": 8,
        "spatial_size": "[64,64]",
        "roi_size": "[64,64]",
    }
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(ROOT / "bundle" / "configs" / "train.json")]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "run", result.stdout


@pytest.fixture(scope="module")
def inferred(run: tuple[Path, str], phantom: Path) -> Path:
    folder = run[0] / "inference"
    result = bundle(
        "inference",
        "inference.json",
        dataset_dir=phantom,
        checkpoint=run[0] / "model.pt",
        output_dir=folder,
        outputs="auto,probability",
        **AS_PREDICTED,
    )
    assert result.status == 0, result.stderr[-3000:]
    return folder


class TestTraining:
    def test_training_says_where_its_results_are(self, run: tuple[Path, str]) -> None:
        assert str(run[0]) in run[1].splitlines()[-1]

    def test_training_leaves_weights_and_a_record_of_itself(self, run: tuple[Path, str], phantom: Path) -> None:
        folder = run[0]
        assert (folder / "model.pt").is_file()
        assert (folder / "model_final.pt").is_file()
        assert json.loads((folder / "config.json").read_text())["epochs"] == 2
        record = json.loads((folder / "run.json").read_text())
        assert record["split"] == str(phantom / "split.json")
        assert record["seed"] == 0
        assert {"device", "amp", "command"} <= set(record)
        assert "torch" in record["versions"]

    def test_tensorboard_shows_loss_rate_metrics_and_slices(self, run: tuple[Path, str]) -> None:
        tags: dict[str, list] = {"scalars": [], "images": []}
        for file in run[0].glob("events.out.tfevents.*"):
            events = EventAccumulator(str(file)).Reload()
            for kind, found in tags.items():
                found += [(tag, len(getattr(events, kind.title())(tag))) for tag in events.Tags()[kind]]
        scalars = dict(tags["scalars"])
        shown = {"train/loss", "train/learning_rate"}
        shown |= {f"validation/{name}" for name in ("patient_dice", "slice_dice", "slice_precision", "slice_recall")}
        assert shown <= set(scalars)
        assert scalars["validation/patient_dice"] == 2
        assert [number for _, number in tags["images"]] == [2]

    def test_weights_reach_the_bundle_only_when_asked(self, run: tuple[Path, str]) -> None:
        assert not (run[0].parent / "bundle").exists()

    def test_published_recipe_runs_and_its_weights_reach_the_bundle_when_asked(
        self, phantom: Path, tmp_path: Path
    ) -> None:
        result = bundle(
            "training",
            "train.json",
            "published_recipe.json",
            dataset_dir=phantom,
            split=phantom / "split.json",
            output_dir=tmp_path / "run",
            bundle_root=tmp_path / "bundle",
            save_to_bundle="last",
            epochs=1,
            spatial_size="[32,32]",
        )
        assert result.status == 0, result.stderr[-3000:]
        assert (tmp_path / "run" / "model_final.pt").is_file()
        shipped = tmp_path / "bundle" / "models" / "model.pt"
        assert shipped.read_bytes() == (tmp_path / "run" / "model_final.pt").read_bytes()
        assert (shipped.parent / "SHA256SUMS").read_text() == f"{sha256(shipped)}  model.pt\n"

    def test_a_patient_in_two_sections_stops_it_with_the_name(self, phantom: Path, tmp_path: Path) -> None:
        split = json.loads((phantom / "split.json").read_text())
        patient = next(iter(split["training"]))
        split["validation"][patient] = split["training"][patient]
        (tmp_path / "split.json").write_text(json.dumps(split))
        result = bundle(
            "training", "train.json", dataset_dir=phantom, split=tmp_path / "split.json", output_dir=tmp_path
        )
        assert result.status != 0
        assert patient in result.stderr


class TestEvaluation:
    @pytest.mark.parametrize("section", ["validation", "test"])
    def test_evaluation_writes_both_protocols(
        self, run: tuple[Path, str], phantom: Path, tmp_path: Path, section: str
    ) -> None:
        result = bundle(
            "evaluation",
            "train.json",
            "evaluate.json",
            dataset_dir=phantom,
            split=phantom / "split.json",
            section=section,
            checkpoint=run[0] / "model.pt",
            output_dir=tmp_path,
        )
        assert result.status == 0, result.stderr[-3000:]
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        patients = list(csv.DictReader((tmp_path / "patients.csv").read_text(encoding="utf-8").splitlines()))
        slices = list(csv.DictReader((tmp_path / "slices.csv").read_text(encoding="utf-8").splitlines()))
        assert [row["case"] for row in patients] == sorted(json.loads((phantom / "split.json").read_text())[section])
        assert metrics["slices"] == len(slices)
        assert metrics["section"] == section
        mean = np.mean([float(row["dice"]) for row in slices])
        assert metrics["slice_protocol"]["dice"]["mean"] == pytest.approx(mean)
        mean = np.mean([float(row["dice"]) for row in patients])
        assert metrics["patient_protocol"]["dice"]["mean"] == pytest.approx(mean)


class TestInference:
    def test_inference_writes_a_volume_and_a_mask_a_slice_in_the_geometry_of_the_input(
        self, inferred: Path, phantom: Path
    ) -> None:
        for patient in phantom.glob("PHANTOM_*"):
            volume = nibabel.load(inferred / patient.name / f"{patient.name}_mask.nii.gz")
            images = [file for file in patient.glob("*.tif") if not file.stem.endswith("_mask")]
            assert volume.shape == (64, 64, len(images))
            assert volume.get_data_dtype() == np.uint8
            assert nibabel.aff2axcodes(volume.affine) == ("P", "L", "S")
            for file in images:
                number = int(file.stem.rpartition("_")[2])
                mask = tifffile.imread(inferred / patient.name / f"{file.stem}_mask.tif")
                np.testing.assert_array_equal(mask > 0, volume.dataobj[..., number - 1] > 0)

    def test_probability_agrees_with_the_mask(self, inferred: Path) -> None:
        for mask in inferred.glob("*/*_mask.nii.gz"):
            probability = nibabel.load(str(mask).replace("_mask.", "_probability.")).get_fdata()
            np.testing.assert_array_equal(probability >= 0.5, nibabel.load(mask).get_fdata() > 0)

    def test_inference_draws_a_sheet_and_a_panel(self, inferred: Path) -> None:
        for folder in filter(Path.is_dir, inferred.iterdir()):
            for kind in ("sheet", "panel"):
                with Image.open(folder / f"{folder.name}_{kind}.png") as picture:
                    assert picture.size > (100, 100)

    def test_inference_leaves_nothing_else(self, inferred: Path) -> None:
        kinds = {file.name.replace(file.parent.name, "") for file in inferred.glob("*/*")}
        assert {kind for kind in kinds if not kind.endswith("_mask.tif")} == {
            ".html",
            "_mask.nii.gz",
            "_measurements.json",
            "_probability.nii.gz",
            "_provenance.json",
            "_sheet.png",
            "_panel.png",
        }

    def test_nifti_of_another_orientation_gives_the_same_mask(
        self, inferred: Path, run: tuple[Path, str], phantom: Path, tmp_path: Path
    ) -> None:
        patient = sorted(phantom.glob("PHANTOM_*"))[0]
        files = sorted(patient.glob("*[0-9].tif"), key=lambda file: int(file.stem.rpartition("_")[2]))
        volume = np.stack([tifffile.imread(file)[..., 1] for file in files], axis=-1)
        affine = np.array([[0, -0.94, 0, 0], [-0.94, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1.0]])  # not resampled
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
        (tmp_path / "in").mkdir()
        nibabel.save(image, tmp_path / "in" / "study.one.nii.gz")
        result = bundle(
            "inference",
            "inference.json",
            dataset_dir=tmp_path / "in",
            checkpoint=run[0] / "model.pt",
            output_dir=tmp_path / "out",
            outputs="mask,probability",
            **AS_PREDICTED,
        )
        assert result.status == 0, result.stderr[-3000:]
        mask = nibabel.load(tmp_path / "out" / "study.one" / "study.one_mask.nii.gz")
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        study, case = (
            {
                kind: nibabel.as_closest_canonical(nibabel.load(f"{folder}/{folder.name}_{kind}.nii.gz")).get_fdata()
                for kind in ("mask", "probability")
            }
            for folder in (tmp_path / "out" / "study.one", inferred / patient.name)
        )
        np.testing.assert_allclose(study["probability"], case["probability"], rtol=0, atol=1e-3)
        undecided = np.abs(case["probability"] - 0.5) <= 1e-3  # rounding may fall either way
        np.testing.assert_array_equal(study["mask"][~undecided], case["mask"][~undecided])
        assert not list((tmp_path / "out").glob("*/*.tif"))
