"""The shipped weights give the model card's figures on five real patients, which they were trained on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[2]
DATASET = os.environ.get("MRI_SEG_DATASET", "")


@pytest.mark.real_data
@pytest.mark.skipif(
    not Path(DATASET, "TCGA_CS_4941_19960909").is_dir(),
    reason="the environment variable MRI_SEG_DATASET does not name a folder with the TCGA-LGG patients",
)
def test_shipped_weights_reach_the_figures_of_the_model_card(tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", "evaluate.json")],
        workflow_type="train",
        bundle_root=str(ROOT / "bundle"),
        dataset_dir=DATASET,
        section="validation",
        output_dir=str(tmp_path),
        run_id="evaluation",
    )
    workflow.initialize()
    workflow.run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["slice_protocol"]["dice"]["mean"] == pytest.approx(0.9609, abs=0.002)
    assert metrics["slice_protocol"]["precision"]["mean"] == pytest.approx(0.9589, abs=0.002)
    assert metrics["slice_protocol"]["recall"]["mean"] == pytest.approx(0.9705, abs=0.002)
    assert metrics["patient_protocol"]["dice"]["mean"] == pytest.approx(0.9196, abs=0.002)
