"""Experiment tracking by MONAI's own option: `--tracking`, with MLflow's settings and with the bundle's."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import ROOT, bundle

mlflow = pytest.importorskip("mlflow", reason="needs the extra `tracking`")

METRICS = {"patient_dice", "slice_dice", "slice_precision", "slice_recall"}
TINY = {"network_def#channels": "[4,8]", "num_workers": 1}


def train(phantom: Path, folder: Path, **options: object) -> None:
    own = {"dataset_dir": phantom, "split": phantom / "split.json", "epochs": 1, "slices_per_epoch": 40}
    size = {"batch_size": 4, "spatial_size": "[64,64]", "roi_size": "[64,64]"}
    result = bundle("training", "train.json", output_dir=folder, **own, **size, **TINY, **options)
    assert result.status == 0, result.stderr[-3000:]


def only_run(tracking_uri: str, name: str | None = None):
    """The run of a name in a store; how it went, and its files."""
    client = mlflow.MlflowClient(tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = [run for run in client.search_runs(experiments) if name in (None, run.info.run_name)]
    assert run.info.status == "FINISHED"
    return run.data, {file.path for file in client.list_artifacts(run.info.run_id)}


def test_monais_own_settings_log_loss_and_metrics(phantom: Path, tmp_path: Path) -> None:
    train(phantom, tmp_path / "run", tracking="mlflow")
    data, _ = only_run(f"sqlite:///{tmp_path}/run/mlruns.db")
    assert {"train_loss", *METRICS} <= set(data.metrics)
    train(phantom, tmp_path / "run", tracking="mlflow")  # the run is complete: nothing to do, but nothing to refuse


def test_the_bundles_settings_log_parameters_record_and_report_too(phantom: Path, tmp_path: Path) -> None:
    tracking = {
        "tracking": ROOT / "bundle" / "configs" / "mlflow.json",
        "tracking_uri": f"sqlite:///{tmp_path}/mlruns.db",
    }
    train(phantom, tmp_path / "run", **tracking)
    data, files = only_run(tracking["tracking_uri"], str(tmp_path / "run"))
    assert {"train_loss", *METRICS} <= set(data.metrics)
    assert data.params["learning_rate"] == "0.002"
    assert data.params["split"] == str(phantom / "split.json")
    assert files == {"config.json", "run.json"}

    result = bundle(
        "evaluation",
        "train.json",
        "evaluate.json",
        dataset_dir=phantom,
        split=phantom / "split.json",
        checkpoint=tmp_path / "run" / "model.pt",
        output_dir=tmp_path / "evaluation",
        **TINY,
        **tracking,
    )
    assert result.status == 0, result.stderr[-3000:]
    data, files = only_run(tracking["tracking_uri"], str(tmp_path / "evaluation"))
    assert set(data.metrics) >= METRICS
    assert data.params["section"] == "validation"
    assert files == {"report.html", "metrics.json", "patients.csv", "slices.csv"}
