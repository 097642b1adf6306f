"""The network gives the same with every runtime, and 8-bit weights serve only the weights they were made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer

from mri_seg.inference.inferers import AutocastInferer, EnsembleInferer, ForegroundSliceInferer
from mri_seg.inference.quantization import calibration_slices, quantize
from mri_seg.inference.runtimes import RuntimeInferer, int8_file
from mri_seg.networks.attention_unet import AttentionUNet

OTHERS = [
    pytest.param(runtime, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no {package}"))
    for runtime, package in (("openvino", "openvino"), ("onnxruntime", "onnxruntime"))
]
needs_nncf = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("openvino", "nncf")), reason="no openvino or nncf"
)


def small_network(seed: int = 0) -> AttentionUNet:
    """A network whose probabilities vary."""
    torch.manual_seed(seed)
    network = AttentionUNet(2, in_channels=3, channels=(8, 16, 32)).eval()
    torch.nn.init.normal_(network.head.weight, std=60.0)
    with torch.no_grad():
        network.head.bias -= network(torch.randn(1, 3, 32, 32)).mean()
    return network.to(memory_format=torch.channels_last)


@pytest.fixture
def network() -> AttentionUNet:
    return small_network()


@pytest.fixture
def slices() -> torch.Tensor:
    return torch.randn(3, 3, 32, 48)


@torch.no_grad()
def probabilities(inferer: Callable, inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
    return inferer(inputs, network).sigmoid()


@pytest.mark.parametrize("runtime", OTHERS)
class TestOtherRuntimes:
    def test_agree_with_torch_for_any_number_and_size_of_slices(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        infer = RuntimeInferer(SimpleInferer(), runtime)
        for inputs in (slices, slices[:1], slices.transpose(2, 3), slices[..., :16]):
            expected = network(inputs).sigmoid()
            assert expected.std() > 0.1
            torch.testing.assert_close(probabilities(infer, inputs, network), expected, rtol=0, atol=1e-4)

    def test_agree_with_torch_averaged_over_mirror_images_and_checkpoints(
        self, runtime: str, network: AttentionUNet, tmp_path: Path
    ) -> None:
        torch.save(small_network(seed=1).state_dict(), tmp_path / "other.pt")
        volume = torch.randn(1, 3, 32, 48, 5)

        def averaged(runtime: str) -> EnsembleInferer:
            inferer = RuntimeInferer(SliceInferer(roi_size=(-1, -1), sw_batch_size=2, spatial_dim=2), runtime)
            return EnsembleInferer(inferer, flip=True, checkpoints=[tmp_path / "other.pt"])

        expected = probabilities(averaged("torch"), volume, network)
        torch.testing.assert_close(probabilities(averaged(runtime), volume, network), expected, rtol=0, atol=1e-4)

    def test_stay_in_float32_under_autocast(self, runtime: str, network: AttentionUNet, slices: torch.Tensor) -> None:
        found = probabilities(AutocastInferer(RuntimeInferer(SimpleInferer(), runtime)), slices, network)
        torch.testing.assert_close(found, network(slices).sigmoid(), rtol=0, atol=1e-4)

    def test_see_new_weights_in_the_same_network(
        self, runtime: str, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        infer = RuntimeInferer(SimpleInferer(), runtime)
        probabilities(infer, slices, network)
        network.load_state_dict(small_network(seed=1).state_dict())
        torch.testing.assert_close(probabilities(infer, slices, network), network(slices).sigmoid(), rtol=0, atol=1e-4)

    def test_leave_the_network_as_it_was(self, runtime: str, network: AttentionUNet, slices: torch.Tensor) -> None:
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


class Volumes(list):
    """Volumes as preprocessing leaves them."""

    def __init__(self) -> None:
        super().__init__({"image": torch.randn(3, 32, 48, depth)} for depth in (4, 7))


@needs_nncf
class TestInt8:
    @pytest.fixture(scope="class")
    def checkpoint(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Weights with 8-bit ones beside them."""
        path = tmp_path_factory.mktemp("models") / "model.pt"
        torch.save(small_network().state_dict(), path)
        torch.manual_seed(0)
        assert quantize(small_network(seed=1), path, Volumes(), slices=10) == int8_file(path)
        return path

    def infer(self, *checkpoints: Path) -> RuntimeInferer:
        return RuntimeInferer(SimpleInferer(), "openvino-int8", checkpoints=[*checkpoints[:1], list(checkpoints[1:])])

    def test_is_close_to_float_but_not_the_same(
        self, checkpoint: Path, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        found, expected = probabilities(self.infer(checkpoint), slices, network), network(slices).sigmoid()
        assert 1e-5 < (found - expected).abs().mean() < 0.03

    def test_of_other_weights_is_refused(self, checkpoint: Path, slices: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=r"model\.int8\.xml: was made from other weights.*quantize\.json"):
            probabilities(self.infer(checkpoint), slices, small_network(seed=1))

    def test_that_is_not_there_is_named(self, network: AttentionUNet, slices: torch.Tensor, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"best\.int8\.xml: no such file"):
            probabilities(self.infer(tmp_path / "best.pt"), slices, network)

    def test_other_than_the_sums_say_is_refused(
        self, checkpoint: Path, network: AttentionUNet, slices: torch.Tensor, tmp_path: Path
    ) -> None:
        for file in (int8_file(checkpoint), int8_file(checkpoint).with_suffix(".bin")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.int8.bin\n")
        with pytest.raises(ValueError, match=r"model\.int8\.bin: its SHA-256 is"):
            probabilities(self.infer(tmp_path / "model.pt"), slices, network)

    def test_each_network_of_an_ensemble_takes_its_own(
        self, checkpoint: Path, network: AttentionUNet, slices: torch.Tensor, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.pt"
        torch.save(small_network(seed=1).state_dict(), other)
        quantize(small_network(), other, Volumes(), slices=10)
        for first, second in ((checkpoint, other), (other, checkpoint)):
            found = probabilities(self.infer(first, second), slices, network)
            assert torch.equal(found, probabilities(self.infer(checkpoint), slices, network))


class TestCalibrationSlices:
    def test_come_from_every_volume_and_repeat(self) -> None:
        volumes = Volumes()
        drawn = calibration_slices(volumes, 6, seed=3)
        assert [one.shape for one in drawn] == [(1, 3, 32, 48)] * 6
        sources = [
            n
            for one in drawn
            for n, volume in enumerate(volumes)
            if any(torch.equal(torch.from_numpy(one[0]), slice_) for slice_ in volume["image"].unbind(-1))
        ]
        assert sources == [0, 0, 0, 1, 1, 1]
        assert all((a == b).all() for a, b in zip(drawn, calibration_slices(volumes, 6, seed=3)))


class TestHeadInferer:
    """Air is left out, and what is in the head stays."""

    @pytest.fixture
    def volume(self) -> torch.Tensor:
        """A head that ends below the last slice, in noisy air: normalised, three neighbours."""
        volume = torch.full((1, 3, 96, 112, 6), -2.0) + 0.1 * torch.randn(1, 3, 96, 112, 6)
        volume[..., 37:60, 50:67, 1:5] = torch.randn(1, 3, 23, 17, 4) * 0.2 + 1
        volume[..., 3, 3, 0] = 1.0  # a bright speck in air
        return volume

    class Recorder:
        """A network whose logits are its input, and that remembers what it was called with."""

        def __init__(self) -> None:
            self.shapes: list[tuple[int, ...]] = []

        def __call__(self, slices: torch.Tensor) -> torch.Tensor:
            self.shapes.append(tuple(slices.shape))
            return slices[:, 1:2]

    def inferer(self, **options: object) -> ForegroundSliceInferer:
        return ForegroundSliceInferer(SimpleInferer(), multiple=16, **options)

    def test_computes_the_box_of_the_head_alone(self, volume: torch.Tensor) -> None:
        network = self.Recorder()
        found = self.inferer(margin=0, slices_per_batch=3)(volume, network)
        assert network.shapes == [(3, 3, 32, 32), (1, 3, 32, 32)]
        expected = torch.full_like(found, -16.0)
        expected[..., 32:64, 48:80, 1:5] = volume[:, 1:2, 32:64, 48:80, 1:5]
        assert torch.equal(found, expected)

    def test_margin_stays_around_the_head(self, volume: torch.Tensor) -> None:
        network = self.Recorder()
        self.inferer(margin=8)(volume, network)
        assert network.shapes == [(4, 3, 64, 48)]  # rows 28 to 68, columns 40 to 76, in multiples of 16

    def test_slices_of_unlike_heads_share_the_larger_box_and_keep_their_places(self, volume: torch.Tensor) -> None:
        volume[..., 0:90, 90:112, 4] = 1.0
        network = self.Recorder()
        found = self.inferer(margin=0)(volume, network)
        assert network.shapes == [(4, 3, 96, 64)]
        head = volume[:, 1:2] > 0.2
        head[..., 0] = False
        assert torch.equal(found[head], volume[:, 1:2][head])

    def test_network_gives_the_same_in_the_head(self, volume: torch.Tensor) -> None:
        network = small_network()
        head = (slice(None), slice(None), slice(36, 60), slice(48, 68), slice(1, 5))
        found = probabilities(self.inferer(margin=16), volume, network)[head]
        expected = probabilities(self.inferer(enabled="false"), volume, network)[head]
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)

    def test_switched_off_it_computes_everything(self, volume: torch.Tensor) -> None:
        found = self.inferer(enabled="false")(volume, self.Recorder())
        assert torch.equal(found, volume[:, 1:2])

    def test_volume_of_one_value_is_computed_whole(self) -> None:
        volume = torch.zeros(1, 3, 32, 48, 2)
        assert torch.equal(self.inferer()(volume, self.Recorder()), volume[:, 1:2])

    def test_keeps_metadata_and_takes_several_volumes(self, volume: torch.Tensor) -> None:
        from monai.data import MetaTensor

        volumes = MetaTensor(torch.cat([volume, volume.flip(-1)]), meta={"case": "x"})
        found = self.inferer()(volumes, self.Recorder())
        assert found.meta["case"] == "x"
        assert torch.equal(found[0].as_tensor(), found[1].flip(-1).as_tensor())

    def test_leaves_pytorch_as_many_threads_as_it_had(self, volume: torch.Tensor) -> None:
        def failing(slices: torch.Tensor) -> torch.Tensor:
            assert torch.get_num_threads() == 3
            raise RuntimeError("network")

        before = torch.get_num_threads()
        with pytest.raises(RuntimeError, match="network"):
            self.inferer(threads=3)(volume, failing)
        assert torch.get_num_threads() == before
