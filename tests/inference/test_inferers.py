"""Inference in reduced precision, averaged and of the head alone, and the machines on which it pays."""

from __future__ import annotations

import copy
import platform
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer
from small_networks import probabilities, small_network

from mri_seg.inference.inferers import AutocastInferer, EnsembleInferer, ForegroundSliceInferer, bfloat16_is_fast


class Recorder(torch.nn.Module):
    """A network that remembers in what type its layer computed, and what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        result = self.layer(x) * factor
        self.dtype, self.shape = result.dtype, x.shape
        return result


@pytest.fixture
def network() -> Recorder:
    return Recorder()


class TestAutocastInferer:
    @pytest.mark.parametrize(("enabled", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
    def test_autocast_computes_in_bfloat16_when_enabled_and_gives_float32(
        self, network: Recorder, enabled: bool, dtype: torch.dtype
    ) -> None:
        result = AutocastInferer(SimpleInferer(), enabled)(torch.randn(1, 1, 8, 8), network)
        assert network.dtype == dtype
        assert result.dtype == torch.float32

    def test_autocast_is_close_to_float32(self, network: Recorder) -> None:
        image = torch.randn(2, 1, 8, 8)
        torch.testing.assert_close(
            AutocastInferer(SimpleInferer())(image, network), network(image), atol=0.05, rtol=0.05
        )

    def test_autocast_equals_the_inferer_when_not_enabled(self, network: Recorder) -> None:
        image = torch.randn(2, 1, 8, 8)
        assert torch.equal(AutocastInferer(SimpleInferer(), enabled=False)(image, network), network(image))

    def test_autocast_passes_arguments_on(self, network: Recorder) -> None:
        image = torch.randn(1, 1, 8, 8)
        doubled = AutocastInferer(SimpleInferer(), enabled=False)(image, network, factor=2.0)
        torch.testing.assert_close(doubled, 2 * network(image))

    def test_autocast_runs_volumes_slice_by_slice(self, network: Recorder) -> None:
        volume = torch.randn(1, 1, 8, 12, 5)
        infer = AutocastInferer(SliceInferer(roi_size=(-1, -1), sw_batch_size=2, spatial_dim=2))
        result = infer(volume, network)
        assert network.shape[2:] == (8, 12)
        assert network.dtype == torch.bfloat16
        assert (result.shape, result.dtype) == (volume.shape, torch.float32)

    def test_autocast_lets_gradients_through(self, network: Recorder) -> None:
        AutocastInferer(SimpleInferer())(torch.randn(1, 1, 8, 8), network).sum().backward()
        assert network.layer.weight.grad.dtype == torch.float32

    def test_autocast_leaves_autocast_as_it_found_it(self, network: Recorder) -> None:
        AutocastInferer(SimpleInferer())(torch.randn(1, 1, 8, 8), network)
        assert not torch.is_autocast_enabled("cpu")


class TestBfloat16IsFast:
    @pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
    def test_bfloat16_is_fast_says_yes_or_no_for_this_machine(self, device: str | torch.device) -> None:
        assert bfloat16_is_fast(device) in (True, False)

    def test_bfloat16_is_fast_says_no_for_devices_it_does_not_know(self) -> None:
        assert bfloat16_is_fast("meta") is False

    @pytest.mark.skipif(
        platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="reads the flags of Linux on x86"
    )
    def test_bfloat16_is_fast_says_yes_only_where_the_processor_has_the_instructions(self) -> None:
        flags = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
        ).split()
        assert not bfloat16_is_fast("cpu") or {"avx512_bf16", "amx_tile"} & set(flags)

    @pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
    def test_bfloat16_is_fast_goes_by_the_compute_capability_of_gpus(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert bfloat16_is_fast("cuda:0") is fast


class TestSwitchAsText:
    @pytest.mark.parametrize(("text", "dtype"), [("true", torch.bfloat16), ("false", torch.float32)])
    def test_switch_as_text_is_read_as_the_command_line_gives_it(self, text: str, dtype: torch.dtype) -> None:
        network = Recorder()
        AutocastInferer(SimpleInferer(), text)(torch.rand(1, 1, 8, 8), network)
        assert network.dtype == dtype


class TestAveragingInferer:
    @pytest.fixture
    def network(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Conv2d(1, 1, 3, padding=1)

    @pytest.fixture
    def volume(self) -> torch.Tensor:
        return torch.randn(1, 1, 8, 6, 4, generator=torch.Generator().manual_seed(1))

    def slices(self) -> SliceInferer:
        return SliceInferer(roi_size=(-1, -1), sw_batch_size=2, spatial_dim=2)

    @torch.no_grad()
    def test_averaging_without_flips_and_checkpoints_changes_nothing(
        self, network: torch.nn.Module, volume: torch.Tensor
    ) -> None:
        expected = self.slices()(volume, network)
        assert torch.equal(EnsembleInferer(self.slices())(volume, network), expected)
        assert torch.equal(EnsembleInferer(self.slices(), flip="false")(volume, network), expected)

    @torch.no_grad()
    def test_averaging_with_flips_gives_the_mirror_image_for_the_mirror_image(
        self, network: torch.nn.Module, volume: torch.Tensor
    ) -> None:
        infer = EnsembleInferer(self.slices(), flip="true")
        found = infer(volume, network)
        torch.testing.assert_close(infer(volume.flip(-2), network).flip(-2), found)
        mirrored = self.slices()(volume.flip(-2), network).flip(-2).sigmoid()
        expected = (self.slices()(volume, network).sigmoid() + mirrored) / 2
        torch.testing.assert_close(found.sigmoid(), expected)

    @torch.no_grad()
    def test_averaging_averages_checkpoints(
        self, network: torch.nn.Module, volume: torch.Tensor, tmp_path: Path
    ) -> None:
        other = copy.deepcopy(network)
        torch.nn.init.constant_(other.bias, 3.0)
        torch.save(other.state_dict(), tmp_path / "other.pt")
        before = network.bias.clone()
        found = EnsembleInferer(self.slices(), checkpoints=[tmp_path / "other.pt"])(volume, network)
        expected = (self.slices()(volume, network).sigmoid() + self.slices()(volume, other).sigmoid()) / 2
        torch.testing.assert_close(found.sigmoid(), expected)
        assert torch.equal(network.bias, before)

    @torch.no_grad()
    def test_averaging_takes_one_checkpoint_by_its_name(
        self, network: torch.nn.Module, volume: torch.Tensor, tmp_path: Path
    ) -> None:
        torch.save(network.state_dict(), tmp_path / "same.pt")
        infer = EnsembleInferer(self.slices(), checkpoints=str(tmp_path / "same.pt"))
        torch.testing.assert_close(infer(volume, network), self.slices()(volume, network), rtol=1e-4, atol=1e-4)


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

    def test_head_inferer_computes_the_box_of_the_head_alone(self, volume: torch.Tensor) -> None:
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

    def test_head_inferer_switched_off_computes_everything(self, volume: torch.Tensor) -> None:
        found = self.inferer(enabled="false")(volume, self.Recorder())
        assert torch.equal(found, volume[:, 1:2])

    def test_volume_of_one_value_is_computed_whole(self) -> None:
        volume = torch.zeros(1, 3, 32, 48, 2)
        assert torch.equal(self.inferer()(volume, self.Recorder()), volume[:, 1:2])

    def test_head_inferer_keeps_metadata_and_takes_several_volumes(self, volume: torch.Tensor) -> None:
        from monai.data import MetaTensor

        volumes = MetaTensor(torch.cat([volume, volume.flip(-1)]), meta={"case": "x"})
        found = self.inferer()(volumes, self.Recorder())
        assert found.meta["case"] == "x"
        assert torch.equal(found[0].as_tensor(), found[1].flip(-1).as_tensor())

    def test_head_inferer_leaves_pytorch_as_many_threads_as_it_had(self, volume: torch.Tensor) -> None:
        def failing(slices: torch.Tensor) -> torch.Tensor:
            assert torch.get_num_threads() == 3
            raise RuntimeError("network")

        before = torch.get_num_threads()
        with pytest.raises(RuntimeError, match="network"):
            self.inferer(threads=3)(volume, failing)
        assert torch.get_num_threads() == before
