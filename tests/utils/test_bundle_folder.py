"""Where the bundle lies, and that nothing is written into the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mri_seg import bundle
from mri_seg.utils import bundle_folder as module
from mri_seg.utils.bundle_folder import bundle_folder, refuse_installed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a package that was just installed, without a bundle."""
    (tmp_path / "site" / "mri_seg").mkdir(parents=True)
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "site" / "mri_seg")
    return tmp_path / "site" / "mri_seg"


class TestBundleFolder:
    def test_bundle_of_a_checkout_is_the_folder_at_its_top(self) -> None:
        assert bundle_folder() == ROOT / "bundle"

    def test_bundle_within_the_package_is_taken_whatever_lies_beside_the_package(self, package: Path) -> None:
        (package.parent / "bundle" / "configs").mkdir(parents=True)
        assert bundle_folder() == package.parent / "bundle"
        (package / "_bundle" / "configs").mkdir(parents=True)
        assert bundle_folder() == package / "_bundle"

    def test_package_without_a_bundle_is_an_error_that_names_both_places(self, package: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"mri_seg/_bundle nor in .*site/bundle: install mri_seg again"):
            bundle_folder()


class TestCommand:
    @pytest.mark.interpreter
    def test_bundle_command_prints_its_folder_from_any_folder_and_imports_no_torch(self, tmp_path: Path) -> None:
        code = "import runpy, sys\ntry: runpy.run_module('mri_seg.bundle', run_name='__main__')\n"
        code += "finally: print(sorted({'torch', 'monai', 'numpy'} & sys.modules.keys()))"
        command, environment = [sys.executable, "-c", code], {"PYTHONPATH": str(ROOT)}
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.splitlines() == [str(ROOT / "bundle"), "[]"]

    def test_bundle_command_without_a_bundle_ends_with_status_1_and_the_error(
        self, package: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert bundle.main([]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("python -m mri_seg.bundle: the bundle was found neither in ")


class TestRefuseInstalled:
    def test_the_package_and_what_lies_in_it_are_refused_also_through_a_link(
        self, package: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(package)
        for folder in (package, package / "_bundle" / "models", tmp_path / "link" / "new"):
            with pytest.raises(ValueError, match=r"^--output_dir .*: lies in the installed package.*my_bundle"):
                refuse_installed(folder, "--output_dir")

    def test_relative_folder_is_refused_if_the_current_one_lies_in_the_package(
        self, package: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(package)
        with pytest.raises(ValueError, match="lies in the installed package"):
            refuse_installed("runs/inference", "--output_dir")

    def test_folders_beside_the_package_are_free(self, package: Path) -> None:
        refuse_installed(package.parent, "--output_dir")
        refuse_installed(package.parent / "mri_seg_results", "--output_dir")
