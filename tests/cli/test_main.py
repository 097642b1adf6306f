"""The command as a program: what it imports, its version and its exit statuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import command

import mri_seg
from mri_seg.cli import serve, workflow
from mri_seg.cli.config_command import Given
from mri_seg.cli.main import cli

pytestmark = pytest.mark.interpreter
HEAVY = "'torch', 'monai', 'numpy', 'fire', 'tqdm', 'ignite'"


def python(*words: str) -> subprocess.CompletedProcess[str]:
    root = Path(mri_seg.__file__).parents[1]
    return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)


class TestProgram:
    def test_help_is_printed_without_torch_and_monai(self) -> None:
        run = "cli(['segment', '--help'], prog_name='mri-seg', standalone_mode=False)"
        code = f"import sys; from mri_seg.cli.main import cli; {run}; print(sorted({{{HEAVY}}} & sys.modules.keys()))"
        ended = python("-c", code)
        assert "Usage: mri-seg segment" in ended.stdout
        assert ended.stdout.splitlines()[-1] == "[]", ended.stderr

    def test_module_is_the_command(self) -> None:
        ended = python("-m", "mri_seg", "--version")
        assert (ended.returncode, ended.stdout) == (0, f"mri-seg, version {mri_seg.__version__}\n")

    def test_script_is_declared_and_leads_to_the_command(self) -> None:
        text = (Path(mri_seg.__file__).parents[1] / "pyproject.toml").read_text()
        assert '[project.scripts]\nmri-seg = "mri_seg.cli.main:main"\n' in text
        from mri_seg.cli.main import main

        assert callable(main)


class TestStatus:
    @pytest.mark.parametrize(
        ("raised", "status", "printed"),
        [
            (ValueError("no good"), 1, "error: no good\n(--debug true shows where it was raised)\n"),
            (KeyError("x"), 1, "error: KeyError: 'x'\n(--debug true shows where it was raised)\n"),
            (KeyboardInterrupt(), 130, "Interrupted.\n"),
            (SystemExit(3), 3, ""),
            (SystemExit(), 0, ""),
        ],
    )
    def test_errors_become_a_line_and_a_status(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        raised: BaseException,
        status: int,
        printed: str,
    ) -> None:
        def fail(given: Given) -> int:
            raise raised

        monkeypatch.setattr(workflow, "_run", fail)
        assert workflow.run_workflow(Given([], {})) == status
        assert capsys.readouterr().err == printed

    def test_errors_keep_their_traceback_if_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(given: Given) -> int:
            raise ValueError("no good")

        monkeypatch.setattr(workflow, "_run", fail)
        with pytest.raises(ValueError, match="no good"):
            workflow.run_workflow(Given([], {"debug": "true"}))

    @pytest.mark.parametrize("words", [["phantom", "out"], ["check", "."], ["segment", "in", "out"]])
    def test_ctrl_c_while_libraries_are_imported_is_an_interruption(
        self, monkeypatch: pytest.MonkeyPatch, words: list[str]
    ) -> None:
        def interrupt(*arguments: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("mri_seg.cli.main.importlib", SimpleNamespace(import_module=interrupt))
        monkeypatch.setattr("mri_seg.cli.check.check", interrupt)
        monkeypatch.setattr(cli.commands["segment"], "run", interrupt)
        ended = command(*words)
        assert (ended.status, ended.stderr) == (130, "Interrupted.\n")

    def test_status_of_other_commands_is_that_of_their_modules(self, tmp_path: Path) -> None:
        ended = command("report", tmp_path / "nowhere")
        assert ended.status == 1
        assert ended.stderr.startswith("mri-seg report: ")


class TestServe:
    def test_serve_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        ended = command("serve", tmp_path)
        assert ended.status == 1
        assert 'pip install "monailabel==' in ended.stderr

    def test_serve_copies_the_bundle_into_an_app_once_and_trains_from_its_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def download(command: list, **options: object) -> None:
            calls.append(command)
            (tmp_path / "monaibundle").mkdir()

        monkeypatch.setattr(serve.subprocess, "run", download)
        serve.lay_out("python", tmp_path / "app")
        serve.lay_out("python", tmp_path / "app")
        assert len(calls) == 1
        model = tmp_path / "app" / "model" / serve.NAME
        assert (model / "models" / "model.pt").is_file()
        config = json.loads((model / "configs" / "train.json").read_text())
        assert config["save_to_bundle"] == "best"
        assert config["initial_weights"] == "$@bundle_root + '/models/model.pt'"
