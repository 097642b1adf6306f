"""The Python of the model card, as it stands there."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ROOT, log_kept

CARD = ROOT / "bundle" / "docs" / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(snippet: str) -> dict[str, Any]:
    """Run a snippet; returns its names."""
    names: dict[str, Any] = {}
    with log_kept():
        exec(compile(snippet, str(CARD), "exec"), names)
    return names


def test_model_card_has_three_snippets_of_three_lines() -> None:
    assert [len([line for line in snippet.splitlines() if line]) for snippet in SNIPPETS] == [3, 3, 3]


def test_networks_of_both_snippets_of_the_model_card_give_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_monai, by_torch = (run(snippet)["network"].cpu().eval() for snippet in SNIPPETS[:2])
    slices = torch.randn(2, 4, 64, 96)
    with torch.no_grad():
        logits = by_torch(slices)
        assert torch.equal(by_monai(slices), logits)
    assert logits.shape == (2, 1, 64, 96)
    assert logits.std() > 0.1  # random weights of this network give almost the same logit everywhere


def test_workflow_of_the_model_card_segments_a_folder_and_keeps_the_log_of_the_program(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phantom").symlink_to(phantom)
    handlers = logging.getLogger().handlers[:]
    exec(compile(SNIPPETS[2], str(CARD), "exec"), {})
    assert logging.getLogger().handlers == handlers
    made = {file.parent.name for file in tmp_path.glob("runs/inference/*/*_mask.nii.gz")}
    assert made == {folder.name for folder in phantom.glob("PHANTOM_*")}
