"""Switches as a command line and as a config give them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from mri_seg.config.options import RULES
from mri_seg.config.validation import RENAMED, check_arguments, check_renamed, check_values
from mri_seg.utils.flags import flag

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


class TestFlag:
    @pytest.mark.parametrize("value", [True, "true", "True", "TRUE"])
    def test_flag_on(self, value: bool | str) -> None:
        assert flag(value) is True

    @pytest.mark.parametrize("value", [False, "false", "False", "FALSE"])
    def test_flag_off(self, value: bool | str) -> None:
        assert flag(value) is False

    @pytest.mark.parametrize("value", ["yes", "", "1", 1, 0, None])
    def test_flag_neither(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"expected true or false, got {value!r}"):
            flag(value)


class TestCheckValues:
    CONFIGS = [json.loads(file.read_text()) for file in sorted((BUNDLE / "configs").glob("*.json"))]  # noqa: RUF012

    def test_check_values_lets_the_defaults_through(self) -> None:
        defaults = {key: value for config in self.CONFIGS for key, value in config.items()}
        for config in self.CONFIGS:
            check_values({**defaults, **config})

    @pytest.mark.parametrize("key", RULES)
    def test_check_values_has_no_rule_for_a_key_that_is_gone(self, key: str) -> None:
        assert any(key in config for config in self.CONFIGS)

    @pytest.mark.parametrize("value", ["$float('inf')", "@other", "@part#norm", "@_meta_::norm", 1, 0.5])
    def test_check_values_lets_expressions_references_and_numbers_through(self, value: object) -> None:
        check_values({"max_grad_norm": value, "other": 2, "part": {"norm": 3}})

    def test_check_values_looks_at_what_is_referred_to(self) -> None:
        with pytest.raises(ValueError, match=r"^--max_grad_norm: -1, expected a number above 0"):
            check_values({"max_grad_norm": "@other", "other": "@third", "third": -1})

    def test_check_values_names_a_reference_to_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"^--split: '@folds' begins with @, .*Write \./@folds"):
            check_values({"split": "@folds"})

    @pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 1)])
    def test_check_values_names_a_gpu_that_is_not_there(self, device: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=r"^--device: 'cuda.*', but PyTorch sees no GPU\. Give --device cpu"):
            check_values({"device": device})

    def test_check_values_names_a_gpu_beyond_those_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        check_values({"device": "cuda:1"})
        with pytest.raises(ValueError, match=r"^--device: 'cuda:2', but PyTorch sees 2 GPUs, cuda:0 to cuda:1"):
            check_values({"device": "cuda:2"})

    @pytest.mark.skipif(torch.backends.mps.is_available(), reason="has such a device")
    def test_check_values_names_another_device_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"^--device: 'mps', but PyTorch cannot use it here \("):
            check_values({"device": "mps"})

    @pytest.mark.parametrize("value", ["1", True, None, float("nan"), -1, [1]])
    def test_check_values_names_the_option_its_value_and_what_was_expected(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"^--learning_rate: {re.escape(repr(value))}, expected a number above 0"):
            check_values({"learning_rate": value})


class TestCheckRenamed:
    @pytest.mark.parametrize(("former", "today"), RENAMED.items())
    def test_names_the_option_of_today(self, former: str, today: str) -> None:
        with pytest.raises(ValueError, match=f"^`{former}` is now `{today}`\\.$"):
            check_renamed({"epochs": 1, former: 5})

    def test_names_all_of_them_at_once(self) -> None:
        with pytest.raises(ValueError, match=r"^`flip` is now `tta_flip`; `skip_air` is now `crop_foreground`\.$"):
            check_renamed({"skip_air": True, "flip": False})

    @pytest.mark.parametrize(
        "part", ["@crop_size", "$[*@crop_size, -1]", {"transforms": [{"size": "@crop_size"}]}, "@crop_size#0"]
    )
    def test_names_a_reference_in_an_old_config(self, part: object) -> None:
        with pytest.raises(ValueError, match=r"^`crop_size` is now `roi_size`\.$"):
            check_renamed({"mine": part})

    def test_lets_arguments_of_parts_and_names_of_today_through(self) -> None:
        check_renamed(
            {"tta_flip": True, "train": {"augmentation": {"flip": 0.5}}, "text": "flip", "_flip": "@tta_flip"}
        )


class TestCheckWords:
    @pytest.mark.parametrize(
        ("words", "pattern"),
        [
            (
                ["--dataset_dir", "patient#2"],
                r"^--dataset_dir: 'patient#2' would be read as 'patient', .*Write \./patient",
            ),
            (["run", "inference", "--output-dir=out#1"], r"^--output_dir: 'out#1' .*Write \./out#1$"),
            (["-checkpoint", "7#.pt"], r"^--checkpoint: '7#\.pt' would be read as 7, .*Write \./7#\.pt$"),
            (["--series_description", "FLAIR#2"], r"^--series_description: .*Write \"'FLAIR#2'\"$"),
            (["--epochs", "5#10"], r"^--epochs: '5#10' would be read as 5"),
        ],
    )
    def test_check_words_refuses_what_would_lose_its_end(self, words: list[str], pattern: str) -> None:
        with pytest.raises(ValueError, match=pattern):
            check_arguments(words)

    def test_check_words_lets_through_what_arrives_whole(self) -> None:
        check_arguments(["--dataset_dir", "./patient#2", "--checkpoint", "/a#1/b.pt", "--run_name", "'a#1'"])
        check_arguments(["--network_def#channels", "[2,4]", "--epochs", "-3", "--ensemble", "['a#1.pt']", "--debug"])
