"""Weights carry a record of the preprocessing they were trained with, through every loader, and it is checked."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import CheckpointLoader as MonaiLoader
from monai.handlers import CheckpointSaver
from monai.inferers import SimpleInferer
from monai.networks.utils import copy_model_state

import mri_seg
from mri_seg.config.preprocessing import FORMER, record_of, recorded_by
from mri_seg.config.weights import (
    CheckpointLoader,
    load_weights,
    read_weights,
    record_preprocessing,
    save_to_bundle,
    weights_origin,
    write_sums,
)
from mri_seg.inference.inferers import EnsembleInferer
from mri_seg.inference.provenance import result_settings

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
OTHERS = {
    "normalize_region": ("brain", "normalize_region brain", "normalize_region head"),
    "pixdim": ([1.2, 1.2], "pixdim [1.2, 1.2]", "pixdim [0.94, 0.94]"),
}


def network(config: str = "inference.json", **options: Any) -> torch.nn.Module:
    """The network of a config with few channels, with the preprocessing of version 0.1.0 but for the options."""
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / config))
    parser.update({"network_def#channels": [2, 4], "mirror": False, "normalize_region": "head", **options})
    return parser.get_parsed_content("network_def")


def without_record(**options: Any) -> torch.nn.Module:
    return network(**options, **{"network_def#preprocessing": None})


def saved(file: Path, weights: torch.nn.Module) -> Path:
    torch.save(weights.state_dict(), file)
    return file


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Weights of other preprocessing than the defaults, and the error that they must give."""
    value, trained, given = OTHERS[request.param]
    file = saved(tmp_path / "other.pt", network("train.json", **{request.param: value}))
    return file, f"was trained with {re.escape(trained)}, but the config gives {re.escape(given)}"


class TestRecord:
    def test_training_and_inference_give_their_networks_the_same_record(self) -> None:
        records = []
        for name in ("train.json", "inference.json"):
            parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / name))
            records.append(recorded_by(parser.get_parsed_content("network_def")))
        assert records[0] == records[1] is not None

    def test_weights_that_training_saves_have_the_options_and_origin(self, tmp_path: Path) -> None:
        trained = network("train.json", num_slices=5, mirror="true", pixdim=[1, 1], normalize_region="brain")
        saver = CheckpointSaver(str(tmp_path), {"model": trained}, save_final=True, final_filename="model_final.pt")
        saver.completed(Engine(lambda engine, batch: None))
        save_to_bundle(tmp_path, tmp_path / "models", "last")
        found = record_of(torch.load(tmp_path / "models" / "model.pt", weights_only=True))
        assert found == {
            "num_slices": 5,
            "sequences": [],
            "mirror": True,
            "normalize_region": "brain",
            "pixdim": [1.0, 1.0],
            "label_mode": "binary",
            "label_values": None,
            "in_channels": 6,
            "version": mri_seg.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }

    def test_copy_of_a_network_such_as_its_average_has_its_record(self) -> None:
        average = copy.deepcopy(network(normalize_region="brain"))
        assert record_of(average.state_dict())["normalize_region"] == "brain"
        with pytest.raises(ValueError, match="normalize_region"):
            average.load_state_dict(network().state_dict())

    def test_weights_stay_a_plain_state_dict(self, tmp_path: Path) -> None:
        weights = torch.load(saved(tmp_path / "model.pt", network()), weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in weights.values())
        plain = without_record()
        plain.load_state_dict(weights)  # as a user of PyTorch does
        assert torch.equal(plain.head.weight, weights["head.weight"])

    def test_weights_saved_again_keep_version_and_date_of_their_training(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "model.pt", without_record())
        record_preprocessing(file, version="0.0.7", date="2020-02-02")
        for again in (network(), without_record()):
            load_weights(again, file)
            assert weights_origin(saved(tmp_path / "again.pt", again)) == {"version": "0.0.7", "date": "2020-02-02"}

    def test_loading_weights_without_a_record_invents_no_date(self, tmp_path: Path) -> None:
        again = network()
        load_weights(again, saved(tmp_path / "model.pt", without_record()))
        assert weights_origin(saved(tmp_path / "again.pt", again)) == {}


class TestDoors:
    """Weights of other preprocessing are refused wherever they are loaded."""

    def test_bundle_refuses_other_preprocessing(self, other: tuple[Path, str]) -> None:
        with pytest.raises(ValueError, match=rf"other\.pt: {other[1]}"):
            CheckpointLoader(other[0], {"model": network()})(Engine(lambda engine, batch: None))

    def test_ensemble_refuses_mixed_preprocessing(self, other: tuple[Path, str]) -> None:
        inferer = EnsembleInferer(SimpleInferer(), checkpoints=[str(other[0])])
        with pytest.raises(ValueError, match=rf"other\.pt: {other[1]}"):
            inferer(torch.zeros(1, 3, 32, 32), network())

    def test_monai_s_own_loader_refuses_other_preprocessing(self, other: tuple[Path, str]) -> None:
        loader = MonaiLoader(str(other[0]), {"model": network()}, strict=False)
        with pytest.raises(ValueError, match=other[1]):
            loader(Engine(lambda engine, batch: None))

    def test_plain_pytorch_refuses_other_preprocessing(self, other: tuple[Path, str]) -> None:
        with pytest.raises(ValueError, match=other[1]):
            network().load_state_dict(torch.load(other[0], weights_only=True))

    def test_weights_under_a_name_are_checked_too(self, other: tuple[Path, str]) -> None:
        torch.save({"model": torch.load(other[0], weights_only=True)}, other[0])
        with pytest.raises(ValueError, match=other[1]):
            load_weights(network(), other[0])

    def test_an_earlier_config_refuses_newer_weights(self, other: tuple[Path, str]) -> None:
        with pytest.raises(ValueError, match=r"names no preprocessing.*Copy preprocessing from network_def"):
            load_weights(without_record(), other[0])

    def test_an_earlier_config_in_monai_label_says_what_newer_weights_need(
        self, other: tuple[Path, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        without_record().load_state_dict(torch.load(other[0], weights_only=True))
        assert "The weights were trained with" in caplog.text

    def test_weights_of_other_sequences_are_refused_with_the_option_to_give(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "model.pt", network("train.json", sequences="t1ce,t2"))
        for sequences in (None, "t1ce,t1", ["t2", "t1ce"]):
            with pytest.raises(ValueError, match=r"""--sequences "\['t1ce','t2'\]\""""):
                load_weights(network(sequences=sequences), file)
        load_weights(network(sequences=["t1ce", "t2"]), file)

    def test_weights_of_the_same_preprocessing_load(self, tmp_path: Path) -> None:
        options = {"normalize_region": "brain", "pixdim": [1.2, 1.2]}
        load_weights(network(**options), saved(tmp_path / "model.pt", network("train.json", **options)))

    def test_half_precision_keeps_the_record(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "half.pt", network("train.json", normalize_region="brain").half())
        with pytest.raises(ValueError, match="normalize_region brain"):
            load_weights(network(), file)


class TestStartOfTraining:
    def test_training_may_start_from_weights_of_other_preprocessing(self, other: tuple[Path, str]) -> None:
        handlers = json.loads((CONFIGS / "train.json").read_text())["train"]["handlers"]
        (loader,) = (handler for handler in handlers if handler["_target_"] == "mri_seg.CheckpointLoader")
        assert loader["check_preprocessing"] is False
        started = network("train.json")
        before = recorded_by(started)
        CheckpointLoader(other[0], {"model": started}, check_preprocessing=False)(Engine(lambda engine, batch: None))
        assert torch.equal(started.head.weight, read_weights(other[0])["head.weight"])
        assert recorded_by(started) == before

    def test_training_refuses_weights_of_another_shape(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "model.pt", network("train.json", num_slices=5))
        with pytest.raises(ValueError, match="expected"):
            load_weights(network("train.json"), file, check_preprocessing=False)

    def test_federated_copies_keep_the_network_s_own_record(self) -> None:
        started, sent = network("train.json", normalize_region="brain"), without_record().state_dict()
        before = recorded_by(started)
        copy_model_state(started, dict(sent))
        assert recorded_by(started) == before


class TestWithoutRecord:
    def test_weights_without_a_record_are_those_of_the_first_version(self, tmp_path: Path) -> None:
        load_weights(network(), saved(tmp_path / "model.pt", without_record()))

    @pytest.mark.parametrize("option", OTHERS)
    def test_weights_without_a_record_are_refused_by_another_config(self, tmp_path: Path, option: str) -> None:
        value, given, trained = OTHERS[option]
        file = saved(tmp_path / "model.pt", without_record())
        expected = (
            f"no record of its preprocessing, and is taken as trained with {trained}, but the config gives {given}"
        )
        with pytest.raises(ValueError, match=re.escape(expected)):
            load_weights(network(**{option: value}), file)

    def test_number_of_slices_of_weights_without_a_record_is_that_of_their_shape(self, tmp_path: Path) -> None:
        for options in ({"num_slices": 1}, {"num_slices": 5}, {"mirror": True}):
            load_weights(network(**options), saved(tmp_path / "model.pt", without_record(**options)))

    def test_record_can_be_written_into_weights_of_an_earlier_version(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "model.pt", without_record())
        write_sums(tmp_path)
        record_preprocessing(file, normalize_region="brain", date="2025-01-31")
        assert record_of(read_weights(file)) == FORMER | {"normalize_region": "brain", "date": "2025-01-31"}
        load_weights(network(normalize_region="brain"), file)
        with pytest.raises(ValueError, match="has a record already"):
            record_preprocessing(file, normalize_region="head")

    def test_record_of_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"region: expected some of .*normalize_region"):
            record_preprocessing(saved(tmp_path / "model.pt", without_record()), region="brain")


class TestProvenance:
    def test_results_name_version_and_date_of_their_weights(self, tmp_path: Path) -> None:
        settings = result_settings(saved(tmp_path / "model.pt", network()))
        assert settings["checkpoint_date"] == time.strftime("%Y-%m-%d")
        assert settings["checkpoint_version"] == mri_seg.__version__

    def test_results_name_no_date_that_the_weights_do_not_have(self, tmp_path: Path) -> None:
        settings = result_settings(saved(tmp_path / "model.pt", without_record()))
        assert {"checkpoint_date", "checkpoint_version"}.isdisjoint(settings)
