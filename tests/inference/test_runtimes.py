"""The network gives the same with every runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer
from small_networks import probabilities, small_network

from mri_seg.inference.inferers import AutocastInferer, EnsembleInferer
from mri_seg.inference.runtimes import RuntimeInferer
from mri_seg.networks.attention_unet import AttentionUNet

OTHERS = [
    pytest.param(runtime, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no {package}"))
    for runtime, package in (("openvino", "openvino"), ("onnxruntime", "onnxruntime"))
]


@pytest.mark.parametrize("runtime", OTHERS)
class TestOtherRuntimes:
    def test_other_runtimes_agree_with_torch_for_any_number_and_size_of_slices(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        infer = RuntimeInferer(SimpleInferer(), runtime)
        for inputs in (slices, slices[:1], slices.transpose(2, 3), slices[..., :16]):
            expected = network(inputs).sigmoid()
            assert expected.std() > 0.1
            torch.testing.assert_close(probabilities(infer, inputs, network), expected, rtol=0, atol=1e-4)

    def test_other_runtimes_agree_with_torch_averaged_over_mirror_images_and_checkpoints(
        self, runtime: str, network: AttentionUNet, tmp_path: Path
    ) -> None:
        torch.save(small_network(seed=1).state_dict(), tmp_path / "other.pt")
        volume = torch.randn(1, 3, 32, 48, 5)

        def averaged(runtime: str) -> EnsembleInferer:
            inferer = RuntimeInferer(SliceInferer(roi_size=(-1, -1), sw_batch_size=2, spatial_dim=2), runtime)
            return EnsembleInferer(inferer, flip=True, checkpoints=[tmp_path / "other.pt"])

        expected = probabilities(averaged("torch"), volume, network)
        torch.testing.assert_close(probabilities(averaged(runtime), volume, network), expected, rtol=0, atol=1e-4)

    def test_other_runtimes_stay_in_float32_under_autocast(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        found = probabilities(AutocastInferer(RuntimeInferer(SimpleInferer(), runtime)), slices, network)
        torch.testing.assert_close(found, network(slices).sigmoid(), rtol=0, atol=1e-4)

    def test_other_runtimes_see_new_weights_in_the_same_network(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        infer = RuntimeInferer(SimpleInferer(), runtime)
        probabilities(infer, slices, network)
        network.load_state_dict(small_network(seed=1).state_dict())
        torch.testing.assert_close(probabilities(infer, slices, network), network(slices).sigmoid(), rtol=0, atol=1e-4)

    def test_other_runtimes_leave_the_network_as_it_was(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        before = network(slices)
        probabilities(RuntimeInferer(SimpleInferer(), runtime), slices, network)
        assert torch.equal(network(slices), before)
        assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


class TestChoice:
    def test_torch_calls_the_network_itself(self, network: AttentionUNet, slices: torch.Tensor) -> None:
        assert torch.equal(RuntimeInferer(SimpleInferer())(slices, network), network(slices))

    def test_unknown_runtime_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(ValueError, match=r"torch, openvino, openvino-int8, onnxruntime.*'tensorrt'"):
            RuntimeInferer(SimpleInferer(), "tensorrt")

    @pytest.mark.parametrize(
        ("runtime", "extra"), [("openvino", "openvino"), ("openvino-int8", "openvino"), ("onnxruntime", "export")]
    )
    def test_missing_package_is_an_error_that_names_the_extra(
        self, runtime: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=rf"{runtime}.*\[{extra}\]"):
            RuntimeInferer(SimpleInferer(), runtime)
