"""What tests of the phantom share."""

from __future__ import annotations

import importlib.util

import pytest

needs_nilearn = pytest.mark.skipif(
    importlib.util.find_spec("nilearn") is None, reason="the phantom's anatomy needs nilearn (extra: phantom)"
)

SMALL = {"slices": 3, "size": 32}
