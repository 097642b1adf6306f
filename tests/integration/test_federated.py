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

from mri_seg.reader import LoadVolumed

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "slices_per_epoch": 96,
    "batch_size": 8,
    "plane_size": [64, 64],
    "crop_size": [64, 64],
    "learning_rate": 0.004,
    "num_workers": 1,
    "val_interval": 20,
    "network_def#channels": [8, 16, 32, 64],
}

spec = importlib.util.spec_from_file_location("federated", ROOT / "examples" / "federated.py")
federated = importlib.util.module_from_spec(spec)
spec.loader.exec_module(federated)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Two folders of ten synthetic cases: lesions are bright at one hospital and dark at the other."""
    pytest.importorskip("nilearn", reason="needs the extra `phantom`")
    from mri_seg.phantom import make_phantom
    from mri_seg.phantom.volume import has_tumour

    cases = {}
    for seed, (name, brightness) in enumerate({"bright": 1.9, "dark": 0.05}.items(), start=1):
        folder = tmp_path_factory.mktemp("data") / name
        patients = [
            patient.name
            for n, patient in enumerate(make_phantom(folder, patients=12, seed=seed, slices=6, size=64))
            if has_tumour(seed, n)
        ]
        for file in sorted(folder.glob("*/*[0-9].tif")):
            image = tifffile.imread(file).astype(float)
            lesion = tifffile.imread(file.with_name(f"{file.stem}_mask.tif")) > 0
            noise = np.random.default_rng(1).normal(1, 0.08, (lesion.sum(), 1))
            image[lesion] = brightness * noise * np.median(image[image > 0.15 * image.max()])
            tifffile.imwrite(file, image.clip(0, 255).astype(np.uint8), photometric="rgb")
        split = {"training": patients[5:], "validation": patients[:5]}
        (folder / "split.json").write_text(json.dumps(split))
        cases[name] = {"dataset_dir": str(folder), "split": str(folder / "split.json"), "allow_missing": True}
    return cases


@pytest.fixture
def client(hospitals: dict[str, dict[str, object]], tmp_path: Path) -> MonaiAlgo:
    return federated.hospital(
        "bright", tmp_path, rounds=2, **hospitals["bright"], **{**OPTIONS, "slices_per_epoch": 16}
    )


def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in weights.items()}


def holds(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


class TestClient:
    def test_trains_each_round_from_the_weights_it_is_sent(self, client: MonaiAlgo) -> None:
        sent = changed(client.get_weights().weights)
        seen = []

        @client.trainer.on(Events.EPOCH_STARTED)
        def look() -> None:
            average = client.train_workflow.parser.get_parsed_content("validated_network")
            seen.append([holds(network, sent) for network in (client.trainer.network, average)])

        for _ in range(2):
            client.train(ExchangeObject(weights=dict(sent)))
        assert seen == [[True, True], [True, True]]
        assert not holds(client.trainer.network, sent)
        assert client.get_weights().statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 2

    def test_evaluates_the_weights_it_is_sent_and_says_so(self, client: MonaiAlgo, tmp_path: Path) -> None:
        sent = changed(client.get_weights().weights)
        metrics = client.evaluate(ExchangeObject(weights=sent)).metrics
        assert {"patient_dice", "slice_dice", "slice_precision", "slice_recall"} <= set(metrics)
        assert holds(client.evaluator.network, sent)
        record = json.loads((tmp_path / "bright" / "evaluation" / "metrics.json").read_text())
        assert record["checkpoint"] is record["checkpoint_sha256"] is None

    def test_gives_statistics_of_its_cases(self, hospitals: dict[str, dict[str, object]], tmp_path: Path) -> None:
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
        assert found["train"][FlStatistics.DATA_COUNT] == 5
        assert found["eval"][FlStatistics.DATA_COUNT] == 5
        assert found["train"][FlStatistics.FAIL_COUNT] == found["eval"][FlStatistics.FAIL_COUNT] == 0
        assert found[FlStatistics.TOTAL_DATA][FlStatistics.DATA_COUNT] == 10
        images = found["train"][FlStatistics.DATA_STATS]
        lesions = images["image_foreground_stats"]["intensity"]["mean"]
        assert 0 < lesions < images["image_stats"]["intensity"]["mean"]  # its lesions are dark


class TestFederation:
    def test_the_averaged_model_beats_each_hospitals_own_on_the_others_cases(
        self, hospitals: dict[str, dict[str, object]], tmp_path: Path
    ) -> None:
        dice = federated.compare(hospitals, tmp_path, rounds=9, **OPTIONS)
        assert dice["averaged"]["dark"] > dice["bright alone"]["dark"] + 0.3
        assert dice["averaged"]["bright"] > dice["dark alone"]["bright"] + 0.3
