"""Weights that are loaded, and those that are not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from mri_seg.config.weights import (
    SUMS,
    CheckpointLoader,
    initial_weights_file,
    read_weights,
    save_to_bundle,
    write_sums,
)
from mri_seg.utils.files import sha256


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


@pytest.fixture
def weights(network: torch.nn.Module, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def load(path: Path, network: torch.nn.Module) -> Engine:
    engine = Engine(lambda engine, batch: None)
    CheckpointLoader(path, {"model": network}).attach(engine)
    engine.fire_event(Events.STARTED)
    return engine


class TestLoads:
    def test_weights_load_what_was_saved(self, network: torch.nn.Module, weights: Path) -> None:
        other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        load(weights, other)
        assert torch.equal(other[0].weight, network[0].weight)

    def test_weights_load_weights_saved_with_a_name(self, network: torch.nn.Module, weights: Path) -> None:
        torch.save({"model": network.state_dict()}, weights)
        load(weights, network)

    def test_weights_load_weights_whose_sum_agrees(self, network: torch.nn.Module, weights: Path) -> None:
        weights.with_name(SUMS).write_text(f"{sha256(weights)}  model.pt\n")
        load(weights, network)

    def test_weights_load_weights_with_the_sums_written_for_them(self, network: torch.nn.Module, weights: Path) -> None:
        write_sums(weights.parent)
        assert weights.with_name(SUMS).read_text() == f"{sha256(weights)}  model.pt\n"
        load(weights, network)

    def test_weights_load_weights_without_a_sum(self, network: torch.nn.Module, weights: Path) -> None:
        weights.with_name(SUMS).write_text("00  other.pt\n")
        load(weights, network)

    def test_weights_load_and_says_which(self, network: torch.nn.Module, weights: Path) -> None:
        assert load(weights, network).state.loaded_weights == str(weights)


class TestRefuses:
    def test_weights_refuse_a_file_that_is_not_there(self, network: torch.nn.Module, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file of weights"):
            load(tmp_path / "gone.pt", network)

    def test_weights_refuse_a_sum_that_differs(self, network: torch.nn.Module, weights: Path) -> None:
        expected = sha256(weights)
        weights.with_name(SUMS).write_text(f"{expected}  model.pt\n")
        torch.save({}, weights)
        with pytest.raises(ValueError, match=f"model.pt: its SHA-256 is {sha256(weights)}, expected {expected}"):
            load(weights, network)

    @pytest.mark.parametrize("content", [b"", b"not weights", None])
    def test_weights_refuse_what_is_damaged(
        self, network: torch.nn.Module, weights: Path, content: bytes | None
    ) -> None:
        weights.write_bytes(weights.read_bytes()[:-500] if content is None else content)
        with pytest.raises(ValueError, match=r"model\.pt: cannot be read as weights"):
            load(weights, network)

    def test_weights_refuse_a_file_that_would_be_executed(
        self, network: torch.nn.Module, weights: Path, tmp_path: Path
    ) -> None:
        class Malicious:
            def __reduce__(self) -> tuple:
                return os.mkdir, (str(tmp_path / "executed"),)

        for save in (lambda thing: torch.save(thing, weights), lambda thing: weights.write_bytes(pickle.dumps(thing))):
            save(Malicious())
            with pytest.raises(ValueError, match=r"model\.pt: cannot be read as weights"):
                load(weights, network)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, "text"])
    def test_weights_refuse_what_holds_no_weights(self, weights: Path, content: object) -> None:
        torch.save(content, weights)
        with pytest.raises(ValueError, match=r"model\.pt: holds no weights"):
            read_weights(weights)

    def test_weights_refuse_another_network(self, weights: Path) -> None:
        with pytest.raises(ValueError, match=r"belongs to another network: \d+ weights .* such as "):
            load(weights, torch.nn.Conv2d(3, 4, 3))

    def test_weights_refuse_another_number_of_channels(self, weights: Path) -> None:
        other = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
        with pytest.raises(ValueError, match=r"0\.weight has shape \(4, 3, 3, 3\), expected \(4, 1, 3, 3\)"):
            load(weights, other)


class TestSaveToBundle:
    @pytest.mark.parametrize(("which", "content"), [("best", b"best"), ("true", b"best"), ("last", b"last")])
    def test_weights_and_their_sum_are_copied(self, tmp_path: Path, which: str, content: bytes) -> None:
        (tmp_path / "model.pt").write_bytes(b"best")
        (tmp_path / "model_final.pt").write_bytes(b"last")
        save_to_bundle(tmp_path, tmp_path / "models", which)
        copied = tmp_path / "models" / "model.pt"
        assert copied.read_bytes() == content
        assert (copied.parent / SUMS).read_text() == f"{sha256(copied)}  model.pt\n"

    def test_nothing_is_copied_unless_asked(self, tmp_path: Path) -> None:
        save_to_bundle(tmp_path, tmp_path / "models", False)
        assert not (tmp_path / "models").exists()

    def test_another_choice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="expected best, last or false, got 'newest'"):
            save_to_bundle(tmp_path, tmp_path / "models", "newest")


class TestInitialWeights:
    def test_shipped_weights_are_those_of_the_bundle(self) -> None:
        assert Path(str(initial_weights_file("shipped", "elsewhere"))) == Path("elsewhere", "models", "model.pt")

    @pytest.mark.parametrize("path", [None, "runs/mine/model.pt", "./shipped"])
    def test_other_initial_weights_are_a_path(self, path: str | None) -> None:
        assert initial_weights_file(path, "elsewhere") == path
