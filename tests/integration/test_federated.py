"""Two hospitals train one model by MONAI's federated client, on this bundle as it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo, MonaiAlgoStats
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from mri_seg.io.load import LoadVolumed

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "slices_per_epoch": 16,
    "batch_size": 8,
    "spatial_size": [64, 64],
    "roi_size": [64, 64],
    "num_workers": 0,
    "val_interval": 20,
    "network_def#channels": [4, 8],
}

spec = importlib.util.spec_from_file_location("federated", ROOT / "examples" / "federated.py")
federated = importlib.util.module_from_spec(spec)
spec.loader.exec_module(federated)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Folders of three and of four synthetic cases: lesions are bright at one hospital and dark at the other."""
    pytest.importorskip("nilearn", reason="needs the extra `phantom`")
    from mri_seg.datasets.phantom import make_phantom
    from mri_seg.datasets.phantom.volume import has_tumor

    cases = {}
    for number, (name, brightness) in enumerate({"bright": 1.9, "dark": 0.05}.items(), start=3):
        folder = tmp_path_factory.mktemp("data") / name
        made = make_phantom(folder, patients=number, seed=number, slices=4, size=64)
        patients = [patient.name for n, patient in enumerate(made) if has_tumor(number, n)]
        for file in sorted(folder.glob("*/*[0-9].tif")):
            image = tifffile.imread(file).astype(float)
            lesion = tifffile.imread(file.with_name(f"{file.stem}_mask.tif")) > 0
            noise = np.random.default_rng(1).normal(1, 0.08, (lesion.sum(), 1))
            image[lesion] = brightness * noise * np.median(image[image > 0.15 * image.max()])
            tifffile.imwrite(file, image.clip(0, 255).astype(np.uint8), photometric="rgb")
        split = {"training": patients[1:], "validation": patients[:1]}
        (folder / "split.json").write_text(json.dumps(split))
        cases[name] = {"dataset_dir": str(folder), "split": str(folder / "split.json"), "allow_missing": True}
    return cases


@pytest.fixture
def client(hospitals: dict[str, dict[str, object]], tmp_path: Path) -> MonaiAlgo:
    return federated.hospital("bright", tmp_path, rounds=2, **hospitals["bright"], **OPTIONS)


def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in weights.items()}


def holds(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


class TestClient:
    def test_federated_client_trains_each_round_from_the_weights_it_is_sent(self, client: MonaiAlgo) -> None:
        sent = changed(client.get_weights().weights)
        seen = []

        @client.trainer.on(Events.EPOCH_STARTED)
        def look() -> None:
            average = client.train_workflow.parser.get_parsed_content("ema_network")
            seen.append([holds(network, sent) for network in (client.trainer.network, average)])

        for _ in range(2):
            client.train(ExchangeObject(weights=dict(sent)))
        assert seen == [[True, True], [True, True]]
        assert not holds(client.trainer.network, sent)
        assert client.get_weights().statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 2

    def test_federated_client_evaluates_the_weights_it_is_sent_and_says_so(
        self, client: MonaiAlgo, tmp_path: Path
    ) -> None:
        sent = changed(client.get_weights().weights)
        metrics = client.evaluate(ExchangeObject(weights=sent)).metrics
        assert {"patient_dice", "slice_dice", "slice_precision", "slice_recall"} <= set(metrics)
        assert holds(client.evaluator.network, sent)
        record = json.loads((tmp_path / "bright" / "evaluation" / "metrics.json").read_text())
        assert record["checkpoint"] is record["checkpoint_sha256"] is None

    def test_federated_client_gives_statistics_of_its_cases(
        self, hospitals: dict[str, dict[str, object]], tmp_path: Path
    ) -> None:
        pytest.importorskip("yaml", reason="needs the extra `federated`")
        config = str(ROOT / "bundle" / "configs" / "train.json")
        own = {**OPTIONS, **hospitals["dark"], "output_dir": str(tmp_path / "run")}
        client = MonaiAlgoStats(
            str(ROOT / "bundle"),
            workflow=ConfigWorkflow(config, logging_file=False, workflow_type="train", **own),
            data_stats_transform_list=[LoadVolumed(keys=["image", "label"])],
        )
        client.initialize({ExtraItems.APP_ROOT: str(tmp_path)})
        asked = {FlStatistics.HIST_BINS: [8], FlStatistics.HIST_RANGE: [[0, 256]]}
        found = client.get_data_stats(asked).statistics
        assert found["train"][FlStatistics.DATA_COUNT] == 3
        assert found["eval"][FlStatistics.DATA_COUNT] == 1
        assert found["train"][FlStatistics.FAIL_COUNT] == found["eval"][FlStatistics.FAIL_COUNT] == 0
        assert found[FlStatistics.TOTAL_DATA][FlStatistics.DATA_COUNT] == 4
        images = found["train"][FlStatistics.DATA_STATS]
        lesions = images["image_foreground_stats"]["intensity"]["mean"]
        assert 0 < lesions < images["image_stats"]["intensity"]["mean"]  # its lesions are dark


class TestAverage:
    def test_federated_average_weighs_each_hospital_by_its_share_and_keeps_the_types(self) -> None:
        one = {"weight": torch.tensor([1.0, -2.0]), "batches": torch.tensor(8)}
        other = {"weight": torch.tensor([5.0, 2.0]), "batches": torch.tensor(4)}
        found = federated.average([one, other], [3, 1])
        assert found["weight"].tolist() == [2.0, -1.0]
        assert (found["batches"].item(), found["batches"].dtype) == (7, torch.int64)

    def test_federated_average_of_equal_weights_are_these_weights_bit_for_bit(self) -> None:
        weights = {"weight": torch.randn(1000)}
        assert torch.equal(federated.average([weights] * 3, [5, 7, 9])["weight"], weights["weight"])


class TestFederation:
    def test_each_round_starts_everywhere_from_the_mean_of_the_round_before(
        self, hospitals: dict[str, dict[str, object]], tmp_path: Path
    ) -> None:
        clients = [
            federated.hospital(name, tmp_path, rounds=2, **cases, **OPTIONS) for name, cases in hospitals.items()
        ]
        slices = [len(client.train_workflow.train_dataset) for client in clients]
        assert len(set(slices)) == 2  # a plain mean would be another
        started, ended = [], []
        for client in clients:
            recorded(client, started, ended)
        final = federated.train(clients, rounds=2)

        assert [name for name, _ in started] == [name for name, _ in ended] == ["bright", "dark"] * 2
        first, rounds = started[0][1], [ended[:2], ended[2:]]
        means = [weighted_mean([weights for _, weights in sent], slices) for sent in rounds]
        for (_, found), expected in zip(started, [first, first, means[0], means[0]]):
            assert equal(found, expected)
        assert equal(final, means[1])
        for (_, before), (_, after) in zip(started, ended):
            assert not equal(before, after)  # it has trained

    def test_every_model_is_scored_on_every_hospitals_cases(
        self, hospitals: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train, trained = federated.train, []

        def train_and_tell(clients: list[MonaiAlgo], rounds: int) -> dict[str, torch.Tensor]:
            trained.append(([client.client_name for client in clients], rounds))
            return train(clients, rounds)

        monkeypatch.setattr(federated, "train", train_and_tell)
        dice = federated.compare(hospitals, tmp_path, rounds=1, **OPTIONS)
        assert trained == [(["bright"], 1), (["dark"], 1), (["bright", "dark"], 1)]
        assert list(dice) == ["bright alone", "dark alone", "averaged"]
        assert all(list(scores) == ["bright", "dark"] for scores in dice.values())
        assert all(0 <= score <= 1 for scores in dice.values() for score in scores.values())
        assert federated.table(dice).count("\n") == 4


def recorded(client: MonaiAlgo, started: list, ended: list) -> None:
    """Keep the weights with which a client starts each epoch of its training, and those with which it ends it."""

    def keep(kept: list) -> None:
        weights = {name: value.clone() for name, value in client.trainer.network.state_dict().items()}
        kept.append((client.client_name, weights))

    client.trainer.add_event_handler(Events.EPOCH_STARTED, keep, started)
    client.trainer.add_event_handler(Events.EPOCH_COMPLETED, keep, ended)


def weighted_mean(weights: list[dict[str, torch.Tensor]], shares: list[int]) -> dict[str, torch.Tensor]:
    """As NumPy has it, in float64."""
    stacked = {name: np.stack([own[name].numpy() for own in weights]).astype(float) for name in weights[0]}
    means = {name: np.average(values, axis=0, weights=shares) for name, values in stacked.items()}
    return {name: torch.as_tensor(mean).to(weights[0][name].dtype) for name, mean in means.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())
