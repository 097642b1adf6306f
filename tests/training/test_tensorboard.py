"""What a training leaves in TensorBoard, read back from its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import DiceMetric
from PIL import Image
from scipy.ndimage import gaussian_filter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter

from mri_seg.networks.attention_unet import AttentionUNet
from mri_seg.training.tensorboard import (
    LAYOUT,
    LearningRateHandler,
    PrecisionRecallCurve,
    RunDescription,
    TensorBoardSlices,
    model_summary,
    precision_recall_rows,
    write_metrics,
)
from mri_seg.utils.colors import REFERENCE
from mri_seg.utils.threshold_counts import voxel_counts

GAP, LEGEND = 4, 18  # pixels between pictures, rows above them
TAG = "validation/slices and attention of each gate"


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def pictures(folder: Path) -> list[np.ndarray]:
    found = events(folder).Images(TAG)
    return [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in found]


def case(
    size: int = 16, label_size: int | None = None, depth: int = 3, channels: int = 1, corner: int = 4
) -> dict[str, torch.Tensor]:
    """A case whose largest tumour, a square of 6 x 6 pixels from a corner on, is in its second slice."""
    label_size = label_size or size
    label = torch.zeros(1, label_size, label_size, depth)
    label[0, corner : corner + 6, corner : corner + 6, 1] = 1
    label[0, corner : corner + 2, corner : corner + 2, 2] = 1
    return {"image": torch.randn(channels, size, size, depth), "label": label}


def engine_of(network: torch.nn.Module) -> Engine:
    """An engine with a network, as MONAI's evaluators are."""
    engine = Engine(lambda engine, batch: [])
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
    handler = TensorBoardSlices(data, log_dir=folder, **options)
    engine = engine_of(network)
    handler.attach(engine)
    engine.run([0], max_epochs=epochs)
    handler.close()


def is_colored(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(color)).all(axis=-1)


class TestLearningRateHandler:
    def test_learning_rate_handler_writes_the_rate_of_every_epoch(self, tmp_path: Path) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
        engine = Engine(lambda engine, batch: None)
        handler = LearningRateHandler(optimizer, log_dir=tmp_path)
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
    def test_tensorboard_slices_lays_the_cases_out_with_four_small_maps_beside_each_slice(self, tmp_path: Path) -> None:
        show(tmp_path, AttentionUNet(channels=(2, 2, 2, 2, 2)), [case(32)])
        (picture,) = pictures(tmp_path)
        block = 2 * 16 + GAP  # two maps of half the size, and what is between them
        assert picture.shape == (LEGEND + block, 2 * block + GAP, 3)
        maps = picture[LEGEND:, block + GAP :]
        corners = [maps[r : r + 16, c : c + 16] for r in (0, 16 + GAP) for c in (0, 16 + GAP)]
        assert all(corner.std() > 0 for corner in corners)
        assert not maps[16:20].any()  # black between them

    def test_an_odd_number_of_gates_is_no_obstacle(self, tmp_path: Path) -> None:
        show(tmp_path, AttentionUNet(channels=(2, 2, 2, 2)), [case(), case(32)])
        assert len(pictures(tmp_path)) == 1

    def test_tensorboard_slices_shows_the_slice_with_the_largest_tumour(
        self, tmp_path: Path, network: AttentionUNet
    ) -> None:
        show(tmp_path, network, [case(32, corner=16)], threshold=1.0)
        (picture,) = pictures(tmp_path)
        outline = is_colored(picture[LEGEND:, :32], REFERENCE)
        assert outline.sum() == 20  # around 6 x 6 pixels
        assert outline[16:22, 16:22].sum() == 20

    def test_tensorboard_slices_takes_networks_without_attention(self, tmp_path: Path) -> None:
        show(tmp_path, Plain(), [case()])
        assert pictures(tmp_path)[0].shape == (LEGEND + 16, 16, 3)

    def test_tensorboard_slices_takes_neighbouring_slices_as_channels(self, tmp_path: Path) -> None:
        show(tmp_path, AttentionUNet(in_channels=3, channels=(2, 4, 8)), [case(channels=3)])
        assert len(pictures(tmp_path)) == 1

    def test_tensorboard_slices_shows_as_many_cases_as_asked_or_as_there_are(self, tmp_path: Path) -> None:
        show(tmp_path / "few", Plain(), [case()] * 3, number=2)
        show(tmp_path / "all", Plain(), [case()] * 3, number=9)
        assert pictures(tmp_path / "few")[0].shape[:2] == (LEGEND + 16, 2 * 16 + GAP)
        assert pictures(tmp_path / "all")[0].shape[:2] == (LEGEND + 2 * 16 + GAP, 2 * 16 + GAP)

    def test_tensorboard_slices_shows_every_epoch_or_as_often_as_asked(self, tmp_path: Path) -> None:
        show(tmp_path / "each", Plain(), [case()], epochs=4)
        show(tmp_path / "second", Plain(), [case()], epochs=4, interval=2)
        assert [event.step for event in events(tmp_path / "each").Images(TAG)] == [1, 2, 3, 4]
        assert [event.step for event in events(tmp_path / "second").Images(TAG)] == [2, 4]

    def test_outline_lies_where_the_padding_moved_the_tumour(self, tmp_path: Path) -> None:
        show(tmp_path, Plain(), [case(size=32, label_size=29, corner=16)], threshold=1.0)
        outline = is_colored(pictures(tmp_path)[0][LEGEND:], REFERENCE)
        assert outline[17:23, 17:23].sum() == 20  # (32 - 29) // 2 pixels from the top and left

    def test_outline_lies_on_an_image_that_was_resampled(self, tmp_path: Path) -> None:
        data = case(size=32, label_size=16, corner=8)  # the image has pixels of half the size
        data["image"] = MetaTensor(data["image"], affine=torch.diag(torch.tensor([0.5, 0.5, 1, 1.0])))
        data["label"] = MetaTensor(data["label"], affine=torch.eye(4))
        show(tmp_path, Plain(), [data], threshold=1.0)
        rows, columns = np.nonzero(is_colored(pictures(tmp_path)[0][LEGEND:], REFERENCE))
        assert abs(rows.min() - 16) <= 1
        assert abs(rows.max() - 27) <= 1
        assert abs(columns.min() - 16) <= 1
        assert abs(columns.max() - 27) <= 1

    def test_cases_may_differ_in_size(self, tmp_path: Path, network: AttentionUNet) -> None:
        show(tmp_path, network, [case(16), case(32)])
        assert len(pictures(tmp_path)) == 1

    def test_a_case_without_tumour_is_shown_too(self, tmp_path: Path) -> None:
        data = case()
        data["label"].zero_()
        show(tmp_path, Plain(), [data])
        assert len(pictures(tmp_path)) == 1

    def test_tensorboard_slices_does_not_train(self, tmp_path: Path, network: AttentionUNet) -> None:
        before = {key: value.clone() for key, value in network.state_dict().items()}
        show(tmp_path, network, [case()])
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(p.grad is None for p in network.parameters())


def head(size: int = 256, depth: int = 1) -> torch.Tensor:
    """A head as hard to compress as a real one: an ellipse of noise that is smooth over a pixel or two."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = (rows / 0.87) ** 2 + (columns / 0.72) ** 2 < 1  # 223 x 184 of 256 pixels
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(depth, size, size)), (0, 0.7, 0.7))
    volume = (5 + noise / noise.std()) * inside
    return torch.as_tensor(volume, dtype=torch.float32).movedim(0, -1)[None]


class TestSizeOfTheEvents:
    def test_fifty_epochs_of_four_heads_take_less_than_50_megabytes(self, tmp_path: Path) -> None:
        label = torch.zeros(1, 256, 256, 1)
        label[0, 90:140, 90:140] = 1
        image, epochs, steps = head().expand(3, -1, -1, -1), 2, 187
        network = AttentionUNet(in_channels=3, channels=(16, 32, 64, 128, 256))
        with SummaryWriter(str(tmp_path)) as writer:
            slices = TensorBoardSlices([{"image": image, "label": label}] * 4, summary_writer=writer)
            curve = PrecisionRecallCurve(writer)
            engine = engine_of(network)
            for handler in (slices, curve):
                handler.attach(engine)
            engine.add_event_handler(
                Events.EPOCH_COMPLETED,
                lambda: [writer.add_scalar("train/loss", 0.5, step) for step in range(steps)],
            )
            engine.run([0], max_epochs=epochs)
        size = sum(file.stat().st_size for file in tmp_path.iterdir())
        megabytes = 50 * size / epochs / 1e6
        assert 10 < megabytes < 50, f"{megabytes:.1f} MB"


class TestPrecisionRecallRows:
    def test_precision_recall_rows_agree_with_counting_at_each_threshold(self) -> None:
        probability, label = torch.rand(1000), torch.rand(1000) > 0.7
        rows = precision_recall_rows(voxel_counts(probability, label, 11))
        for place, threshold in enumerate(torch.linspace(0, 1, 11)):
            pred = probability >= threshold
            counts = [(pred & label), (pred & ~label), (~pred & ~label), (~pred & label)]
            assert rows[:4, place].tolist() == [int(count.sum()) for count in counts]
        tp, fp, _, fn, precision, recall = rows[:, 5]
        assert precision == tp / (tp + fp)
        assert recall == tp / (tp + fn)

    def test_nothing_is_divided_by_zero(self) -> None:
        assert not precision_recall_rows(torch.zeros(2, 5)).any()


class TestPrecisionRecallCurve:
    def test_precision_recall_curve_adds_the_cases_of_an_epoch_up(self, tmp_path: Path) -> None:
        cases = [{"probability": torch.tensor([0.9, 0.1]), "label": torch.tensor([1, 0])}] * 3
        engine = Engine(lambda engine, batch: [batch])
        handler = PrecisionRecallCurve(log_dir=tmp_path, num_thresholds=3)
        handler.attach(engine)
        engine.run(cases, max_epochs=2)
        handler.close()
        found = events(tmp_path).Tensors("validation/precision and recall of voxels")
        assert [event.step for event in found] == [1, 2]
        for event in found:
            rows = np.array(event.tensor_proto.float_val).reshape(6, 3)
            assert rows[0].tolist() == [3, 3, 0]  # true positives at the thresholds 0, 0.5 and 1
            assert rows[1].tolist() == [3, 0, 0]


def validator(scores: list[float]) -> SupervisedEvaluator:
    """An evaluator whose patient Dice in epoch n is about the n-th score."""

    def predict(engine: SupervisedEvaluator, batch: dict) -> list[dict]:
        covered = round(100 * scores[engine.state.epoch - 1] / (2 - scores[engine.state.epoch - 1]))
        pred, label = torch.zeros(1, 10, 10), torch.ones(1, 10, 10)
        pred.view(-1)[:covered] = 1
        return [{"pred": pred, "label": label}]

    metric = IgniteMetricHandler(metric_fn=DiceMetric(), output_transform=from_engine(["pred", "label"]))
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[0],
        network=Plain(),
        iteration_update=predict,
        key_val_metric={"patient_dice": metric},
        val_handlers=[],
    )


class TestRunDescription:
    @pytest.fixture
    def run(self, tmp_path: Path) -> EventAccumulator:
        config = tmp_path / "config.json"
        config.write_text('{\n    "epochs": 3\n}\n')
        settings = {"epochs": 3, "learning_rate": 0.01, "roi_size": [48, 64], "limit": float("inf"), "none": None}
        evaluator = validator([0.5, 0.9, 0.7])
        trainer = Engine(lambda engine, batch: None)
        with SummaryWriter(str(tmp_path / "run")) as writer:
            evaluator.add_event_handler(Events.EPOCH_COMPLETED, write_metrics, writer)
            RunDescription(evaluator, Plain(), settings, config_file=config, summary_writer=writer).attach(trainer)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run(engine.state.epoch))
            trainer.run([0], max_epochs=3)
        return events(tmp_path / "run")

    def hparams(self, run: EventAccumulator, tag: str) -> plugin_data_pb2.HParamsPluginData:
        content = run.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
        return plugin_data_pb2.HParamsPluginData.FromString(content)

    def test_run_description_lays_out_loss_both_protocols_and_learning_rate(self, run: EventAccumulator) -> None:
        (event,) = run.Tensors("custom_scalars__config__")
        layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
        (category,) = layout.category
        tags = {tag for chart in category.chart for tag in chart.multiline.tag}
        scores = {f"validation/{name}" for name in ("patient_dice", "slice_dice", "slice_precision", "slice_recall")}
        assert tags == {"train/loss", "train/learning_rate"} | scores
        assert [chart.title for chart in category.chart] == list(LAYOUT["Overview"])

    def test_run_description_shows_the_config_and_the_network_as_text(self, run: EventAccumulator) -> None:
        texts = {
            name: run.Tensors(f"run/{name}/text_summary")[0].tensor_proto.string_val[0].decode()
            for name in ("config", "network")
        }
        assert texts["config"] == '```json\n{\n    "epochs": 3\n}\n```'
        assert "| layer | Conv2d | 1 x 1 x 1 x 1 | 2 |" in texts["network"]

    def test_hyperparameters_are_numbers_where_they_can_be(self, run: EventAccumulator) -> None:
        settings = self.hparams(run, "session_start_info").session_start_info.hparams
        assert settings["epochs"].number_value == 3
        assert settings["learning_rate"].number_value == 0.01
        texts = {name: settings[name].string_value for name in ("roi_size", "limit", "none")}
        assert texts == {"roi_size": "48 x 64", "limit": "inf", "none": "None"}

    def test_run_description_compares_the_last_and_the_best_metrics(self, run: EventAccumulator) -> None:
        compared = {info.name.tag for info in self.hparams(run, "experiment").experiment.metric_infos}
        assert {"validation/patient_dice", "validation_best/patient_dice"} <= compared
        assert run.Scalars("validation/patient_dice")[-1].value == pytest.approx(0.7, abs=0.01)
        (best,) = run.Scalars("validation_best/patient_dice")
        assert best.step == 2
        assert best.value == pytest.approx(0.9, abs=0.01)
        assert self.hparams(run, "session_end_info").HasField("session_end_info")

    def test_run_description_goes_without_a_config_that_is_missing(self, tmp_path: Path) -> None:
        trainer = Engine(lambda engine, batch: None)
        handler = RunDescription(validator([1.0]), Plain(), {}, config_file=tmp_path / "none.json", log_dir=tmp_path)
        handler.attach(trainer)
        trainer.run([0])
        handler.close()
        assert "run/config/text_summary" not in events(tmp_path).Tags()["tensors"]


class TestModelSummary:
    def test_model_summary_takes_lists_of_blocks_apart_and_adds_up(self, network: AttentionUNet) -> None:
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in model_summary(network).splitlines()]
        blocks, (*_, total) = rows[2:-1], rows[-1]
        assert [row[0] for row in blocks if row[0].startswith("gates")] == ["gates.0", "gates.1"]
        counts = [int(row[-1].replace(",", "")) for row in blocks]
        assert sum(counts) == int(total.strip("*").replace(",", "")) == sum(p.numel() for p in network.parameters())
