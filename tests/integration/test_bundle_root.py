"""Which bundle a workflow reads if none is named, and to which it may write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import ROOT, bundle
from monai.bundle import ConfigParser, ConfigWorkflow

import mri_seg

CONFIGS = ROOT / "bundle" / "configs"
PACKAGE = ROOT / "mri_seg"


def root_of(config: Path, **options: str) -> str:
    """The bundle of a workflow."""
    workflow = ConfigWorkflow(
        str(config), logging_file=False, workflow_type="inference", finalize=["$mri_seg.end_workflow()"], **options
    )
    workflow.initialize()
    root: str = workflow.bundle_root
    workflow.finalize()
    return root


class TestDefault:
    def test_a_copy_of_the_bundle_uses_its_own_weights(self, tmp_path: Path) -> None:
        shutil.copytree(CONFIGS, tmp_path / "copy" / "configs")
        assert root_of(tmp_path / "copy" / "configs" / "inference.json") == str(tmp_path / "copy")

    def test_a_config_that_lies_elsewhere_uses_the_bundle_of_the_package(self, tmp_path: Path) -> None:
        shutil.copy(CONFIGS / "inference.json", tmp_path / "mine.json")
        shutil.copy(CONFIGS / "metadata.json", tmp_path)
        assert root_of(tmp_path / "mine.json") == str(mri_seg.bundle_folder())

    def test_a_config_without_a_workflow_uses_the_bundle_of_the_package(self) -> None:
        parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.json"))
        assert parser.get_parsed_content("checkpoint") == str(mri_seg.bundle_folder() / "models" / "model.pt")

    def test_bundle_root_is_taken_as_it_is_given(self) -> None:
        assert root_of(CONFIGS / "inference.json", bundle_root="bundle") == "bundle"


class TestSaveToBundle:
    @pytest.mark.parametrize("overlays", [(), ("multi_gpu_train.json",)])
    def test_save_to_bundle_without_bundle_root_is_refused_before_anything_is_read_or_written(
        self, tmp_path: Path, overlays: tuple[str, ...]
    ) -> None:
        own = {"dataset_dir": tmp_path / "none", "output_dir": tmp_path / "run"}
        ended = bundle("training", "train.json", *overlays, save_to_bundle="best", **own)
        assert ended.status == 1
        assert ended.stderr.startswith("error: --save_to_bundle: ")
        assert "give --bundle_root" in ended.stderr
        assert not (tmp_path / "run").exists()

    def test_save_to_bundle_in_the_installed_package_is_refused_before_anything_is_read_or_written(
        self, tmp_path: Path
    ) -> None:
        own = {"dataset_dir": tmp_path / "none", "output_dir": tmp_path / "run", "bundle_root": PACKAGE / "_bundle"}
        ended = bundle("training", "train.json", save_to_bundle="last", **own)
        assert ended.status == 1
        assert "_bundle: lies in the installed package" in ended.stderr
        assert not (tmp_path / "run").exists()

    def test_a_training_that_saves_nothing_there_needs_no_bundle_root(self, tmp_path: Path) -> None:
        own = {"dataset_dir": tmp_path / "none", "output_dir": tmp_path / "run"}
        assert "bundle_root" not in bundle("training", "train.json", **own).stderr


class TestOutputFolder:
    @pytest.mark.parametrize(
        ("run_id", "configs"),
        [
            ("inference", ["inference.json"]),
            ("training", ["train.json"]),
            ("evaluation", ["train.json", "evaluate.json"]),
            ("quantization", ["train.json", "quantize.json"]),
        ],
    )
    def test_results_in_the_installed_package_are_refused(
        self, run_id: str, configs: list[str], tmp_path: Path
    ) -> None:
        ended = bundle(run_id, *configs, dataset_dir=tmp_path, output_dir=PACKAGE / "results")
        assert ended.status == 1
        assert ended.stderr.startswith(f"error: --output_dir {PACKAGE / 'results'}: lies in the installed package")
        assert not (PACKAGE / "results").exists()

    def test_default_folder_of_results_is_refused_within_the_installed_package(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(PACKAGE)
        ended = bundle("inference", "inference.json", dataset_dir=tmp_path)
        assert ended.stderr.startswith("error: --output_dir runs/inference: lies in the installed package")
        assert not (PACKAGE / "runs").exists()
