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
@pytest.mark.parametrize(("runtime", "tolerance"), [("torch", 0.002), ("openvino", 0.002), ("openvino-int8", 0.003)])
def test_shipped_weights_reach_the_figures_of_the_model_card(runtime: str, tolerance: float, tmp_path: Path) -> None:
    pytest.importorskip(runtime.split("-")[0], reason="needs the extra `openvino`")
    workflow = ConfigWorkflow(
        [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", "evaluate.json")],
        workflow_type="train",
        bundle_root=str(ROOT / "bundle"),
        dataset_dir=DATASET,
        section="validation",
        runtime=runtime,
        output_dir=str(tmp_path),
        run_id="evaluation",
    )
    workflow.initialize()
    workflow.run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["slice_protocol"]["dice"]["mean"] == pytest.approx(0.9556, abs=tolerance)
    assert metrics["slice_protocol"]["precision"]["mean"] == pytest.approx(0.9614, abs=tolerance)
    assert metrics["slice_protocol"]["recall"]["mean"] == pytest.approx(0.9666, abs=tolerance)
    assert metrics["patient_protocol"]["dice"]["mean"] == pytest.approx(0.9229, abs=tolerance)
