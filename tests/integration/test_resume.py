"""Training that is killed, told to stop, or run twice, ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from command_line import bundle
from forked import Forked, pause_in_second_epoch

from mri_seg.utils.bundle_folder import bundle_folder

MOMENTS = int(os.environ.get("MRI_SEG_KILLS", "2"))

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


def options(phantom: Path, folder: Path) -> dict[str, object]:
    """Of a short training."""
    return {
        "dataset_dir": phantom,
        "split": phantom / "split.json",
        "output_dir": folder,
        "bundle_root": folder.parent / "bundle",
        "epochs": 4,
        "slices_per_epoch": 32,
        "batch_size": 8,
        "spatial_size": [64, 64],
        "roi_size": [64, 64],
        "amp": False,
        "network_def#channels": [8, 16],
    }


def start(phantom: Path, folder: Path, **others: object) -> Forked:
    log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.txt")
    return Forked(log, "training", "train.json", **{**options(phantom, folder), **others})


def train(phantom: Path, folder: Path, **others: object) -> str:
    process = start(phantom, folder, **others)
    assert process.wait() == 0, process.text()
    return process.text()


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
    process.wait_for(folder / "checkpoints.json")
    first = time.monotonic()
    assert process.wait() == 0, process.text()
    return folder, time.monotonic() - first


class TestKilled:
    @pytest.mark.parametrize("moment", range(MOMENTS))
    def test_training_killed_at_a_random_moment_ends_with_the_same_weights(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path, moment: int
    ) -> None:
        folder = tmp_path / "run"
        process = start(phantom, folder)
        process.wait_for(folder / "checkpoints.json")
        time.sleep(random.Random(moment).uniform(0, unstopped[1]))
        process.send(signal.SIGKILL)
        process.wait()
        output = train(phantom, folder)
        assert "Resuming from" in output or "is complete" in output
        assert same(folder, unstopped[0])
        best = [torch.load(run / "model.pt", weights_only=True) for run in (folder, unstopped[0])]
        assert all(torch.equal(best[0][name], best[1][name]) for name in best[1])


class TestToldToStop:
    def test_training_told_to_stop_leaves_a_checkpoint_and_a_status_that_says_so(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path
    ) -> None:
        folder = tmp_path / "run"
        process = start(phantom, folder, prepare=pause_in_second_epoch(tmp_path / "go_on"))
        process.wait_for(folder / "checkpoints.json")
        process.send(signal.SIGTERM)
        (tmp_path / "go_on").touch()
        assert process.wait() == 128 + signal.SIGTERM, process.text()
        assert not (folder / "model_final.pt").exists()
        train(phantom, folder)
        assert same(folder, unstopped[0])


class TestTheSameFolder:
    def test_training_in_the_same_folder_with_another_config_is_refused(
        self, phantom: Path, unstopped: tuple[Path, float]
    ) -> None:
        before = (unstopped[0] / "config.json").read_bytes()
        ended = bundle("training", "train.json", **{**options(phantom, unstopped[0]), "learning_rate": 0.5})
        assert ended.status == 1
        assert "learning_rate was 0.002, now 0.5" in ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr
        assert (unstopped[0] / "config.json").read_bytes() == before

    def test_training_in_the_same_folder_starts_anew_beside_it_when_asked(
        self, phantom: Path, unstopped: tuple[Path, float]
    ) -> None:
        train(phantom, unstopped[0], resume=False)
        beside = unstopped[0].with_name("run-2")
        assert json.loads((beside / "run.json").read_text())["seed"] == 0
        assert same(beside, unstopped[0])  # the same seed gives the same weights


class TestLonger:
    def test_training_for_more_epochs_in_the_same_folder_is_refused_with_the_command_that_does_it(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path
    ) -> None:
        before = (unstopped[0] / "config.json").read_bytes()
        ended = bundle("training", "train.json", **{**options(phantom, unstopped[0]), "epochs": 5})
        assert ended.status == 1
        assert "epochs was 4, now 5" in ended.stderr
        first = unstopped[0] / "model_final.pt"
        assert f"--initial_weights {first} --output_dir NEW_FOLDER" in ended.stderr
        assert (unstopped[0] / "config.json").read_bytes() == before

        longer = tmp_path / "longer"
        given = {"initial_weights": first, "epochs": 1, "learning_rate": 1e-12, "warmup_fraction": 0}
        train(phantom, longer, **given, weight_decay=0)
        for name, value in weights(unstopped[0]).items():
            if value.is_floating_point() and "running" not in name:  # statistics of batch normalization move on
                assert torch.allclose(weights(longer)[name], value, atol=1e-6)
        assert json.loads((longer / "checkpoints.json").read_text())[-1]["iteration"] == 4  # a schedule of its own


class TestCacheOnDisk:
    def test_training_from_disk_that_was_stopped_ends_with_the_weights_of_one_from_memory(
        self, phantom: Path, unstopped: tuple[Path, float], tmp_path: Path
    ) -> None:
        folder = tmp_path / "run"
        disk = {"cache": "disk", "cache_dir": tmp_path / "cache"}
        process = start(phantom, folder, prepare=pause_in_second_epoch(tmp_path / "go_on"), **disk)
        process.wait_for(folder / "checkpoints.json")
        process.send(signal.SIGTERM)
        (tmp_path / "go_on").touch()
        assert process.wait() == 128 + signal.SIGTERM, process.text()
        files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
        assert len(files) == 2 * 4  # data and description of four patients
        train(phantom, folder, **disk)
        assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == files
        assert same(folder, unstopped[0])


class TestFineTuning:
    def test_fine_tuning_starts_from_the_weights_of_the_bundle(self, phantom: Path, tmp_path: Path) -> None:
        own = {key: value for key, value in options(phantom, tmp_path / "run").items() if key != "bundle_root"}
        del own["network_def#channels"]  # of the shipped weights
        small = {**own, "epochs": 1, "slices_per_epoch": 8, "learning_rate": 1e-12, "weight_decay": 0}
        ended = bundle("training", "train.json", "fine_tune.json", **small)
        assert ended.status == 0, ended.stderr
        shipped = torch.load(bundle_folder() / "models" / "model.pt", weights_only=True)
        shipped = shipped.get("model", shipped)
        for name, value in weights(tmp_path / "run").items():
            if value.is_floating_point() and "running" not in name:
                assert torch.allclose(value, shipped[name], atol=1e-6)


class TestOptions:
    def test_options_that_are_misspelt_are_refused_with_the_nearest(self, phantom: Path, tmp_path: Path) -> None:
        ended = bundle("training", "train.json", **options(phantom, tmp_path / "run"), lerning_rate=0.1)
        assert ended.status == 1
        assert "--lerning_rate: no such option. Did you mean --learning_rate?" in ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr
        assert not (tmp_path / "run").exists()
