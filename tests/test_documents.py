"""The documents: their links lead somewhere, and the commands they name are there."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "bundle" / "docs" / "README.md"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "bundle/docs/*.md", "benchmarks/*.md", "examples/**/*.md", "[dr]*/README.md")
    for path in ROOT.glob(pattern)
)


def links(document: Path) -> list[str]:
    """Targets of the links and pictures of a document that are not on the web."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def anchors(document: Path) -> set[str]:
    """What the headings of a document are called in links, by GitHub's rule."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocument:
    def test_links_of_documents_lead_to_files_and_headings(self, document: Path) -> None:
        for target in links(document):
            file, _, heading = target.partition("#")
            path = (document.parent / file).resolve() if file else document
            assert path.exists(), f"{target}: no such file"
            if heading:
                assert heading in anchors(path), f"{target}: no such heading"

    def test_commands_in_documents_name_modules_and_programs_that_exist(self, document: Path) -> None:
        text = document.read_text(encoding="utf-8")
        for module in re.findall(r"python -m (mri_seg[\w.]*)", text):
            assert importlib.util.find_spec(module), module
        for program in re.findall(r"python ((?:bundle|benchmarks|examples)/[\w/]+\.py)", text):
            assert (ROOT / program).is_file(), program
        for config in re.findall(r"bundle/configs/\w+\.json", text):
            assert (ROOT / config).is_file(), config


class TestModelCard:
    def test_model_card_links_to_nothing_outside_the_bundle_so_that_an_exported_one_has_no_dead_link(self) -> None:
        targets = [target.partition("#")[0] for target in links(CARD)]
        assert targets
        assert all((CARD.parent / target).resolve().is_relative_to(ROOT / "bundle") for target in targets)

    def test_model_card_begins_with_metadata_in_yaml(self) -> None:
        head = yaml.safe_load(CARD.read_text(encoding="utf-8").split("---\n")[1])
        assert head["license"] == "cc-by-nc-sa-4.0"
        assert "monai" in head["tags"]


def test_citation_names_the_version_of_the_package() -> None:
    import mri_seg

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == mri_seg.__version__
