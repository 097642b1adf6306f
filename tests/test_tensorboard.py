"""What a training leaves in TensorBoard, read back from its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from mri_seg.networks import AttentionUNet
from mri_seg.pictures import REFERENCE
from mri_seg.tensorboard import LearningRateHandler, TensorBoardSlices, write_metrics

TAG = "validation/slices and attention of each gate"


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def pictures(folder: Path) -> list[np.ndarray]:
    found = events(folder).Images(TAG)
    return [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in found]


def case(size: int = 16, label_size: int | None = None, depth: int = 3, channels: int = 1) -> dict[str, torch.Tensor]:
    """A case whose largest tumour, a square, is in its second slice."""
    label_size = label_size or size
    label = torch.zeros(1, label_size, label_size, depth)
    label[0, 4:10, 4:10, 1] = 1
    label[0, 4:6, 4:6, 2] = 1
    return {"image": torch.randn(channels, size, size, depth), "label": label}


def engine_of(network: torch.nn.Module) -> Engine:
    """An engine with a network, as MONAI's evaluators are."""
    engine = Engine(lambda engine, batch: None)
    engine.network = network
    return engine


@pytest.fixture
def network() -> AttentionUNet:
    return AttentionUNet(channels=(2, 4, 8))


class Plain(torch.nn.Module):
    """A network without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def show(folder: Path, network: torch.nn.Module, data: list[dict], epochs: int = 1, **options: object) -> None:
    handler = TensorBoardSlices(folder, data, **options)
    engine = engine_of(network)
    handler.attach(engine)
    engine.run([0], max_epochs=epochs)
    handler.close()


def is_coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour)).all(axis=-1)


class TestLearningRateHandler:
    def test_writes_the_rate_of_every_epoch(self, tmp_path: Path) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
        engine = Engine(lambda engine, batch: None)
        handler = LearningRateHandler(tmp_path, optimizer)
        handler.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: (optimizer.step(), scheduler.step()))
        engine.run([0], max_epochs=2)
        handler.close()
        scalars = events(tmp_path).Scalars("train/learning_rate")
        assert [event.step for event in scalars] == [1, 2]
        assert [event.value for event in scalars] == pytest.approx([0.5, 0.05])


class TestWriteMetrics:
    def test_groups_the_metrics_of_validation(self, tmp_path: Path) -> None:
        engine = Engine(lambda engine, batch: None)
        engine.state.metrics, engine.state.epoch = {"patient_dice": 0.75, "slice_dice": 0.5}, 3
        with SummaryWriter(str(tmp_path)) as writer:
            write_metrics(engine, writer)
        found = events(tmp_path)
        assert sorted(found.Tags()["scalars"]) == ["validation/patient_dice", "validation/slice_dice"]
        (event,) = found.Scalars("validation/patient_dice")
        assert (event.step, event.value) == (3, 0.75)


class TestTensorBoardSlices:
    def test_writes_a_row_a_case_and_a_column_a_gate_beside_the_slice(
        self, tmp_path: Path, network: AttentionUNet
    ) -> None:
        show(tmp_path, network, [case(), case()])
        (picture,) = pictures(tmp_path)
        assert picture.shape == (2 * 16 + 4, 3 * 16 + 2 * 4, 3)

    def test_shows_the_slice_with_the_largest_tumour(self, tmp_path: Path, network: AttentionUNet) -> None:
        show(tmp_path, network, [case()], threshold=1.0)
        (picture,) = pictures(tmp_path)
        outline = is_coloured(picture[:, :16], REFERENCE)
        assert outline.sum() == 20  # around 6 x 6 pixels
        assert outline[4:10, 4:10].sum() == 20

    def test_takes_networks_without_attention(self, tmp_path: Path) -> None:
        show(tmp_path, Plain(), [case()])
        assert pictures(tmp_path)[0].shape == (16, 16, 3)

    def test_takes_neighbouring_slices_as_channels(self, tmp_path: Path) -> None:
        show(tmp_path, AttentionUNet(in_channels=3, channels=(2, 4, 8)), [case(channels=3)])
        assert len(pictures(tmp_path)) == 1

    def test_shows_as_many_cases_as_asked_or_as_there_are(self, tmp_path: Path) -> None:
        show(tmp_path / "few", Plain(), [case()] * 3, number=2)
        show(tmp_path / "all", Plain(), [case()] * 3, number=9)
        assert pictures(tmp_path / "few")[0].shape[0] == 2 * 16 + 4
        assert pictures(tmp_path / "all")[0].shape[0] == 3 * 16 + 2 * 4

    def test_shows_every_epoch_or_as_often_as_asked(self, tmp_path: Path) -> None:
        show(tmp_path / "each", Plain(), [case()], epochs=4)
        show(tmp_path / "second", Plain(), [case()], epochs=4, interval=2)
        assert [event.step for event in events(tmp_path / "each").Images(TAG)] == [1, 2, 3, 4]
        assert [event.step for event in events(tmp_path / "second").Images(TAG)] == [2, 4]

    def test_outline_lies_where_the_padding_moved_the_tumour(self, tmp_path: Path) -> None:
        show(tmp_path, Plain(), [case(size=16, label_size=13)], threshold=1.0)
        outline = is_coloured(pictures(tmp_path)[0], REFERENCE)
        assert outline[5:11, 5:11].sum() == 20  # (16 - 13) // 2 pixels from the top and left

    def test_outline_lies_on_an_image_that_was_resampled(self, tmp_path: Path) -> None:
        data = case(size=32, label_size=16)  # the image has pixels of half the size
        data["image"] = MetaTensor(data["image"], affine=torch.diag(torch.tensor([0.5, 0.5, 1, 1.0])))
        data["label"] = MetaTensor(data["label"], affine=torch.eye(4))
        show(tmp_path, Plain(), [data], threshold=1.0)
        rows, columns = np.nonzero(is_coloured(pictures(tmp_path)[0], REFERENCE))
        assert abs(rows.min() - 8) <= 1
        assert abs(rows.max() - 19) <= 1
        assert abs(columns.min() - 8) <= 1
        assert abs(columns.max() - 19) <= 1

    def test_cases_may_differ_in_size(self, tmp_path: Path, network: AttentionUNet) -> None:
        show(tmp_path, network, [case(16), case(32)])
        assert len(pictures(tmp_path)) == 1

    def test_a_case_without_tumour_is_shown_too(self, tmp_path: Path) -> None:
        data = case()
        data["label"].zero_()
        show(tmp_path, Plain(), [data])
        assert len(pictures(tmp_path)) == 1

    def test_does_not_train(self, tmp_path: Path, network: AttentionUNet) -> None:
        before = {key: value.clone() for key, value in network.state_dict().items()}
        show(tmp_path, network, [case()])
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(p.grad is None for p in network.parameters())
