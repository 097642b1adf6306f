"""What single commands say, and that commands run in this process leave what other tests log to as it was."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable
from logging.config import fileConfig
from pathlib import Path

import absl.logging
import pytest
import torch
from command_line import ROOT, SMALL, Ended, bundle
from monai.bundle import ConfigParser, ConfigWorkflow

import mri_seg


class ClosesItsStream(logging.StreamHandler):
    """A handler as absl has it."""

    def close(self) -> None:
        self.stream.close()
        super().close()


@pytest.fixture
def handler() -> ClosesItsStream:
    return ClosesItsStream(io.StringIO())


def test_handlers_of_others_stay_open(handler: ClosesItsStream) -> None:
    logger = logging.getLogger("mri_seg.tests.another")
    logger.addHandler(handler)
    try:
        assert bundle("inference", "inference.json", dataset_dir="nowhere", **SMALL).status == 1
        logger.warning("still here")
    finally:
        logger.removeHandler(handler)
    assert handler.stream.getvalue() == "still here\n"


def test_standard_error_outlives_a_log_set_up_while_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert absl.logging.get_absl_handler() is not None  # one that closes what it did not open
    root, former = logging.getLogger(), sys.stderr
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    with contextlib.redirect_stderr(io.StringIO()):
        fileConfig(ROOT / "bundle" / "configs" / "logging.conf", disable_existing_loggers=False)
    assert not former.closed


class TestRenamedOptions:
    def test_renamed_keys_are_refused_with_their_new_name_before_anything_else(self) -> None:
        ended = bundle("inference", "inference.json", dataset_dir="nowhere", smallest_lesion=800, tresholdd=1, **SMALL)
        assert ended.status == 1
        assert ended.stderr.startswith("error: `smallest_lesion` is now `min_lesion_volume`.\n")

    def test_renamed_keys_are_refused_in_training_and_evaluation_too(self) -> None:
        for run_id, *names in (("training", "train.json"), ("evaluation", "train.json", "evaluate.json")):
            assert "error: `flip` is now `tta_flip`." in bundle(run_id, *names, flip="true").stderr


class TestQuantization:
    def test_makes_the_weights_in_its_own_step_and_says_at_the_end_where_they_are(
        self, phantom: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = []
        monkeypatch.setattr(mri_seg, "quantize", lambda *arguments: made.append(arguments), raising=False)
        own = {"dataset_dir": str(phantom), "split": str(phantom / "split.json"), "checkpoint": "runs/own.pt"}
        workflow = ConfigWorkflow(
            [str(ROOT / "bundle" / "configs" / name) for name in ("train.json", "quantize.json")],
            logging_file=False,
            **own,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        ((_, checkpoint, volumes, slices, keep_float, seed, output_dir),) = made
        assert (checkpoint, slices, list(keep_float), seed) == ("runs/own.pt", 300, [], 0)
        assert output_dir.startswith("runs/quantized-2")
        assert len(volumes) == len(json.loads((phantom / "split.json").read_text())["training"])
        assert capsys.readouterr().out.endswith(f"they belong to, are in {output_dir}\n")


class TestInitialWeights:
    @pytest.fixture
    def train(self, phantom: Path, tmp_path: Path) -> Callable[[Path], Ended]:
        own = {"dataset_dir": phantom, "split": phantom / "split.json", "output_dir": tmp_path / "run"}
        size = {"epochs": 1, "slices_per_epoch": 4, "batch_size": 4, "spatial_size": "[64,64]", "roi_size": "[64,64]"}
        small = {"network_def#channels": "[2,4]", "amp": "false"}
        return lambda weights: bundle("training", "train.json", initial_weights=weights, **own, **size, **small)

    def test_other_than_their_sum_says_are_refused(self, train: Callable[[Path], Ended], tmp_path: Path) -> None:
        torch.save({}, tmp_path / "own.pt")
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  own.pt\n")
        ended = train(tmp_path / "own.pt")
        assert ended.status == 1
        assert f"error: {tmp_path / 'own.pt'}: its SHA-256 is " in ended.stderr

    def test_initial_weights_of_another_size_of_network_are_refused(
        self, train: Callable[[Path], Ended], tmp_path: Path
    ) -> None:
        other = ConfigParser(json.loads((ROOT / "bundle" / "configs" / "train.json").read_text()))
        torch.save(other.get_parsed_content("network_def").state_dict(), tmp_path / "own.pt")
        ended = train(tmp_path / "own.pt")
        assert ended.status == 1
        assert f"error: {tmp_path / 'own.pt'}: belongs to " in ended.stderr
