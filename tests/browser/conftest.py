"""The browser of these tests, started once for each file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chromium_pages import started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with started() as driver:
        yield driver
