"""Switches as a command line and as a config give them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mri_seg.options import RULES, check_values, flag

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"


class TestFlag:
    @pytest.mark.parametrize("value", [True, "true", "True", "TRUE"])
    def test_on(self, value: bool | str) -> None:
        assert flag(value) is True

    @pytest.mark.parametrize("value", [False, "false", "False", "FALSE"])
    def test_off(self, value: bool | str) -> None:
        assert flag(value) is False

    @pytest.mark.parametrize("value", ["yes", "", "1", 1, 0, None])
    def test_neither(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"expected true or false, got {value!r}"):
            flag(value)


class TestCheckValues:
    CONFIGS = [json.loads(file.read_text()) for file in sorted((BUNDLE / "configs").glob("*.json"))]  # noqa: RUF012

    def test_lets_the_defaults_through(self) -> None:
        for config in self.CONFIGS:
            check_values(config)

    @pytest.mark.parametrize("key", RULES)
    def test_has_no_rule_for_a_key_that_is_gone(self, key: str) -> None:
        assert any(key in config for config in self.CONFIGS)

    @pytest.mark.parametrize("value", ["$float('inf')", "@other", 1, 0.5])
    def test_lets_expressions_and_numbers_through(self, value: object) -> None:
        check_values({"gradient_norm": value})

    @pytest.mark.parametrize("value", ["1", True, None, float("nan"), -1, [1]])
    def test_names_the_option_its_value_and_what_was_expected(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"^--learning_rate: {re.escape(repr(value))}, expected a number above 0"):
            check_values({"learning_rate": value})
