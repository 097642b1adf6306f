"""The Attention U-Net: its size, its shapes, its gates, and every form in which it is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from monai.networks import convert_to_onnx
from torch.utils.flop_counter import FlopCounterMode

from mri_seg.networks.attention_unet import AttentionGate, AttentionUNet

SMALL = (4, 8, 16)

with_either_stem = pytest.mark.parametrize("network", [1, 2], indirect=True, ids="stride {}".format)

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="export to ONNX needs onnx, onnxruntime and onnxscript (extra: export)",
)


def randomised(network: AttentionUNet) -> AttentionUNet:
    """Give the normalisation layers statistics and weights as after training, so that none is the identity."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    return network.eval()


@pytest.fixture
def network(request: pytest.FixtureRequest) -> AttentionUNet:
    return randomised(AttentionUNet(channels=SMALL, stem_stride=getattr(request, "param", 1)))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 1, 16, 24)


class TestSize:
    def test_network_has_the_published_number_of_parameters(self) -> None:
        assert sum(p.numel() for p in AttentionUNet(spatial_dims=2).parameters()) == 1_966_373

    def test_network_keeps_the_shape_of_a_slice(self) -> None:
        assert AttentionUNet().eval()(torch.zeros(1, 1, 32, 48)).shape == (1, 1, 32, 48)

    def test_network_keeps_the_shape_of_a_volume(self) -> None:
        network = AttentionUNet(spatial_dims=3, channels=SMALL)
        assert network(torch.zeros(1, 1, 8, 12, 4)).shape == (1, 1, 8, 12, 4)

    def test_network_takes_and_gives_the_channels_asked_for(self) -> None:
        network = AttentionUNet(in_channels=3, out_channels=2, channels=SMALL)
        assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 8, 8)

    def test_network_takes_two_levels_and_levels_of_one_channel(self) -> None:
        assert AttentionUNet(channels=(1, 2))(torch.zeros(1, 1, 6, 4)).shape == (1, 1, 6, 4)

    def test_network_refuses_a_single_level(self) -> None:
        with pytest.raises(ValueError, match=r"at least two levels, got \(16,\)"):
            AttentionUNet(channels=(16,))


class TestSides:
    @pytest.mark.parametrize("side", [(18, 16), (16, 30), (2, 4)])
    def test_names_the_multiple_a_side_must_be(self, network: AttentionUNet, side: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"multiple of 4, got .* Pad the input"):
            network(torch.zeros(1, 1, *side))

    def test_the_multiple_grows_with_the_levels(self) -> None:
        with pytest.raises(ValueError, match="multiple of 16"):
            AttentionUNet()(torch.zeros(1, 1, 24, 32))

    def test_the_multiple_grows_with_the_stride_of_the_stem(self) -> None:
        network = AttentionUNet(channels=SMALL, stem_stride=2)
        with pytest.raises(ValueError, match="multiple of 8"):
            network(torch.zeros(1, 1, 12, 16))

    def test_error_of_sides_holds_for_the_attention_maps_too(self, network: AttentionUNet) -> None:
        with pytest.raises(ValueError, match="multiple of 4"):
            network.forward_with_attention(torch.zeros(1, 1, 18, 16))


class TestStem:
    """A strided first convolution: the same network at a lower resolution, with logits of the input's size."""

    @pytest.mark.parametrize(("spatial_dims", "shape"), [(2, (16, 24)), (3, (8, 16, 8))])
    def test_stem_keeps_the_shape(self, spatial_dims: int, shape: tuple[int, ...]) -> None:
        network = AttentionUNet(spatial_dims, channels=SMALL, stem_stride=2)
        assert network(torch.zeros(1, 1, *shape)).shape == (1, 1, *shape)

    def test_stem_has_the_same_weights_at_a_quarter_of_the_cost(self, image: torch.Tensor) -> None:
        costs = []
        for stride in (1, 2):
            network = AttentionUNet(channels=SMALL, stem_stride=stride)
            with FlopCounterMode(display=False) as counter:
                network(image)
            costs.append(counter.get_total_flops())
        assert costs[0] == 4 * costs[1]
        network.load_state_dict(AttentionUNet(channels=SMALL).state_dict())

    def test_attention_maps_have_the_resolution_of_the_input(self, image: torch.Tensor) -> None:
        _, maps = AttentionUNet(channels=SMALL, stem_stride=2).forward_with_attention(image)
        assert [tuple(m.shape) for m in maps] == [(2, 1, 16, 24)] * 2


class TestOptions:
    @pytest.mark.parametrize("norm", [("INSTANCE", {"affine": True}), ("GROUP", {"num_groups": 1}), "BATCH"])
    def test_network_takes_any_normalisation(self, norm: str | tuple, image: torch.Tensor) -> None:
        network = AttentionUNet(channels=SMALL, norm=norm)
        assert network(image).shape == image.shape

    def test_network_normalises_by_what_is_asked_for_everywhere(self) -> None:
        network = AttentionUNet(channels=SMALL, norm=("INSTANCE", {"affine": True}))
        kinds = {type(layer) for layer in network.modules() if "Norm" in type(layer).__name__}
        assert kinds == {torch.nn.InstanceNorm2d}
        assert all(layer.affine for layer in network.modules() if isinstance(layer, torch.nn.InstanceNorm2d))

    @pytest.mark.parametrize("act", ["PRELU", ("LEAKYRELU", {"negative_slope": 0.2}), "GELU"])
    def test_network_takes_any_activation(self, act: str | tuple, image: torch.Tensor) -> None:
        network = AttentionUNet(channels=SMALL, act=act)
        assert network(image).shape == image.shape
        assert not any(isinstance(layer, torch.nn.ReLU) for layer in network.modules())

    def test_network_drops_values_in_training_alone(self, image: torch.Tensor) -> None:
        network = AttentionUNet(channels=SMALL, dropout=0.5, norm=("INSTANCE", {"affine": True}))
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))

    def test_network_drops_nothing_by_default(self) -> None:
        assert not any("Dropout" in type(layer).__name__ for layer in AttentionUNet(channels=SMALL).modules())


class TestTraining:
    @pytest.mark.parametrize("options", [{}, {"norm": ("INSTANCE", {"affine": True}), "dropout": 0.1}])
    def test_gradients_reach_every_parameter(self, options: dict, image: torch.Tensor) -> None:
        network = AttentionUNet(channels=SMALL, **options)
        network(image).square().mean().backward()
        missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert missing == []

    def test_gradients_reach_the_image(self, image: torch.Tensor) -> None:
        AttentionUNet(channels=(16, 32)).eval()(image.requires_grad_()).sum().backward()
        assert image.grad.abs().sum() > 0

    def test_one_slice_does_not_depend_on_the_others_of_its_batch(
        self, network: AttentionUNet, image: torch.Tensor
    ) -> None:
        torch.testing.assert_close(network(image)[:1], network(image[:1]), rtol=1e-5, atol=1e-5)


class TestAttention:
    def test_attention_gives_a_map_a_gate_at_the_resolution_of_the_input(
        self, network: AttentionUNet, image: torch.Tensor
    ) -> None:
        _, maps = network.forward_with_attention(image)
        assert [tuple(m.shape) for m in maps] == [(2, 1, 16, 24)] * 2

    def test_attention_gives_maps_of_volumes(self) -> None:
        network = AttentionUNet(spatial_dims=3, channels=SMALL)
        _, maps = network.forward_with_attention(torch.randn(1, 1, 8, 8, 4))
        assert [tuple(m.shape) for m in maps] == [(1, 1, 8, 8, 4)] * 2

    def test_coefficients_lie_between_0_and_1(self, network: AttentionUNet, image: torch.Tensor) -> None:
        for coefficients in network.forward_with_attention(1000 * image)[1]:
            assert coefficients.min() >= 0
            assert coefficients.max() <= 1

    def test_maps_come_from_the_finest_to_the_coarsest(self, image: torch.Tensor) -> None:
        network = randomised(AttentionUNet(channels=(16, 32, 64)))
        finest, coarsest = network.forward_with_attention(image)[1]
        blocks = coarsest.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        assert (blocks == blocks[..., :1]).all()  # one coefficient for every 2x2 pixels
        blocks = finest.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        assert not (blocks == blocks[..., :1]).all()

    def test_logits_are_those_of_forward(self, network: AttentionUNet, image: torch.Tensor) -> None:
        assert torch.equal(network.forward_with_attention(image)[0], network(image))


class TestGate:
    @pytest.fixture
    def gate(self) -> AttentionGate:
        return AttentionGate(2, channels=4, hidden_channels=2).eval()

    def test_gate_multiplies_the_skip_by_its_coefficient(self, gate: AttentionGate) -> None:
        above, skip = torch.randn(2, 1, 4, 6, 6)
        weighted, coefficient = gate(above, skip)
        assert coefficient.shape == (1, 1, 6, 6)
        assert torch.equal(weighted, skip * coefficient)

    def test_gate_looks_at_the_gating_feature_and_at_the_skip(self, gate: AttentionGate) -> None:
        above, skip, other = torch.randn(3, 1, 4, 6, 6)
        coefficient = gate(above, skip)[1]
        assert not torch.equal(coefficient, gate(other, skip)[1])
        assert not torch.equal(coefficient, gate(above, other)[1])

    @pytest.mark.parametrize(("coefficient", "matters"), [(0.0, False), (1.0, True)])
    def test_skips_contribute_as_much_as_their_coefficients_say(
        self, network: AttentionUNet, image: torch.Tensor, coefficient: float, matters: bool
    ) -> None:
        for gate in network.gates:
            gate.coefficient.register_forward_hook(lambda _, __, output: torch.full_like(output, coefficient))
        before = network(image)
        for gate in network.gates:
            gate.register_forward_pre_hook(lambda _, inputs: (inputs[0], torch.randn_like(inputs[1])))
        assert torch.equal(network(image), before) is not matters


@with_either_stem
class TestScript:
    def test_torchscript_equals_eager(self, network: AttentionUNet, image: torch.Tensor) -> None:
        scripted = torch.jit.script(network)
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-5, atol=1e-5)

    def test_torchscript_is_the_same_after_a_file(
        self, network: AttentionUNet, image: torch.Tensor, tmp_path: Path
    ) -> None:
        torch.jit.script(network).save(tmp_path / "network.ts")
        torch.testing.assert_close(torch.jit.load(tmp_path / "network.ts")(image), network(image), rtol=1e-5, atol=1e-5)

    def test_torchscript_refuses_sides_too(self, network: AttentionUNet) -> None:
        with pytest.raises(torch.jit.Error, match=r"multiple of [48]"):
            torch.jit.script(network)(torch.zeros(1, 1, 18, 16))


@with_either_stem
@needs_onnx
class TestOnnx:
    def test_onnx_equals_eager(self, network: AttentionUNet, image: torch.Tensor, tmp_path: Path) -> None:
        import onnxruntime

        file = tmp_path / "network.onnx"
        convert_to_onnx(network, [image], input_names=["image"], output_names=["logits"], filename=str(file))
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), network(image).detach(), rtol=1e-5, atol=1e-5)


@with_either_stem
class TestFastForms:
    def test_channels_last_gives_the_same(self, network: AttentionUNet, image: torch.Tensor) -> None:
        expected = network(image)
        network.to(memory_format=torch.channels_last)
        found = network(image.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    def test_bfloat16_autocast_gives_nearly_the_same(self, network: AttentionUNet, image: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image)
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), network(image), rtol=0.1, atol=0.1)

    def test_network_trains_under_bfloat16_autocast(self, network: AttentionUNet, image: torch.Tensor) -> None:
        network.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
        logits.float().square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())

    def test_network_compiles(self, network: AttentionUNet, image: torch.Tensor) -> None:
        try:
            compiled = torch.compile(network, backend="eager")
        except RuntimeError as error:  # no torch.compile for this Python or system
            pytest.skip(str(error))
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), network(image), rtol=1e-5, atol=1e-5)


def test_trace_of_the_network_takes_other_sides_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    network = AttentionUNet(channels=(2, 4)).eval()
    traced = torch.jit.trace(network, torch.randn(1, 1, 8, 8), check_trace=False)
    image = torch.randn(2, 1, 16, 12)
    torch.testing.assert_close(traced(image), network(image))
    assert not [warning for warning in recwarn if issubclass(warning.category, torch.jit.TracerWarning)]
