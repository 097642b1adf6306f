"""Switches as a command line and as a config give them."""

from __future__ import annotations

import pytest

from mri_seg.options import flag


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
