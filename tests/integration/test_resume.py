"""Training that is killed, told to stop, or run twice, ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = int(os.environ.get("MRI_SEG_KILLS", "2"))


def start(phantom: Path, folder: Path, **overrides: object) -> subprocess.Popen[str]:
    """Start a short training on one thread."""
    options = {
        "dataset_dir": phantom,
        "split": phantom / "split.json",
        "output_dir": folder,
        "bundle_root": folder.parent / "bundle",
        "epochs": 4,
        "slices_per_epoch": 32,
        "batch_size": 8,
        "plane_size": "[64,64]",
        "crop_size": "[64,64]",
        "amp": "false",
        **overrides,
    }
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(ROOT / "bundle" / "configs" / "train.json")]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def train(phantom: Path, folder: Path, **overrides: object) -> tuple[int, str]:
    process = start(phantom, folder, **overrides)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pt", weights_only=True)


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def unstopped(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing stopped, and how long it took from its first checkpoint to its end, in seconds."""
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    process = start(phantom, folder)
    first = wait_for_checkpoint(folder, process)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return folder, time.monotonic() - first


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> float:
    while not (folder / "checkpoints.json").exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.01)
    return time.monotonic()


class TestKilled:
    @pytest.mark.parametrize("moment", range(MOMENTS))
    def test_at_a_random_moment_ends_with_the_same_weights(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path, moment: int
    ) -> None:
        folder = tmp_path / "run"
        process = start(phantom, folder)
        wait_for_checkpoint(folder, process)
        time.sleep(random.Random(moment).uniform(0, unstopped[1]))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        status, output = train(phantom, folder)
        assert status == 0, output[-3000:]
        assert "Resuming from" in output or "is complete" in output
        assert same(folder, unstopped[0])
        best = [torch.load(run / "model.pt", weights_only=True) for run in (folder, unstopped[0])]
        assert all(torch.equal(best[0][name], best[1][name]) for name in best[1])


class TestToldToStop:
    def test_leaves_a_checkpoint_and_a_status_that_says_so(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path
    ) -> None:
        folder = tmp_path / "run"
        process = start(phantom, folder)
        wait_for_checkpoint(folder, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 128 + signal.SIGTERM, output[-3000:]
        assert not (folder / "model_final.pt").exists()
        assert train(phantom, folder)[0] == 0
        assert same(folder, unstopped[0])


class TestTheSameFolder:
    def test_with_another_config_is_refused(self, phantom: Path, unstopped: tuple[Path, float]) -> None:
        before = (unstopped[0] / "config.json").read_bytes()
        status, output = train(phantom, unstopped[0], learning_rate=0.5)
        assert status == 1
        assert "learning_rate was 0.002, now 0.5" in output
        assert "Traceback" not in output
        assert (unstopped[0] / "config.json").read_bytes() == before

    def test_starts_anew_beside_it_when_asked(self, phantom: Path, unstopped: tuple[Path, float]) -> None:
        status, output = train(phantom, unstopped[0], resume="false")
        assert status == 0, output[-3000:]
        beside = unstopped[0].with_name("run-2")
        assert json.loads((beside / "run.json").read_text())["seed"] == 0
        assert same(beside, unstopped[0])  # the same seed gives the same weights


class TestOptions:
    def test_that_are_misspelt_are_refused_with_the_nearest(self, phantom: Path, tmp_path: Path) -> None:
        status, output = train(phantom, tmp_path / "run", lerning_rate=0.1)
        assert status == 1
        assert "--lerning_rate: no such option. Did you mean --learning_rate?" in output
        assert "Traceback" not in output
        assert not (tmp_path / "run").exists()
