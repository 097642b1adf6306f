"""One workflow object that runs several times: MONAI promises ``initialize(); run(); ...; run(); finalize()``."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundle_weights import small_weights
from monai.bundle import ConfigWorkflow, create_workflow

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
SMALL = {"network_def#channels": [2, 4], "amp": False}
INFERENCE = ["inference.json"]
EVALUATION = ["train.json", "evaluate.json"]


def files(names: list[str]) -> list[str]:
    return [str(CONFIGS / name) for name in names]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the small network of these tests."""
    return small_weights(tmp_path_factory.mktemp("weights") / "model.pt")


def write_head(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    head = np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (32, 32, 3)), indexing="ij")), axis=0)
    nibabel.save(
        nibabel.Nifti1Image((100 * (head < 0.9) * (2 - head)).astype(np.float32), np.diag([1, 1, 5, 1.0])), file
    )


def inference(tmp_path: Path, weights: Path, **options: Any) -> ConfigWorkflow:
    own = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "checkpoint": str(weights)}
    options = {**own, **SMALL, "tta_flip": False, "outputs": "mask", **options}
    return ConfigWorkflow(files(INFERENCE), workflow_type="infer", logging_file=False, **options)


def statuses(folder: Path) -> dict[str, str]:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        return {row["case"]: row["status"] for row in csv.DictReader(file)}


class TestInference:
    def test_repeated_inference_segments_each_time_what_is_to_be_done_then_and_counts_it(
        self, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        workflow = inference(tmp_path, weights)
        workflow.initialize()
        workflow.run()
        for name in ("b", "c"):
            write_head(tmp_path / "in" / f"{name}.nii.gz")
        workflow.run()
        (tmp_path / "in" / "a.nii.gz").unlink()
        workflow.run()
        workflow.finalize()
        assert "Cases segmented: 3, kept as they were: 3, failed: 0." in capsys.readouterr().out
        assert {file.name for file in (tmp_path / "out").glob("*/*_mask.nii.gz")} == {
            f"{name}_mask.nii.gz" for name in "abc"
        }
        assert statuses(tmp_path / "out") == dict.fromkeys("abc", "kept")

    def test_repeated_inference_finds_cases_after_a_run_that_had_none_to_do(
        self, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        for _ in range(2):
            workflow = inference(tmp_path, weights)
            workflow.initialize()
            workflow.run()
        write_head(tmp_path / "in" / "b.nii.gz")
        workflow.run()
        workflow.finalize()
        assert capsys.readouterr().out.count("Cases segmented: 1, kept as they were: 2, failed: 0.") == 1

    def test_repeated_inference_writes_again_with_overwrite(
        self, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        workflow = inference(tmp_path, weights, overwrite=True)
        workflow.initialize()
        workflow.run()
        (tmp_path / "out" / "a" / "a_mask.nii.gz").unlink()
        workflow.run()
        assert (tmp_path / "out" / "a" / "a_mask.nii.gz").is_file()
        workflow.finalize()
        workflow.run()
        workflow.finalize()
        out = capsys.readouterr().out
        assert "Cases segmented: 2, kept as they were: 0" in out
        assert "Cases segmented: 1, kept as they were: 0" in out  # since the first finalize

    def test_repeated_inference_counts_a_case_that_fails_in_each_run(
        self, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        (tmp_path / "in" / "b.nii.gz").write_bytes(b"no NIfTI")
        workflow = inference(tmp_path, weights)
        workflow.initialize()
        workflow.run()
        workflow.run()
        with pytest.raises(SystemExit):
            workflow.finalize()
        assert "Cases segmented: 1, kept as they were: 1, failed: 2." in capsys.readouterr().out

    def test_repeated_inference_goes_on_after_a_run_that_failed(self, weights: Path, tmp_path: Path) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        there = tmp_path / "there.pt"
        workflow = inference(tmp_path, there)
        workflow.initialize()
        with pytest.raises(FileNotFoundError, match=r"there\.pt: no such file of weights"):
            workflow.run()
        there.write_bytes(weights.read_bytes())
        workflow.run()
        workflow.finalize()
        assert statuses(tmp_path / "out") == {"a": "done"}

    def test_repeated_inference_by_create_workflow_and_the_name_of_the_part(
        self, weights: Path, tmp_path: Path
    ) -> None:
        write_head(tmp_path / "in" / "a.nii.gz")
        own = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "checkpoint": str(weights)}
        options = {**own, **SMALL, "outputs": "mask", "run_id": "inference", "logging_file": False}
        workflow = create_workflow(config_file=files(INFERENCE), **options)
        workflow.run()
        write_head(tmp_path / "in" / "b.nii.gz")
        workflow.run()
        workflow.finalize()
        assert statuses(tmp_path / "out") == {"a": "kept", "b": "done"}


class TestEvaluation:
    def test_repeated_evaluation_evaluates_each_time(self, phantom: Path, weights: Path, tmp_path: Path) -> None:
        workflow = ConfigWorkflow(
            files(EVALUATION),
            workflow_type="train",
            logging_file=False,
            dataset_dir=str(phantom),
            split=str(phantom / "split.json"),
            checkpoint=str(weights),
            output_dir=str(tmp_path),
            **SMALL,
        )
        workflow.initialize()
        workflow.run()
        names = ("metrics.json", "patients.csv", "slices.csv", "report.html")
        first = {name: (tmp_path / name).read_text(encoding="utf-8") for name in names}
        for name in names:
            (tmp_path / name).unlink()
        workflow.run()
        workflow.finalize()
        for name in names[1:3]:
            assert (tmp_path / name).read_text(encoding="utf-8") == first[name]
        assert (tmp_path / "report.html").is_file()
        again, before = (json.loads(text) for text in ((tmp_path / "metrics.json").read_text(), first["metrics.json"]))
        assert again["patient_protocol"] == before["patient_protocol"]


class TestTraining:
    def test_training_that_is_finished_says_so_and_changes_nothing(
        self, phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "run"
        workflow = ConfigWorkflow(
            files(["train.json"]),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(tmp_path / "bundle"),
            dataset_dir=str(phantom),
            split=str(phantom / "split.json"),
            output_dir=str(folder),
            epochs=2,
            slices_per_epoch=4,
            batch_size=2,
            spatial_size=[32, 32],
            roi_size=[32, 32],
            **SMALL,
        )
        workflow.initialize()
        workflow.run()
        workflow.parser.get_parsed_content("summary_writer").flush()
        before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
        weights = [value.clone() for value in workflow.trainer.network.state_dict().values()]
        with caplog.at_level(logging.INFO):
            workflow.run()
        assert f"{folder} is complete: all 2 epochs are done." in caplog.text
        workflow.parser.get_parsed_content("summary_writer").flush()
        assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()} == before
        after = workflow.trainer.network.state_dict().values()
        assert all(torch.equal(one, other) for one, other in zip(weights, after, strict=True))
        workflow.finalize()
