"""Masks that other programs made are scored as a network's are, and an evaluation that was stopped resumes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from bundle_weights import small_weights
from command_line import bundle, module

import mri_seg.evaluation.writer
from mri_seg.utils.files import sha256

EVALUATION = ("train.json", "evaluate.json")
SMALL = {"network_def#channels": "[2,4]", "amp": "false"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that calls some of the head tumour."""
    return small_weights(tmp_path_factory.mktemp("weights") / "model.pt", head_std=20.0)


def evaluate(phantom: Path, folder: Path, **options: object) -> str:
    given = {"dataset_dir": phantom, "split": phantom / "split.json", "section": "training", "output_dir": folder}
    ended = bundle("evaluation", *EVALUATION, **{**given, "report": "false", **SMALL, **options})
    assert ended.status == 0, ended.stderr
    return ended.stdout + ended.stderr


def rows(folder: Path, table: str = "patients.csv") -> list[dict[str, str]]:
    with (folder / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def training_cases(phantom: Path) -> list[str]:
    return sorted(json.loads((phantom / "split.json").read_text())["training"])


def reference(phantom: Path, case: str) -> np.ndarray:
    """The manual mask of a patient ``(H, W, D)``, rows, columns and slices as in the files."""
    count = len(list((phantom / case).glob("*_mask.tif")))
    files = [phantom / case / f"{case}_{n}_mask.tif" for n in range(1, count + 1)]
    return np.stack([tifffile.imread(file) > 0 for file in files], axis=-1)


def write_slices(folder: Path, case: str, mask: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(mask.shape[-1]):
        tifffile.imwrite(folder / f"{case}_{n + 1}_mask.tif", np.uint8(255 * mask[..., n]))


class TestMasks:
    def test_masks_of_our_inference_score_as_the_network_does(
        self, phantom: Path, weights: Path, tmp_path: Path
    ) -> None:
        evaluate(phantom, tmp_path / "network", checkpoint=weights)
        ended = bundle(
            "inference",
            "inference.json",
            dataset_dir=phantom,
            checkpoint=weights,
            output_dir=tmp_path / "masks",
            outputs="mask,slices",
            **SMALL,
        )
        assert ended.status == 0, ended.stderr
        evaluate(phantom, tmp_path / "scored", predictions=tmp_path / "masks", checkpoint=tmp_path / "none.pt")
        for table in ("patients.csv", "slices.csv"):
            assert rows(tmp_path / "scored", table) == rows(tmp_path / "network", table)
        found = metrics(tmp_path / "scored")
        assert found["predictions"] == str(tmp_path / "masks")
        assert (found["checkpoint"], found["checkpoint_sha256"]) == (None, None)
        assert "threshold" not in found
        assert metrics(tmp_path / "network")["checkpoint_sha256"] == sha256(weights)

    def test_masks_of_other_values_and_formats_are_scored_with_a_report_that_names_them(
        self, phantom: Path, tmp_path: Path
    ) -> None:
        cases = training_cases(phantom)
        first, second = [case for case in cases if reference(phantom, case).any()][:2]
        others = sorted({*cases} - {first, second})
        write_slices(tmp_path / "nnU-Net", first, reference(phantom, first))
        image = nibabel.Nifti1Image(np.uint8(4 * reference(phantom, second)), np.eye(4))
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        nibabel.save(image, tmp_path / "nnU-Net" / f"{second}.nii.gz")
        for case in others:
            write_slices(tmp_path / "nnU-Net", case, np.zeros_like(reference(phantom, case)))
        evaluate(phantom, tmp_path / "scored", predictions=tmp_path / "nnU-Net", report="true")
        dice = {row["case"]: float(row["dice"]) for row in rows(tmp_path / "scored")}
        assert dice[first] == dice[second] == 1
        assert set(dice) == {first, second, *others}
        assert all(dice[case] == (not reference(phantom, case).any()) for case in others)
        page = (tmp_path / "scored" / "report.html").read_text(encoding="utf-8")
        assert "masks in nnU-Net" in page
        assert str(tmp_path / "nnU-Net") in page
        assert 'id="calibration"' not in page
        assert '"layers":["reference","prediction","errors"]' in page
        evaluate(phantom, tmp_path / "again", predictions=tmp_path / "nnU-Net")
        ended = module(
            "mri_seg.report",
            *map(str, (tmp_path / "scored", "--compare", tmp_path / "again", "--output", tmp_path / "compared.html")),
        )
        assert ended.status == 0, ended.stderr
        assert "Comparison" in (tmp_path / "compared.html").read_text(encoding="utf-8")

    def test_masks_that_are_missing_are_all_listed_or_count_as_empty(self, phantom: Path, tmp_path: Path) -> None:
        cases = training_cases(phantom)
        first = next(case for case in cases if reference(phantom, case).any())
        others = [case for case in cases if case != first]
        assert any(reference(phantom, case).any() for case in others)
        write_slices(tmp_path / "masks", first, reference(phantom, first))
        options = {"dataset_dir": phantom, "split": phantom / "split.json", "section": "training"}
        options |= {"predictions": tmp_path / "masks", "output_dir": tmp_path / "scored"}
        ended = bundle("evaluation", *EVALUATION, **options)
        assert ended.status == 1
        assert all(case in ended.stderr for case in others)
        assert not (tmp_path / "scored" / "metrics.json").exists()
        evaluate(phantom, tmp_path / "scored", predictions=tmp_path / "masks", allow_missing_predictions="true")
        assert metrics(tmp_path / "scored")["missing_predictions"] == others
        found = {row["case"]: row for row in rows(tmp_path / "scored")}
        assert float(found[first]["dice"]) == 1
        for case in others:  # without tumour and without a mask, both are empty
            assert float(found[case]["dice"]) == (not reference(phantom, case).any())
            assert found[case]["pred_voxels"] == "0"

    def test_mask_of_another_shape_is_refused_and_named(self, phantom: Path, tmp_path: Path) -> None:
        cases = training_cases(phantom)
        for case in cases:
            write_slices(tmp_path / "masks", case, reference(phantom, case)[..., : 4 if case == cases[-1] else None])
        options = {"dataset_dir": phantom, "split": phantom / "split.json", "section": "training", "report": "false"}
        ended = bundle(
            "evaluation", *EVALUATION, predictions=tmp_path / "masks", output_dir=tmp_path / "scored", **options
        )
        assert ended.status == 1
        assert f"{cases[-1]}_1_mask.tif: this label does not fit its image" in ended.stderr


class TestResuming:
    """An evaluation that stops at its third case."""

    @staticmethod
    def stop(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        """Stop at the case after so many."""
        original, calls = mri_seg.evaluation.writer.patient_row, []

        def counted(*args: object, **options: object) -> dict:
            if len(calls) == after:
                raise KeyboardInterrupt
            calls.append(args[0])
            return original(*args, **options)

        monkeypatch.setattr(mri_seg.evaluation.writer, "patient_row", counted)

    @pytest.fixture
    def stopped(self, phantom: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
        """Options of an evaluation that was stopped after two of four cases."""
        shutil.copyfile(weights, tmp_path / "model.pt")
        data = shutil.copytree(phantom, tmp_path / "data")
        options = {"dataset_dir": data, "split": data / "split.json", "section": "training", "report": "true"}
        options |= {"output_dir": tmp_path / "run", "checkpoint": tmp_path / "model.pt", **SMALL}
        with monkeypatch.context() as patch:
            self.stop(patch, 2)
            assert bundle("evaluation", *EVALUATION, **options).status == 1
        assert not (tmp_path / "run" / "metrics.json").exists()
        return options

    def test_resumed_evaluation_gives_the_same_files_from_the_remaining_cases_alone(
        self, phantom: Path, weights: Path, tmp_path: Path, stopped: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.stop(monkeypatch, 2)  # a third case would end it
        ended = bundle("evaluation", *EVALUATION, **stopped)
        assert ended.status == 0, ended.stderr
        assert "Resuming: 2 of 4 cases are finished" in ended.stdout + ended.stderr
        monkeypatch.undo()
        evaluate(phantom, tmp_path / "whole", checkpoint=weights, report="true")
        for table in ("patients.csv", "slices.csv"):
            assert rows(tmp_path / "run", table) == rows(tmp_path / "whole", table)
        for protocol in ("slice_protocol", "patient_protocol"):
            assert metrics(tmp_path / "run")[protocol] == metrics(tmp_path / "whole")[protocol]
        assert (tmp_path / "run" / "report.html").is_file()
        assert not (tmp_path / "run" / "finished_cases").exists()

    @pytest.mark.parametrize("change", ["weights", "option", "label", "archive"])
    def test_resumed_evaluation_repeats_cases_if_what_made_them_changed(
        self, tmp_path: Path, stopped: dict, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = training_cases(tmp_path / "data")[0]
        options = dict(stopped)
        if change == "weights":
            state = torch.load(tmp_path / "model.pt", weights_only=True)
            torch.save({name: value * 1.01 for name, value in state.items()}, tmp_path / "model.pt")
        elif change == "option":
            options["threshold"] = 0.4
        elif change == "label":
            file = tmp_path / "data" / first / f"{first}_1_mask.tif"
            tifffile.imwrite(file, 255 - tifffile.imread(file))
        else:
            (tmp_path / "run" / "cases" / f"{first}.npz").unlink()
        self.stop(monkeypatch, 2)
        ended = bundle("evaluation", *EVALUATION, **options)
        assert ended.status == 1  # more than the two cases that were left
        assert "Finished cases that are evaluated again" in ended.stdout + ended.stderr

    def test_evaluation_stopped_after_its_last_case_resumes(
        self, tmp_path: Path, stopped: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(mri_seg.evaluation.writer, "summarize", lambda *args, **options: 1 / 0)
            assert bundle("evaluation", *EVALUATION, **stopped).status == 1
        self.stop(monkeypatch, 1)
        ended = bundle("evaluation", *EVALUATION, **stopped)
        assert ended.status == 0, ended.stderr
        assert len(rows(tmp_path / "run")) == 4
