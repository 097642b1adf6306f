"""Names of tests say by themselves what they are about, so that ``-k`` and a list of failures can be read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LEFT: set[str] = set()
CONTINUES = (
    "are at based be been but by can cannot could did do does either else for from had has have if in is it "
    "its itself like may might must need needs neither nor of on or otherwise that there to too was were when where "
    "which while who whose with without"
)
"""First words of names that go on with what the class has begun."""


def names_of(source: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def goes_on(name: str) -> bool:
    """Whether a name begins as the end of a sentence does."""
    return name.startswith("test_") and name.split("_")[1] in CONTINUES.split()


@pytest.mark.parametrize("name", ["test_is_needed", "test_nor_in_one_slice", "test_of_frames", "test_that_differ"])
def test_names_that_continue_their_class_are_seen(name: str) -> None:
    assert goes_on(name)


def test_names_of_tests_stand_alone() -> None:
    found = [
        f"{file.relative_to(TESTS)}: {name}"
        for file in sorted(TESTS.rglob("test_*.py"))
        if file.relative_to(TESTS).parts[0] not in LEFT
        for name in names_of(file.read_text(encoding="utf-8"))
        if goes_on(name)
    ]
    assert not found, f"Begin these names with what they are about: {found}"
