"""8-bit weights are close to the others, and serve only the weights they were made of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer
from small_networks import probabilities, small_network

import mri_seg
from mri_seg.inference.quantization import calibration_slices, quantize
from mri_seg.inference.runtimes import RuntimeInferer, int8_file
from mri_seg.networks.attention_unet import AttentionUNet

needs_nncf = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("openvino", "nncf")), reason="no openvino or nncf"
)


class Volumes(list):
    """Volumes as preprocessing leaves them."""

    def __init__(self) -> None:
        super().__init__({"image": torch.randn(3, 32, 48, depth)} for depth in (4, 7))


@needs_nncf
class TestInt8:
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Weights with 8-bit ones beside them."""
        path = tmp_path_factory.mktemp("models") / "model.pt"
        torch.save(small_network(preprocessing={"normalize_region": "head"}).state_dict(), path)
        torch.manual_seed(0)
        network = small_network(seed=1, preprocessing={"normalize_region": "head"})
        assert quantize(network, path, Volumes(), slices=10) == int8_file(path)
        return path

    def infer(self, *checkpoints: Path) -> RuntimeInferer:
        return RuntimeInferer(SimpleInferer(), "openvino-int8", checkpoints=[*checkpoints[:1], list(checkpoints[1:])])

    def test_int8_is_close_to_float_but_not_the_same(
        self, checkpoint: Path, network: AttentionUNet, slices: torch.Tensor
    ) -> None:
        found, expected = probabilities(self.infer(checkpoint), slices, network), network(slices).sigmoid()
        assert 1e-5 < (found - expected).abs().mean() < 0.03

    def test_int8_of_other_weights_is_refused(self, checkpoint: Path, slices: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=r"model\.int8\.xml: was made from other weights.*quantize\.json"):
            probabilities(self.infer(checkpoint), slices, small_network(seed=1))

    def test_int8_of_other_preprocessing_is_refused(self, checkpoint: Path, slices: torch.Tensor) -> None:
        network = small_network(preprocessing={"normalize_region": "brain"})  # with the same weights
        with pytest.raises(ValueError, match=r"int8\.xml: was trained with normalize_region head, but .* brain"):
            probabilities(self.infer(checkpoint), slices, network)

    def test_quantization_of_weights_of_other_preprocessing_is_refused(self, checkpoint: Path) -> None:
        with pytest.raises(ValueError, match=r"model\.pt: was trained with normalize_region head"):
            quantize(small_network(preprocessing={"normalize_region": "brain"}), checkpoint, Volumes(), slices=10)

    def test_int8_that_is_not_there_is_named(
        self, network: AttentionUNet, slices: torch.Tensor, tmp_path: Path
    ) -> None:
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

    def test_another_folder_gets_8_bit_and_float_weights_that_serve_there_and_the_first_stays_as_it_was(
        self, checkpoint: Path, network: AttentionUNet, slices: torch.Tensor, tmp_path: Path
    ) -> None:
        before = {file.name: file.read_bytes() for file in checkpoint.parent.iterdir()}
        quantize(small_network(), checkpoint, Volumes(), slices=10, output_dir=tmp_path / "int8")
        assert {file.name: file.read_bytes() for file in checkpoint.parent.iterdir()} == before
        copy = tmp_path / "int8" / "model.pt"
        assert copy.read_bytes() == checkpoint.read_bytes()
        sums = copy.with_name("SHA256SUMS").read_text()
        assert [line.partition("  ")[2] for line in sums.splitlines()] == [
            "model.int8.bin",
            "model.int8.xml",
            "model.pt",
        ]
        found = probabilities(self.infer(copy), slices, network)
        assert (found - network(slices).sigmoid()).abs().mean() < 0.03


class TestPlace:
    @pytest.fixture(autouse=True)
    @classmethod
    def any_packages(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    def test_other_weights_of_the_same_name_are_kept_and_refused_before_anything_is_computed(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "model.pt").write_bytes(b"mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "model.pt").write_bytes(b"another's")
        with pytest.raises(FileExistsError, match=r"run/model\.pt: has other weights than .*--output_dir"):
            quantize(small_network(), tmp_path / "model.pt", Volumes(), output_dir=tmp_path / "run")
        assert (tmp_path / "run" / "model.pt").read_bytes() == b"another's"

    def test_installed_package_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"mine")
        folder = Path(mri_seg.__file__).parent / "_bundle" / "models"
        with pytest.raises(ValueError, match=r"lies in the installed package.*python -m mri_seg\.bundle"):
            quantize(small_network(), tmp_path / "model.pt", Volumes(), output_dir=folder)


class TestCalibrationSlices:
    def test_calibration_slices_come_from_every_volume_and_repeat(self) -> None:
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
