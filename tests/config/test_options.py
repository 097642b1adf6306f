"""The single description of the options, and the document that is written from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mri_seg.config import options
from mri_seg.config.options import OPTIONS, RULES, document, settings
from mri_seg.config.validation import RENAMED

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundle" / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.json") if path.name != "metadata.json")


def config(name: str) -> dict:
    return json.loads((CONFIGS / name).read_text(encoding="utf-8"))


class TestDescription:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_plain_key_of_a_config_is_described(self, name: str) -> None:
        assert settings(config(name)).keys() - OPTIONS.keys() == set()

    @pytest.mark.parametrize("name", NAMES)
    def test_every_list_that_an_option_rule_knows_counts_as_an_option(self, name: str) -> None:
        assert {key for key in config(name) if key in RULES} <= settings(config(name)).keys()

    def test_no_option_is_described_that_no_config_has(self) -> None:
        assert OPTIONS.keys() == {key for name in NAMES for key in settings(config(name))}

    def test_no_option_has_a_name_that_was_given_up(self) -> None:
        assert OPTIONS.keys() & RENAMED.keys() == set()
        assert set(RENAMED.values()) <= OPTIONS.keys()

    def test_other_meanings_are_of_configs_that_have_the_option(self) -> None:
        for key, option in OPTIONS.items():
            for name in option.elsewhere:
                assert key in settings(config(name))

    def test_every_meaning_fits_one_cell_of_a_table(self) -> None:
        for option in OPTIONS.values():
            expected = option.rule.expected if option.rule else ""
            for text in (option.meaning, option.unit, expected, *option.elsewhere.values()):
                assert "|" not in text
                assert "\n" not in text

    @pytest.mark.interpreter
    def test_options_are_read_without_torch_and_monai(self) -> None:
        code = "import sys, mri_seg.config.options; print(sorted({'torch', 'monai', 'numpy'} & sys.modules.keys()))"
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


class TestDocument:
    def test_document_in_the_repository_is_up_to_date(self) -> None:
        written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
        assert written == document(CONFIGS), "run: python -m mri_seg.config.options > docs/options.md"

    def test_document_has_a_section_for_every_config(self) -> None:
        found = {line.removeprefix("## ") for line in document(CONFIGS).splitlines() if line.startswith("## ")}
        assert found == set(NAMES)

    def test_takes_defaults_from_the_configs(self, tmp_path: Path) -> None:
        for name in NAMES:
            changed = {**config(name), "epochs": 7, "threshold": None} if name == "train.json" else config(name)
            (tmp_path / name).write_text(json.dumps(changed), encoding="utf-8")
        text = document(tmp_path)
        assert "| `epochs` | `7` | epochs |" in text
        assert "| `threshold` | `None` |" in text

    def test_says_in_words_no_expression_that_is_no_default(self) -> None:
        defaults = [value for name in NAMES for value in settings(config(name)).values() if isinstance(value, str)]
        assert options._IN_WORDS.keys() <= set(defaults)
