"""The record of a run, written from a config as MONAI evaluates it."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import mri_seg
from mri_seg.config.provenance import run_record, versions, write_record
from mri_seg.utils.files import sha256, write_json


def config(folder: Path) -> dict:
    return {
        "_meta_": {},
        "imports": ["$import mri_seg", "$import mri_seg.config.provenance"],
        "output_dir": str(folder),
        "epochs": 20,
        "network": {"_target_": "torch.nn.Identity"},
        "train": {"lr": 0.1, "steps": "$@epochs * 10"},
        "initialize": ["$mri_seg.config.provenance.write_record(@output_dir, epochs=@epochs)"],
    }


class TestWriteRecord:
    @pytest.fixture
    def written(self, tmp_path: Path) -> Path:
        """Folder of a run whose config had two overrides."""
        parser = ConfigParser(config(tmp_path / "runs" / "a"))
        parser.update({"epochs": 3, "train#lr": 0.5})
        parser.get_parsed_content("initialize")
        return tmp_path / "runs" / "a"

    def test_record_keeps_the_config_with_every_override(self, written: Path) -> None:
        kept = json.loads((written / "config.json").read_text())
        assert (kept["epochs"], kept["train"]["lr"]) == (3, 0.5)

    def test_record_keeps_the_config_as_it_was_written(self, written: Path) -> None:
        kept = json.loads((written / "config.json").read_text())
        assert kept["network"] == {"_target_": "torch.nn.Identity"}
        assert kept["train"]["steps"] == "$@epochs * 10"
        assert "_meta_" not in kept

    def test_the_config_it_keeps_runs_again(self, written: Path) -> None:
        parser = ConfigParser(json.loads((written / "config.json").read_text()))
        assert parser.get_parsed_content("train#steps") == 30
        assert isinstance(parser.get_parsed_content("network"), torch.nn.Identity)

    def test_record_describes_the_run(self, written: Path) -> None:
        record = json.loads((written / "run.json").read_text())
        assert record["epochs"] == 3
        assert record["versions"]["torch"] == torch.__version__
        assert record["versions"]["mri_seg"] == mri_seg.__version__
        assert record["machine"]["threads"] == torch.get_num_threads()

    def test_record_leaves_nothing_else(self, written: Path) -> None:
        assert sorted(file.name for file in written.iterdir()) == ["config.json", "run.json"]

    def test_record_needs_a_config(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="must be called from an expression of a config"):
            write_record(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestRunRecord:
    def test_run_record_holds_facts_beside_time_and_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "training", "--epochs", "2"])
        record = run_record(split="published")
        assert record["split"] == "published"
        assert record["command"] == ["python", "-m", "monai.bundle", "run", "training", "--epochs", "2"]
        assert record["started"][:2] == "20"

    def test_run_record_is_json(self) -> None:
        assert json.loads(json.dumps(run_record(seed=0)))["seed"] == 0


class TestVersions:
    def test_versions_names_python_and_the_project(self) -> None:
        assert versions()["python"] == platform.python_version()
        assert versions()["mri_seg"] == mri_seg.__version__

    def test_versions_names_what_it_rests_on(self) -> None:
        assert {"monai", "torch", "numpy", "tifffile", "nibabel"} <= set(versions())
        assert "not installed" not in (versions()["monai"], versions()["torch"])

    def test_versions_says_what_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mri_seg.config.provenance._PACKAGES", ("no-such-package",))
        assert versions()["no-such-package"] == "not installed"


class TestWriteJson:
    def test_write_json_writes_text_that_reads_back(self, tmp_path: Path) -> None:
        content = {"a": [1, 2.5, None, True], "name": "Ärzte"}
        write_json(tmp_path / "a.json", content)
        text = (tmp_path / "a.json").read_text(encoding="utf-8")
        assert json.loads(text) == content
        assert text.endswith("}\n")

    def test_write_json_writes_what_json_has_no_form_for_as_text(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"device": torch.device("cpu"), "file": Path("a/b")})
        assert json.loads((tmp_path / "a.json").read_text()) == {"device": "cpu", "file": str(Path("a/b"))}

    def test_write_json_keeps_the_old_file_whole_when_writing_fails(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {(1, 2): "keys must be text"})
        assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
        assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


class TestSha256:
    def test_sha256_is_that_of_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
