"""The bundle passes MONAI's own checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out
from monai.inferers import SimpleInferer
from packaging.requirements import Requirement

from mri_seg.inference.runtimes import RuntimeInferer
from mri_seg.networks.attention_unet import AttentionUNet

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundle"
CONFIGS = BUNDLE / "configs"
SHIPPED = BUNDLE / "models" / "model.pt"
EXPORT = {
    "net_id": "network_def",
    "meta_file": str(CONFIGS / "metadata.json"),
    "config_file": str(CONFIGS / "inference.json"),
}


def config(name: str) -> dict:
    return json.loads((CONFIGS / name).read_text())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained network as inference.json defines it."""
    parser = ConfigParser(config("inference.json"))
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, AttentionUNet)
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


class TestProperties:
    def test_training_defines_what_monai_asks_of_a_training_bundle(self, phantom: Path, tmp_path: Path) -> None:
        workflow = ConfigWorkflow(
            str(CONFIGS / "train.json"),
            workflow_type="train",
            dataset_dir=str(phantom),
            split=str(phantom / "split.json"),
            output_dir=str(tmp_path),
            spatial_size=[64, 64],
            roi_size=[64, 64],
        )
        workflow.initialize()
        assert workflow.check_properties() == []

    def test_inference_defines_what_monai_asks_of_an_inference_bundle(self, phantom: Path, checkpoint: Path) -> None:
        workflow = ConfigWorkflow(
            str(CONFIGS / "inference.json"),
            workflow_type="infer",
            dataset_dir=str(phantom),
            checkpoint=str(checkpoint),
        )
        workflow.initialize()
        assert workflow.check_properties() == []


class TestNetwork:
    @pytest.mark.parametrize("name", ["train.json", "inference.json"])
    def test_network_takes_and_gives_what_the_metadata_says(self, name: str) -> None:
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(CONFIGS / "metadata.json"),
            config_file=str(CONFIGS / name),
            device="cpu",
            n=3,
        )

    def test_torchscript_export_gives_the_same_logits(self, checkpoint: Path, tmp_path: Path) -> None:
        exported = tmp_path / "model.ts"
        ckpt_export(
            **EXPORT,
            filepath=str(exported),
            ckpt_file=str(checkpoint),
            bundle_root=str(BUNDLE),
        )
        network, image = load(checkpoint), torch.randn(1, 4, 64, 96)
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.load(exported)(image), network(image), rtol=0, atol=1e-5)

    def test_onnx_export_gives_the_same_logits(self, checkpoint: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript", reason="needs the extra `export`")
        runtime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
        exported = tmp_path / "model.onnx"
        onnx_export(
            **EXPORT,
            filepath=str(exported),
            ckpt_file=str(checkpoint),
            input_shape=[1, 4, 64, 64],
        )
        session = runtime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        network, image = load(checkpoint), torch.randn(1, 4, 64, 64)
        (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(image).numpy(), rtol=0, atol=1e-5)

    @pytest.mark.skipif(not SHIPPED.is_file(), reason="no weights in bundle/models")
    def test_shipped_weights_fit_inference(self) -> None:
        assert load(SHIPPED)(torch.zeros(1, 4, 32, 32)).shape == (1, 1, 32, 32)

    @pytest.mark.skipif(not SHIPPED.is_file(), reason="no weights in bundle/models")
    def test_shipped_8_bit_weights_are_those_of_the_float_ones(self) -> None:
        pytest.importorskip("openvino", reason="needs the extra `openvino`")
        inferer = RuntimeInferer(SimpleInferer(), "openvino-int8", checkpoints=[SHIPPED])
        network, image = load(SHIPPED), torch.randn(1, 4, 64, 64)
        with torch.no_grad():  # the inferer refuses 8-bit weights made of others
            found, expected = inferer(image, network).sigmoid(), network(image).sigmoid()
        assert (found - expected).abs().mean() < 0.01


def load(checkpoint: Path) -> torch.nn.Module:
    network = ConfigParser(config("inference.json")).get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network


class TestMetadata:
    def test_metadata_has_every_entry_of_the_model_zoo_form(self) -> None:
        metadata = config("metadata.json")
        expected = {
            "schema",
            "version",
            "changelog",
            "monai_version",
            "pytorch_version",
            "numpy_version",
            "required_packages_version",
            "supported_apps",
            "name",
            "task",
            "description",
            "authors",
            "copyright",
            "data_source",
            "data_type",
            "image_classes",
            "label_classes",
            "pred_classes",
            "eval_metrics",
            "intended_use",
            "references",
            "network_data_format",
        }
        assert expected <= set(metadata)
        assert metadata["version"] in metadata["changelog"]
        assert set(metadata["network_data_format"]) == {"inputs", "outputs"}

    def test_required_packages_are_those_that_the_package_depends_on(self) -> None:
        metadata = config("metadata.json")
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (needed,) = re.findall(r"^dependencies = \[$(.*?)^\]$", project, re.MULTILINE | re.DOTALL)
        versions = {**metadata["required_packages_version"], "numpy": metadata["numpy_version"]}
        versions |= {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
        requirements = [Requirement(text) for text in re.findall(r'"(.+?)"', needed)]
        assert {one.name for one in requirements} == versions.keys() - {"mri_seg"}
        assert [one.name for one in requirements if versions[one.name] not in one.specifier] == []

    def test_version_is_the_package_version(self) -> None:
        import mri_seg

        assert config("metadata.json")["version"] == mri_seg.__version__

    def test_channels_are_those_of_the_network(self) -> None:
        image = config("metadata.json")["network_data_format"]["inputs"]["image"]
        assert image["num_channels"] == len(image["channel_def"]) == config("inference.json")["num_slices"] + 1
