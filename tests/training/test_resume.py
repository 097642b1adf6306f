"""Runs that are stopped and go on, to the same weights."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver

from mri_seg.training.resume import TrainingCheckpoint, find_checkpoint, refuse_other_config, run_folder
from mri_seg.training.slice_dataset import EpochSampler

EPOCHS, STEPS, BATCH = 4, 5, 2


class Run:
    """A small training with dropout, momentum, a schedule and a best model: everything that has a state."""

    def __init__(self, folder: Path, batch: int = BATCH, **options: object) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, EPOCHS * STEPS * BATCH // batch)
        data = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
        self.sampler = EpochSampler(torch.ones(20), STEPS * BATCH, seed=3)
        loader = torch.utils.data.DataLoader(
            data, batch_size=batch, sampler=self.sampler, generator=torch.Generator().manual_seed(0)
        )
        self.loader, self.seen = loader, []
        self.trainer = Engine(self.step)
        self.evaluator = Engine(lambda engine, batch: None)
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = -1, -1
        saver = CheckpointSaver(str(folder), {"model": self.network}, save_key_metric=True, key_metric_name="score")
        saver.attach(self.evaluator)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        TrainingCheckpoint(
            folder,
            objects={"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler},
            sampler=self.sampler,
            batch_size=batch,
            evaluator=self.evaluator,
            savers=[saver, "another handler"],
            **options,
        ).attach(self.trainer)

    def step(self, engine: Engine, batch: torch.Tensor) -> float:
        self.seen.append(batch.flatten().tolist())
        self.optimizer.zero_grad()
        loss = (self.network(batch) - 1).square().mean() + random.random() + np.random.rand()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def validate(self, engine: Engine) -> None:
        """The second epoch is the best."""
        score = 1 / (1 + abs(engine.state.epoch - 2))
        self.evaluator.state.metrics = {"score": score}
        if score > self.evaluator.state.best_metric:
            self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = score, engine.state.epoch
        self.evaluator.state.epoch = engine.state.epoch
        self.evaluator.fire_event(Events.EPOCH_COMPLETED)

    def go(self) -> Run:
        self.trainer.run(self.loader, max_epochs=EPOCHS)
        return self

    def stop_at(self, iteration: int, action: object) -> Run:
        self.trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), action)
        return self

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.network.parameters()])


@pytest.fixture
def unstopped(tmp_path: Path) -> Run:
    return Run(tmp_path / "unstopped").go()


class Killed(BaseException):
    """Stands in for SIGKILL: nothing that runs after it may write."""


def kill(*args: object) -> None:
    raise Killed


def best_epochs(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("model_key_metric=*.pt"))


class TestKilled:
    @pytest.mark.parametrize("iteration", [1, 3, 5, 6, 9, 11, 16, 20])
    def test_training_killed_ends_with_the_same_weights_bit_for_bit(
        self, tmp_path: Path, unstopped: Run, iteration: int
    ) -> None:
        with pytest.raises(Killed):
            Run(tmp_path / "run").stop_at(iteration, kill).go()
        resumed = Run(tmp_path / "run").go()
        assert torch.equal(resumed.weights(), unstopped.weights())
        assert resumed.seen == unstopped.seen[len(unstopped.seen) - len(resumed.seen) :]
        assert best_epochs(tmp_path / "run") == best_epochs(tmp_path / "unstopped")
        assert resumed.evaluator.state.best_metric_epoch == 2

    def test_several_times_ends_with_the_same_weights(self, tmp_path: Path, unstopped: Run) -> None:
        for iteration in (7, 8, 13):
            with pytest.raises(Killed):
                Run(tmp_path / "run").stop_at(iteration - 5, kill).go()
        assert torch.equal(Run(tmp_path / "run").go().weights(), unstopped.weights())

    def test_training_killed_while_writing_a_checkpoint_leaves_the_one_before(
        self, tmp_path: Path, unstopped: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = torch.save

        def half(state: dict, path: Path) -> None:
            save(state, path)
            if isinstance(state, dict) and state.get("iteration") == 2 * STEPS:
                path.write_bytes(path.read_bytes()[:1000])
                raise Killed

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(Killed):
            Run(tmp_path / "run").go()
        monkeypatch.undo()
        assert find_checkpoint(tmp_path / "run")[1]["iteration"] == STEPS
        assert torch.equal(Run(tmp_path / "run").go().weights(), unstopped.weights())


@pytest.mark.slow
class TestToldToStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("iteration", [7, 10])
    def test_training_told_to_stop_finishes_the_step_and_says_so_in_its_status(
        self, tmp_path: Path, unstopped: Run, number: signal.Signals, iteration: int
    ) -> None:
        former = signal.getsignal(number)
        run = Run(tmp_path / "run").stop_at(iteration, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as status:
            run.go()
        assert status.value.code == 128 + number
        assert signal.getsignal(number) is former
        assert find_checkpoint(tmp_path / "run")[1]["iteration"] == iteration
        resumed = Run(tmp_path / "run").go()
        assert len(resumed.seen) == EPOCHS * STEPS - iteration
        assert torch.equal(resumed.weights(), unstopped.weights())


class TestCheckpoints:
    def test_two_checkpoints_are_kept(self, unstopped: Run, tmp_path: Path) -> None:
        found = sorted(file.name for file in (tmp_path / "unstopped").glob("checkpoint_*"))
        assert found == ["checkpoint_iteration=15.pt", "checkpoint_iteration=20.pt"]

    def test_checkpoints_of_a_complete_run_leave_nothing_to_do(self, unstopped: Run, tmp_path: Path) -> None:
        again = Run(tmp_path / "unstopped").go()
        assert again.seen == []
        assert torch.equal(again.weights(), unstopped.weights())

    def test_checkpoints_that_are_cut_short_are_passed_over(
        self, unstopped: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        last = tmp_path / "unstopped" / "checkpoint_iteration=20.pt"
        last.write_bytes(last.read_bytes()[:-100])
        assert torch.equal(Run(tmp_path / "unstopped").go().weights(), unstopped.weights())
        assert f"{last}: is missing or does not match its SHA-256" in caplog.text

    def test_none_of_which_is_whole_are_an_error(self, unstopped: Run, tmp_path: Path) -> None:
        for file in (tmp_path / "unstopped").glob("checkpoint_*.pt"):
            file.write_bytes(b"")
        with pytest.raises(ValueError, match=r"none of its 2 checkpoints is intact.*--resume false"):
            find_checkpoint(tmp_path / "unstopped")

    def test_checkpoints_say_what_is_resumed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(Killed):
            Run(tmp_path).stop_at(8, kill).go()
        with caplog.at_level(logging.INFO):
            Run(tmp_path).go()
        assert "Resuming from" in caplog.text
        assert "after 1 epochs and 0 steps" in caplog.text


class TestConfig:
    def folder(self, tmp_path: Path, config: dict) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "checkpoints.json").write_text('[{"file": "a.pt", "iteration": 1, "sha256": ""}]')
        return tmp_path

    def test_config_that_differs_is_refused_with_the_keys(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {"learning_rate": 0.1, "epochs": 5, "seed": 0})
        with pytest.raises(ValueError, match=r"another config: epochs was 5, now 6; seed was 0, now None.*--resume"):
            refuse_other_config(folder, {"learning_rate": 0.1, "epochs": 6})

    def test_config_that_differs_names_the_way_to_train_on_from_its_weights(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {"epochs": 5})
        for name in ("model.pt", "model_final.pt"):  # of a run that was stopped; of one that is complete
            (folder / name).touch()
            with pytest.raises(ValueError, match=rf"--initial_weights {folder / name} --output_dir NEW_FOLDER\.$"):
                refuse_other_config(folder, {"epochs": 6})

    def test_config_that_differs_in_places_alone_is_the_same(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {"epochs": 5, "dataset_dir": "/a", "num_workers": 2, "run_name": "x"})
        refuse_other_config(folder, {"epochs": 5, "dataset_dir": "/b", "num_workers": 0, "run_name": "y"})

    def test_config_does_not_matter_where_nothing_was_saved(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"epochs": 5}')
        refuse_other_config(tmp_path, {"epochs": 6})


class TestRunFolder:
    def test_run_folder_is_the_one_asked_for_to_resume_or_when_new(self, tmp_path: Path) -> None:
        assert run_folder(tmp_path / "run", "false") == tmp_path / "run"
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").touch()
        assert run_folder(tmp_path / "run") == tmp_path / "run"

    def test_run_folder_is_a_new_one_to_start_anew(self, tmp_path: Path) -> None:
        for name in ("run", "run-2"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").touch()
        assert run_folder(tmp_path / "run", "false") == tmp_path / "run-3"


class TestOtherSteps:
    """Other processes make larger or smaller steps: here, of other batches."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("batch", "iteration", "slices"), [(1, 14, 4), (5, 2, 0)])
    def test_other_steps_go_on_at_the_same_place_among_the_slices_drawn(
        self, tmp_path: Path, unstopped: Run, batch: int, iteration: int, slices: int
    ) -> None:
        stopped = Run(tmp_path / "run").stop_at(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            stopped.go()  # in the second epoch, after two steps of two
        resumed = Run(tmp_path / "run", batch=batch)
        resumed.trainer.add_event_handler(Events.STARTED, lambda engine: resumed.seen.append(engine.state.iteration))
        started, *seen = resumed.go().seen
        assert started == iteration
        drawn = [value for step in unstopped.seen[STEPS : 2 * STEPS] for value in step]
        rest = drawn[3 * slices :]  # three numbers a slice
        assert [value for step in seen for value in step][: len(rest)] == rest
        assert resumed.scheduler.last_epoch == EPOCHS * STEPS * BATCH // batch
