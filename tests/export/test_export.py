"""A folder of the bundle to give away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata

import mri_seg.export.folder
from mri_seg.config.weights import write_sums
from mri_seg.export import export_bundle
from mri_seg.export.__main__ import main
from mri_seg.networks.attention_unet import AttentionUNet
from mri_seg.utils.files import sha256

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle with a smaller network and weights of it."""
    root = tmp_path / "bundle"
    for part in ("configs", "docs"):
        shutil.copytree(BUNDLE / part, root / part)
    shutil.copy(BUNDLE / "LICENSE", root)
    for name in ("train.json", "inference.json"):
        config = json.loads((root / "configs" / name).read_text())
        config["network_def"]["channels"] = [4, 8]
        (root / "configs" / name).write_text(json.dumps(config))
    (root / "models").mkdir()
    torch.save(network_of(root).state_dict(), root / "models" / "model.pt")
    write_sums(root / "models")
    return root


def network_of(bundle: Path) -> AttentionUNet:
    """The network that a bundle defines, with its weights if there are any."""
    network = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    network = network.get_parsed_content("network_def").eval()
    if (bundle / "models" / "model.pt").is_file():
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    return network


class TestSides:
    @pytest.mark.parametrize("channels", [[2] * 5, [2] * 6], ids=["as deep as the shipped network", "deeper"])
    def test_export_of_a_network_that_needs_sides_of_32_or_64(
        self, bundle: Path, tmp_path: Path, channels: list[int]
    ) -> None:
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        config["network_def"]["channels"] = channels
        (bundle / "configs" / "inference.json").write_text(json.dumps(config))
        (bundle / "models" / "model.pt").unlink()
        torch.save(network_of(bundle).state_dict(), bundle / "models" / "model.pt")
        write_sums(bundle / "models")
        assert (export_bundle(bundle, tmp_path / "given") / "models" / "model.ts").is_file()


class TestGives:
    def test_export_gives_all_that_belongs_to_the_weights(self, bundle: Path, tmp_path: Path) -> None:
        folder = export_bundle(bundle, tmp_path / "given")
        for name in ("configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE", "models/model.pt"):
            assert (folder / name).read_bytes() == (bundle / name).read_bytes(), name
        assert not list(folder.rglob("*.py"))

    def test_export_gives_sums_of_all_weights(self, bundle: Path, tmp_path: Path) -> None:
        models = export_bundle(bundle, tmp_path / "given") / "models"
        lines = (models / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        sums = {name: found for found, name in map(str.split, lines)}
        assert sums == {name: sha256(models / name) for name in ("model.pt", "model.ts")}

    def test_export_gives_torchscript_with_the_same_logits_that_carries_metadata_and_config(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        folder = export_bundle(bundle, tmp_path / "given")
        exported, metadata, extra = load_net_with_metadata(
            folder / "models" / "model.ts", more_extra_files=["inference.json"]
        )
        image = torch.randn(3, 4, 32, 80)
        with torch.no_grad():
            torch.testing.assert_close(exported(image), network_of(bundle)(image), rtol=0, atol=1e-5)
        assert metadata["version"] == json.loads((bundle / "configs" / "metadata.json").read_text())["version"]
        assert json.loads(extra["inference.json"])["network_def"]["channels"] == [4, 8]

    def test_export_gives_onnx_with_the_same_logits_for_any_number_and_size_of_slices(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package, reason="needs the extra `export`")
        import onnxruntime

        folder = export_bundle(bundle, tmp_path / "given", formats=["onnx"])
        assert sorted(file.name for file in (folder / "models").iterdir()) == ["SHA256SUMS", "model.onnx", "model.pt"]
        session = onnxruntime.InferenceSession(folder / "models" / "model.onnx", providers=["CPUExecutionProvider"])
        for shape in ((1, 4, 64, 64), (5, 4, 32, 80)):
            image = torch.randn(shape)
            (logits,) = session.run(["pred"], {"image": image.numpy()})
            with torch.no_grad():
                torch.testing.assert_close(torch.from_numpy(logits), network_of(bundle)(image), rtol=0, atol=1e-5)

    def test_export_gives_other_weights_by_name_also_within_a_checkpoint(self, bundle: Path, tmp_path: Path) -> None:
        other = network_of(bundle)
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        torch.save({"model": other.state_dict()}, tmp_path / "other.pt")
        folder = export_bundle(bundle, tmp_path / "given", checkpoint=tmp_path / "other.pt")
        image = torch.randn(1, 4, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.load(folder / "models" / "model.ts")(image), other(image))

    def test_export_gives_what_monai_loads(self, bundle: Path, tmp_path: Path) -> None:
        folder = export_bundle(bundle, tmp_path / "given")
        network = monai.bundle.load(folder.name, bundle_dir=folder.parent).eval()
        image = torch.randn(1, 4, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(network(image), network_of(bundle)(image))


class TestRefuses:
    def refused(self, bundle: Path, output: Path, error: type[Exception], match: str, **options: object) -> None:
        """Refused with a word why, and nothing is left behind."""
        before = sorted(output.parent.iterdir())
        with pytest.raises(error, match=match):
            export_bundle(bundle, output, **options)
        assert sorted(output.parent.iterdir()) == before

    def test_export_refuses_a_folder_that_holds_something(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / "thesis.txt").touch()
        self.refused(bundle, tmp_path / "given", FileExistsError, "given: exists already")

    def test_export_refuses_a_format_it_does_not_know(self, bundle: Path, tmp_path: Path) -> None:
        self.refused(bundle, tmp_path / "given", ValueError, "tflite is not known; expected", formats=["ts", "tflite"])

    def test_export_refuses_a_folder_that_is_no_bundle(self, tmp_path: Path) -> None:
        self.refused(tmp_path, tmp_path / "given", FileNotFoundError, r"inference\.json: no such file")

    def test_export_refuses_weights_that_are_not_there(self, bundle: Path, tmp_path: Path) -> None:
        gone = tmp_path / "gone.pt"
        self.refused(bundle, tmp_path / "given", FileNotFoundError, "gone.pt: no such file of weights", checkpoint=gone)

    def test_export_refuses_weights_that_are_damaged(self, bundle: Path, tmp_path: Path) -> None:
        with (bundle / "models" / "model.pt").open("ab") as file:
            file.write(b"0")
        self.refused(bundle, tmp_path / "given", ValueError, "model.pt: its SHA-256 is")

    def test_export_refuses_weights_of_another_network(self, bundle: Path, tmp_path: Path) -> None:
        weights, other = network_of(bundle).state_dict(), tmp_path / "other.pt"
        torch.save({name: values[:1] if values.ndim else values for name, values in weights.items()}, other)
        self.refused(bundle, tmp_path / "given", ValueError, "belongs to a network of another size", checkpoint=other)

    def test_export_refuses_an_exported_network_that_computes_something_else(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wrong_export(filepath: str, **_: object) -> None:
            torch.jit.script(AttentionUNet(in_channels=4, channels=(4, 8)).eval()).save(filepath)

        monkeypatch.setattr(mri_seg.export.folder, "ckpt_export", wrong_export)
        self.refused(bundle, tmp_path / "given", ValueError, "model.ts: its logits are off by")

    def test_export_refuses_onnx_where_it_is_not_installed(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        self.refused(bundle, tmp_path / "given", ImportError, r"mri_seg\[export\]", formats=["onnx"])


class TestCommand:
    def test_export_command_writes_the_folder_and_names_its_weights(
        self, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert main([str(tmp_path / "given"), "--bundle_root", str(bundle)]) == 0
        assert (tmp_path / "given" / "models" / "model.ts").is_file()
        assert "model.ts" in capsys.readouterr().out

    def test_export_command_says_what_is_wrong_in_a_line(
        self, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert main([str(tmp_path / "given"), "--bundle_root", str(bundle), "--formats", "tflite"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
