"""Several input sequences, from training to the mask, on cases in the form of BraTS."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import Ended, bundle, module
from data_set_forms import AFFINE, FORMS, SECTIONS, make_cases, nifti

SMALL = {
    "network_def#channels": "[2,4]",
    "amp": "false",
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
    "fill_holes": "false",
}
QUICK = {**SMALL, "spatial_size": "[64,64]", "roi_size": "[32,32]", "epochs": 1, "slices_per_epoch": 8, "batch_size": 4}
SEQUENCES = "t1ce,t2"
(VALIDATED,) = SECTIONS["validation"]


def checked(ended: Ended) -> Ended:
    assert ended.status == 0, ended.stderr[-3000:]
    return ended


def volume(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a `split.json` and weights that were trained for a moment on FLAIR, T1ce and T2."""
    folder = tmp_path_factory.mktemp("sequences")
    FORMS["BraTS"](folder / "data", make_cases())
    (folder / "split.json").write_text(json.dumps({name: list(patients) for name, patients in SECTIONS.items()}))
    data = {"dataset_dir": folder / "data", "split": folder / "split.json", "num_workers": 0}
    checked(bundle("training", "train.json", output_dir=folder / "run", sequences=SEQUENCES, **{**QUICK, **data}))
    return folder


def infer(folder: Path, dataset_dir: Path, **options: object) -> Ended:
    weights = folder.parent / "run" / "model_final.pt"
    options = {"sequences": SEQUENCES, "outputs": "mask,probability,page", "threshold": 0.3, **options}
    options |= {"dataset_dir": dataset_dir, "checkpoint": weights}
    return bundle("inference", "inference.json", output_dir=folder, **{**SMALL, **options})


class TestSequences:
    def test_evaluation_scores_the_mask_that_inference_writes(self, trained: Path) -> None:
        weights = trained / "run" / "model_final.pt"
        options = {"dataset_dir": trained / "data", "split": trained / "split.json", "checkpoint": weights}
        options |= {"threshold": 0.3, "sequences": SEQUENCES, "report": "true"}
        output_dir = trained / "evaluation"
        checked(bundle("evaluation", "train.json", "evaluate.json", output_dir=output_dir, **{**SMALL, **options}))
        with open(trained / "evaluation" / "patients.csv", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        checked(infer(trained / "cases", trained / "data" / VALIDATED))
        (file,) = (trained / "cases").glob("*/*_mask.nii.gz")
        pred, label = volume(file) > 0, volume(trained / "data" / VALIDATED / f"{VALIDATED}_seg.nii.gz") > 0
        assert int(row["pred_voxels"]) == pred.sum() > 0
        assert float(row["dice"]) == pytest.approx(2 * (pred & label).sum() / (pred.sum() + label.sum()))

    def test_network_sees_each_sequence_and_the_record_names_its_file(self, trained: Path, tmp_path: Path) -> None:
        found = []
        for name in ("as it is", "t1ce", "t2"):
            (case,) = (make_cases()[3],)
            FORMS["BraTS"](tmp_path / name, [case])
            if name in SEQUENCES:
                file = tmp_path / name / case.name / f"{case.name}_{name}.nii.gz"
                nifti(file, np.random.default_rng(1).integers(0, 255, case.image.shape).astype(np.uint8), AFFINE)
            checked(infer(trained / name, tmp_path / name))
            (file,) = (trained / name).glob("*/*_probability.nii.gz")
            found.append(volume(file))
            (record,) = (trained / name).glob("*/*_provenance.json")
            files = json.loads(record.read_text())["sequences"]["files"]
            assert files == [f"{VALIDATED}_t1ce.nii.gz", f"{VALIDATED}_t2.nii.gz"]
        assert not np.allclose(found[0], found[1], atol=1e-3)
        assert not np.allclose(found[0], found[2], atol=1e-3)

    def test_case_without_a_sequence_fails_with_its_name_and_weights_with_other_sequences_are_refused(
        self, trained: Path, tmp_path: Path
    ) -> None:
        FORMS["BraTS"](tmp_path / "data", make_cases()[3:])
        ended = infer(trained / "refused", tmp_path / "data", sequences="t2,t1ce")
        assert ended.status == 1
        assert "--sequences" in ended.stderr
        (tmp_path / "data" / VALIDATED / f"{VALIDATED}_t2.nii.gz").unlink()
        ended = infer(trained / "missing", tmp_path / "data")
        assert ended.status == 1
        assert "expected one volume beside it that is its sequence t2, found none" in ended.stdout
        assert not [*trained.glob("refused/*/*_mask.nii.gz"), *trained.glob("missing/*/*_mask.nii.gz")]


class TestCheck:
    def test_check_finds_sequences_that_are_missing_or_in_another_grid(self, tmp_path: Path) -> None:
        cases = make_cases()
        FORMS["BraTS"](tmp_path, cases)
        words = (str(tmp_path), "--sequences", SEQUENCES)
        assert module("mri_seg.datasets", "check", *words).status == 0
        missing, misfit = (tmp_path / case.name / f"{case.name}_t2.nii.gz" for case in cases[:2])
        missing.unlink()
        nifti(misfit, cases[1].image[:, :-1], AFFINE)
        ended = module("mri_seg.datasets", "check", *words)
        assert ended.status == 1
        assert f"{cases[0].name}_flair.nii.gz: expected one volume beside it that is its sequence t2" in ended.stdout
        assert f"{misfit}: is in another grid" in ended.stdout
        assert ended.stdout.splitlines()[-1] == "2 defects"
