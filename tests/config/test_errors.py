"""Errors as a user sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from mri_seg.config.errors import check_keys
from mri_seg.utils.messages import reason

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"


def wrapped(error: Exception) -> Exception:
    """As MONAI hands an error up."""
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("applying transform <LoadVolumed object>") from cause
    except RuntimeError as cause:
        try:
            raise RuntimeError("Failed to evaluate '$@x'") from cause
        except RuntimeError as outer:
            return outer


class TestReason:
    def test_reason_is_what_monai_wrapped(self) -> None:
        assert reason(wrapped(ValueError("a.tif: is empty.\nCopy it again."))) == "a.tif: is empty. Copy it again."

    def test_reason_of_an_error_without_words_is_its_kind(self) -> None:
        assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"


class TestCheckKeys:
    CONFIG = {  # noqa: RUF012
        "imports": [],
        "learning_rate": 0.1,
        "epochs": 2,
        "train": {"optimizer": {"lr": "@learning_rate"}},
        "training": ["$@train#run(@epochs)"],
    }

    def test_check_keys_lets_keys_through_that_are_used(self) -> None:
        check_keys(self.CONFIG)

    def test_check_keys_names_the_nearest_key(self) -> None:
        with pytest.raises(ValueError, match=r"--lerning_rate: no such option\. Did you mean --learning_rate\?"):
            check_keys({**self.CONFIG, "lerning_rate": 0.2})

    def test_check_keys_lets_known_values_lie_idle_and_no_others(self) -> None:
        check_keys({**self.CONFIG, "section": "test"}, known=[("section", "test")])
        with pytest.raises(ValueError, match=r"--section: no such option"):
            check_keys({**self.CONFIG, "section": "validation"}, known=[("section", "test")])

    IDLE = ("_meta_", "save_to_bundle")  # evaluation saves no weights

    @pytest.mark.parametrize("names", [["train.json"], ["train.json", "evaluate.json"], ["inference.json"]])
    def test_every_key_of_the_configs_is_used(self, names: list[str]) -> None:
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in names])
        check_keys({key: value for key, value in parser.get().items() if key not in self.IDLE})
