"""Handlers, each attached to a real trainer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import StatsHandler

from mri_seg.training.handlers import GradientClip, ProgressBar, RaiseErrors, StopOnBadLoss


def trainer_with(
    *handlers: object, loss: torch.nn.Module | None = None, epochs: int = 1, steps: int = 4, **options: object
) -> SupervisedTrainer:
    """A trainer of one convolution on ``steps`` images an epoch."""
    network = options.pop("network", None) or torch.nn.Conv2d(1, 1, 1)
    data = [{"image": torch.randn(1, 4, 4), "label": torch.ones(1, 4, 4)} for _ in range(steps)]
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=1),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        loss_function=loss or torch.nn.MSELoss(),
        train_handlers=list(handlers),
        **{"decollate": False, **options},
    )


class Scaled(torch.nn.Module):
    """A loss of a size of our choosing."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.factor * (pred - label).square().mean()


class TestGradientClip:
    def norms(self, max_norm: float, factor: float) -> list[float]:
        """Norm of the gradients at every optimizer step."""
        network, norms = torch.nn.Conv2d(1, 1, 1), []

        def keep(engine: Engine) -> None:
            norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters())))

        trainer = trainer_with(GradientClip(network, max_norm), loss=Scaled(factor), network=network)
        trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, keep)
        trainer.run()
        return norms

    def test_gradient_clip_holds_large_gradients_to_the_norm(self) -> None:
        norms = self.norms(0.5, 1e4)
        assert len(norms) == 4
        assert all(norm <= 0.5 + 1e-5 for norm in norms)
        assert norms == pytest.approx([0.5] * 4, rel=1e-3)

    def test_gradient_clip_leaves_small_gradients_alone(self) -> None:
        assert all(0 < norm < 0.1 for norm in self.norms(0.5, 1e-3))

    def test_gradient_clip_comes_before_the_step(self) -> None:
        network = torch.nn.Conv2d(1, 1, 1)
        before = [p.detach().clone() for p in network.parameters()]
        trainer_with(GradientClip(network, 0.5), loss=Scaled(1e6), network=network, steps=1).run()
        moved = sum((p - b).square().sum() for p, b in zip(network.parameters(), before)).sqrt()
        assert moved.item() == pytest.approx(0.01 * 0.5, rel=1e-2)


class TestProgressBar:
    def test_progress_bar_shows_the_loss(self, capsys: pytest.CaptureFixture) -> None:
        trainer_with(ProgressBar(), steps=20).run()
        shown = capsys.readouterr().err
        assert "loss=" in shown
        assert "/20]" in shown

    def test_progress_bar_writes_few_lines_where_steps_are_many(self, capsys: pytest.CaptureFixture) -> None:
        trainer_with(ProgressBar(), steps=200).run()
        assert capsys.readouterr().err.count("loss=") <= 50  # few even where a busy machine takes seconds

    def test_progress_bar_takes_options_of_the_bar_of_ignite(self, capsys: pytest.CaptureFixture) -> None:
        trainer_with(ProgressBar(desc="Learning", persist=False), steps=20).run()
        assert "Learning" in capsys.readouterr().err

    def test_progress_bar_takes_the_output_as_monai_gives_it_by_default(self, capsys: pytest.CaptureFixture) -> None:
        trainer_with(ProgressBar(), steps=20, decollate=True).run()
        assert "loss=" in capsys.readouterr().err


class TestStopOnBadLoss:
    class Data:
        def describe(self, index: int) -> str:
            return f"file {index}"

    def step(self, stop: StopOnBadLoss, loss: float) -> None:
        state = SimpleNamespace(output={"loss": torch.tensor(loss)}, batch={"index": torch.tensor([3, 5])}, iteration=7)
        stop(SimpleNamespace(state=state))

    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_error_of_a_bad_loss_says_step_files_and_what_to_try(self, loss: float) -> None:
        with pytest.raises(ValueError, match=r"step 7: the loss is .*learning_rate.*file 3, file 5"):
            self.step(StopOnBadLoss(self.Data()), loss)

    @pytest.mark.parametrize("factor", [math.nan, math.inf])
    def test_bad_loss_stops_a_training_before_its_weights_change(self, factor: float) -> None:
        trainer = trainer_with(StopOnBadLoss(), loss=Scaled(factor))
        before = trainer.network.weight.clone()
        with pytest.raises(ValueError, match="step 1: the loss is"):
            trainer.run()
        assert torch.equal(trainer.network.weight, before)

    def test_training_stops_when_the_loss_explodes(self) -> None:
        stop = StopOnBadLoss(self.Data())
        for _ in range(5):
            self.step(stop, 0.5)
        self.step(stop, 9.0)
        with pytest.raises(ValueError, match=r"the loss is 500, usually 0\.5"):
            self.step(stop, 500.0)

    def test_loss_may_start_high(self) -> None:
        stop = StopOnBadLoss()
        for loss in (300.0, 200.0, 1.0):
            self.step(stop, loss)


class TestRaiseErrors:
    def test_raise_errors_hands_up_the_error_without_a_traceback_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(engine: Engine, batch: object) -> None:
            raise ValueError("a.tif is empty")

        engine = Engine(broken)
        RaiseErrors().attach(engine)
        StatsHandler(iteration_log=False).attach(engine)
        with pytest.raises(ValueError, match=r"a\.tif is empty"):
            engine.run([1])
        assert not any(record.exc_info for record in caplog.records)
