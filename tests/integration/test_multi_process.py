"""Several processes give what one gives: figures, files and weights; and what one of them leaves, others finish.

They join as torchrun's do, by the environment; one test starts torchrun itself.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT
from forked import CONFIGS, Forked, pause_in_second_epoch
from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = {
    "bundle_root": str(ROOT / "bundle"),
    "network_def#channels": [4, 8],
    "amp": False,
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
}
TRAINING = {
    **{key: TINY[key] for key in ("network_def#channels", "amp")},
    "epochs": 3,
    "slices_per_epoch": 40,
    "batch_size": 4,
    "spatial_size": [64, 64],
    "roi_size": [64, 64],
    "learning_rate": 0.001,
    "ema_momentum": 0.2,
    "checkpoint_interval": 100,
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


class Ranks:
    """Processes that run a workflow of the bundle together."""

    def __init__(
        self,
        number: int,
        folder: Path,
        run_id: str,
        *configs: str,
        prepare_last: Callable[[], None] | None = None,
        **options: object,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        environment |= {"WORLD_SIZE": str(number)}
        name = f"log-{number}-{time.monotonic_ns()}"
        self.processes = [
            Forked(
                folder / f"{name}-{rank}.txt",
                run_id,
                *configs,
                environment={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                prepare=prepare_last if rank == number - 1 else None,
                **options,
            )
            for rank in range(number)
        ]

    def wait(self) -> list[int]:
        """Exit status of each."""
        return [process.wait(120) for process in self.processes]

    def text(self) -> str:
        return "\n".join(process.log.read_text() for process in self.processes)


def die_at(number: int) -> None:
    """A process kills itself before it writes its so manieth case."""
    from mri_seg.inference.writer import CaseWriter

    write, written = CaseWriter.write, []

    def write_or_die(writer: CaseWriter, batch: object, output: object) -> None:
        written.append(output)
        if len(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        write(writer, batch, output)

    CaseWriter.write = write_or_die


def run(number: int, folder: Path, run_id: str, *configs: str, **options: object) -> Ranks:
    ranks = Ranks(number, folder, run_id, *configs, **options)
    assert ranks.wait() == [0] * number, ranks.text()[-5000:]
    return ranks


def train(number: int, data: dict[str, Path], folder: Path, **options: object) -> Ranks:
    configs = ["train.json", "multi_gpu_train.json"][: 1 if number == 1 else 2]
    own = {"output_dir": folder, "bundle_root": folder.parent / "bundle"}
    return Ranks(number, folder.parent, "training", *configs, **own, **TRAINING, **data, **options)


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def split(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients to train on and two to validate: one a process where there are two, none for one of three."""
    sections = json.loads((phantom / "split.json").read_text())
    patients = [*sections["training"].items(), *sections["validation"].items(), *sections["test"].items()]
    file = tmp_path_factory.mktemp("split") / "split.json"
    numbers = {"training": (0, 3), "validation": (3, 5), "test": (5, 6)}
    file.write_text(json.dumps({name: dict(patients[slice(*ends)]) for name, ends in numbers.items()}))
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained network that calls about half of all pixels tumour."""
    torch.manual_seed(0)
    parser = ConfigParser(json.loads((CONFIGS / "inference.json").read_text()))
    parser["network_def"]["channels"] = [4, 8]
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        network.head.bias -= network(torch.randn(4, 4, 64, 64)).median()
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def data(phantom: Path, split: Path, checkpoint: Path) -> dict[str, Path]:
    """What training begins with: weights that call some of the pixels tumour, and still do after steps so small."""
    return {"dataset_dir": phantom, "split": split, "initial_weights": checkpoint}


@pytest.fixture(scope="module")
def trained(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    ranks = train(2, data, folder)
    assert ranks.wait() == [0, 0], ranks.text()[-5000:]
    return folder


@pytest.fixture(scope="module")
def stopped(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, the second of its processes told to stop after the first epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    go_on = folder.parent / "go_on"
    ranks = train(2, data, folder, prepare_last=pause_in_second_epoch(go_on))
    ranks.processes[0].wait_for(folder / "checkpoints.json")
    ranks.processes[1].send(signal.SIGTERM)
    go_on.touch()
    assert ranks.wait() == [128 + signal.SIGTERM] * 2, ranks.text()[-5000:]
    assert ranks.text().count("Stopped. Run the same command to resume") == 1
    return folder


class TestTraining:
    def test_training_of_several_processes_leaves_one_record_and_weights_as_one_process_does(
        self, trained: Path, checkpoint: Path
    ) -> None:
        assert len(list(trained.glob("events.out.tfevents.*"))) == 1
        assert json.loads((trained / "run.json").read_text())["processes"] == 2
        assert weights(trained / "model.pt").keys() == weights(checkpoint).keys()

    def test_training_of_several_processes_validates_what_it_saves(
        self, trained: Path, phantom: Path, split: Path, tmp_path: Path
    ) -> None:
        (events,) = trained.glob("events.out.tfevents.*")
        scalars = EventAccumulator(str(events)).Reload()
        run(
            1,
            tmp_path,
            "evaluation",
            "train.json",
            "evaluate.json",
            dataset_dir=phantom,
            split=split,
            checkpoint=trained / "model_final.pt",
            output_dir=tmp_path,
            report=False,
            tta_flip=False,
            fill_holes=False,
            **TINY,
        )
        found = json.loads((tmp_path / "metrics.json").read_text())
        patient, by_slice = found["patient_protocol"]["dice"]["mean"], found["slice_protocol"]
        assert 0 < patient < 1  # weights worth comparing
        for name, value in [
            ("patient_dice", patient),
            *((f"slice_{s}", by_slice[s]["mean"]) for s in ("dice", "recall")),
        ]:
            assert scalars.Scalars(f"validation/{name}")[-1].value == pytest.approx(value, abs=1e-6)

    def test_training_of_several_processes_that_was_stopped_goes_on_to_the_same_weights(
        self, trained: Path, stopped: Path, data: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(stopped, tmp_path / "run")
        ranks = train(2, data, folder)
        assert ranks.wait() == [0, 0], ranks.text()[-5000:]
        assert "Resuming from" in ranks.text()
        assert same(folder / "model_final.pt", trained / "model_final.pt")
        assert same(folder / "model.pt", trained / "model.pt")

    def test_training_of_several_processes_from_one_cache_on_disk_leaves_the_same_weights(
        self, trained: Path, data: dict[str, Path], tmp_path: Path
    ) -> None:
        ranks = train(2, data, tmp_path / "run", cache="disk", cache_dir=tmp_path / "cache")
        assert ranks.wait() == [0, 0], ranks.text()[-5000:]
        assert len(list((tmp_path / "cache").glob("*.slices"))) == 3  # each patient once
        assert same(tmp_path / "run" / "model_final.pt", trained / "model_final.pt")

    @pytest.mark.parametrize(("number", "steps"), [(1, 10), (3, 3)])
    def test_training_of_several_processes_goes_on_with_another_number_of_processes(
        self, stopped: Path, data: dict[str, Path], tmp_path: Path, number: int, steps: int
    ) -> None:
        folder = shutil.copytree(stopped, tmp_path / "run")
        ranks = train(number, data, folder)
        assert ranks.wait() == [0] * number, ranks.text()[-5000:]
        assert "after 1 epochs" in ranks.text()
        assert json.loads((folder / "checkpoints.json").read_text())[-1]["iteration"] == 3 * steps
        assert (folder / "model_final.pt").is_file()


class TestErrors:
    def test_errors_of_several_processes_are_told_once(self, data: dict[str, Path], tmp_path: Path) -> None:
        ranks = train(2, data, tmp_path / "run", sync_batchnorm=True)
        assert all(ranks.wait())
        assert ranks.text().count("error: ") == 1, ranks.text()
        assert "--sync_batchnorm: PyTorch supports it only on GPUs" in ranks.text()


def evaluation(phantom: Path, split: Path, folder: Path, checkpoint: Path) -> dict[str, object]:
    return {
        "dataset_dir": phantom,
        "split": split,
        "section": "training+validation",
        "checkpoint": checkpoint,
        "output_dir": folder,
        **TINY,
    }


class TestEvaluation:
    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, phantom: Path, split: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("alone")
        options = evaluation(phantom, split, folder, checkpoint)
        (folder / "log.txt").write_text(run(1, folder, "evaluation", "train.json", "evaluate.json", **options).text())
        return folder

    def compare(self, folder: Path, alone: Path) -> None:
        for name in ("patients.csv", "slices.csv"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes()
        found, expected = (json.loads((f / "metrics.json").read_text()) for f in (folder, alone))
        assert found["slice_protocol"] == expected["slice_protocol"]
        assert found["patient_protocol"] == expected["patient_protocol"]
        assert 0 < found["patient_protocol"]["dice"]["mean"] < 1
        cases = sorted(file.name for file in (alone / "cases").iterdir())
        assert sorted(file.name for file in (folder / "cases").iterdir()) == cases
        for name in cases:
            one, other = (np.load(f / "cases" / name) for f in (folder, alone))
            assert all(np.array_equal(one[key], other[key]) for key in other.files)
        assert (folder / "report.html").is_file()

    def test_evaluation_of_uneven_shares_is_that_of_one_process(
        self, phantom: Path, split: Path, checkpoint: Path, alone: Path, tmp_path: Path
    ) -> None:
        options = evaluation(phantom, split, tmp_path, checkpoint)
        configs = ("train.json", "evaluate.json", "multi_gpu_evaluate.json")
        ranks = run(3, tmp_path, "evaluation", *configs, **options)
        self.compare(tmp_path, alone)
        (metric,) = re.findall(r"new best metric of patient_dice: (.*)", ranks.text())
        assert re.search(r"new best metric of patient_dice: (.*)", (alone / "log.txt").read_text())[1] == metric

    @pytest.mark.slow
    def test_evaluation_by_torchrun_agrees(
        self, phantom: Path, split: Path, checkpoint: Path, alone: Path, tmp_path: Path
    ) -> None:
        files = [str(CONFIGS / name) for name in ("train.json", "evaluate.json", "multi_gpu_evaluate.json")]
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command += ["-m", "monai.bundle", "run", "evaluation", "--config_file", str(files)]
        for key, value in evaluation(phantom, split, tmp_path, checkpoint).items():
            command += [f"--{key}", str(value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert result.returncode == 0, result.stderr[-5000:]
        assert result.stdout.count("patient protocol: mean Dice") == 1
        self.compare(tmp_path, alone)


class TestInference:
    @staticmethod
    def options(phantom: Path, folder: Path, checkpoint: Path) -> dict[str, object]:
        return {"dataset_dir": phantom, "checkpoint": checkpoint, "output_dir": folder, **TINY}

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, phantom: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("alone") / "out"
        run(1, folder.parent, "inference", "inference.json", **cls.options(phantom, folder, checkpoint))
        return folder

    def test_inference_of_several_processes_makes_every_result_once(
        self, phantom: Path, checkpoint: Path, alone: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "out"
        configs = ("inference.json", "multi_gpu_inference.json")
        ranks = run(3, tmp_path, "inference", *configs, **self.options(phantom, folder, checkpoint))
        assert ranks.text().count("Cases segmented: 6, kept as they were: 0, failed: 0.") == 1
        for name in ("summary.csv", "measurements.csv"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes()
        assert files(folder) == files(alone)

    def test_inference_of_several_processes_goes_on_where_a_process_was_killed(
        self, phantom: Path, checkpoint: Path, alone: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "out"
        configs = ("inference.json", "multi_gpu_inference.json")
        options = self.options(phantom, folder, checkpoint)
        broken = Ranks(2, tmp_path, "inference", *configs, **options, prepare_last=partial(die_at, 2))
        status = broken.wait()
        assert status[1] == -signal.SIGKILL
        assert status[0] not in (0, None)
        before = {file: file.stat().st_mtime_ns for file in folder.glob("*/*")}
        ended = len(set(file.parent for file in before))
        assert 1 <= ended < 6
        ranks = run(3, tmp_path, "inference", *configs, **options)
        assert f"Cases segmented: {6 - ended}, kept as they were: {ended}, failed: 0." in ranks.text()
        assert all(file.stat().st_mtime_ns == written for file, written in before.items())
        assert files(folder) == files(alone)
        assert (folder / "measurements.csv").read_bytes() == (alone / "measurements.csv").read_bytes()
        found, expected = (
            [
                {**row, "status": ""}
                for row in csv.DictReader((f / "summary.csv").read_text(encoding="utf-8").splitlines())
            ]
            for f in (folder, alone)
        )
        assert found == expected

    def test_inference_of_several_processes_refuses_results_of_other_options_on_all(
        self, phantom: Path, checkpoint: Path, alone: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "out"
        shutil.copytree(alone, folder)
        configs = ("inference.json", "multi_gpu_inference.json")
        options = {**self.options(phantom, folder, checkpoint), "threshold": 0.4}
        ranks = Ranks(2, tmp_path, "inference", *configs, **options)
        assert ranks.wait() == [1, 1]
        assert ranks.text().count("threshold was 0.5, is 0.4") == 1
        assert files(folder) == files(alone)
        assert (folder / "summary.csv").read_bytes() == (alone / "summary.csv").read_bytes()


def files(folder: Path) -> dict[str, bytes]:
    """Masks and measurements, and the names of all else."""
    same_bytes = (".json", ".tif")
    return {
        str(file.relative_to(folder)): file.read_bytes() if file.suffix in same_bytes else b""
        for file in folder.glob("*/*")
    }
