"""The layout of the package: imports run one way, configs use the public face, and old names are gone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
from monai.bundle.config_item import ComponentLocator

import mri_seg
from mri_seg.config.validation import RENAMED

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mri_seg"
CONFIGS = sorted((ROOT / "bundle" / "configs").glob("*.json"))

# Each stage may import itself and the stages before it.
STAGES = [
    "utils",
    "bundle",
    "config",
    "visualize",
    "dicom",
    "io",
    "measurements",
    "transforms",
    "datasets",
    "networks",
    "training",
    "quality",
    "inference",
    "evaluation",
    "report",
    "export",
    "follow_up",
    "cli",
]

# Names that were given up, and what took their place.
GIVEN_UP = {
    *("agreed", "gathered", "highest", "is_first", "share", "ShareEvaluator", "CaseSampler", "sum_up", "same_network"),
    *("parallel", "start", "end", "whole_file", "refusals_name", "_hear", "_listen_no_more", "_say_once", "_Silent"),
    *("_no_word_of_missing_plugins", "HeadInferer", "AveragingInferer", "telling_slice", "mistakes", "border_spilled"),
    *(RENAMED.keys() - {"flip"}),  # which is an argument as well
}
PLAIN = {"highest", "parallel", "share", "start", "end", "gathered"}
"""Those of them that are plain English: they may name a variable or an attribute."""

FORMER_MODULES = {"record", "limits", "page", "mistakes"}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports, in functions too."""
    package = path.parent.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else source for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == PACKAGE.name}


def _stage(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


class TestImports:
    def test_every_folder_and_every_module_beside_them_is_a_stage(self) -> None:
        folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        assert folders | {path.stem for path in PACKAGE.glob("[!_]*.py")} == set(STAGES)

    def test_imports_never_run_back_to_a_later_stage(self) -> None:
        modules = _modules()
        upward = [
            f"{module} imports {imported}"
            for module, path in modules.items()
            for imported in _imports(path, modules)
            if _stage(module) and _stage(imported) and STAGES.index(_stage(imported)) > STAGES.index(_stage(module))
        ]
        assert upward == []

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        modules = _modules()
        edges = {module: _imports(path, modules) - {module, "mri_seg"} for module, path in modules.items()}
        left = dict(edges)
        while free := [module for module, imported in left.items() if not imported & left.keys()]:
            for module in free:
                del left[module]
        assert left == {}


class TestConfigs:
    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_config_points_to_no_place_in_a_list(self, path: Path) -> None:
        assert re.findall(r"#\d+", path.read_text(encoding="utf-8")) == []

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_expressions_of_a_config_hold_no_and_nor_or(self, path: Path) -> None:
        expressions = [
            text[1:] for text in _texts(json.loads(path.read_text(encoding="utf-8"))) if text.startswith("$")
        ]
        code = [re.sub(r"@\w+([#:]+\w+)*", "part", text) for text in expressions]
        nodes = [(text, ast.walk(ast.parse(text))) for text in code]
        assert [text for text, found in nodes if any(isinstance(node, ast.BoolOp) for node in found)] == []

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_config_uses_the_public_face_alone(self, path: Path) -> None:
        named = set(re.findall(r"mri_seg\.([A-Za-z_][\w.]*)", path.read_text(encoding="utf-8")))
        public = {name for name in mri_seg.__all__ if not name.startswith("_")}
        assert {name.split(".")[0] for name in named} <= public


class TestPublicFace:
    def test_every_name_resolves(self) -> None:
        assert [name for name in mri_seg.__all__ if getattr(mri_seg, name, None) is None] == []
        assert set(mri_seg.__all__) <= set(dir(mri_seg))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'HeadInferer'"):
            _ = mri_seg.HeadInferer

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_every_target_of_a_config_resolves(self, path: Path) -> None:
        config = json.loads(path.read_text(encoding="utf-8"))
        targets = {value for key, value in _items(config) if key.endswith("_target_")}
        monai = ComponentLocator()
        assert [
            name for name in targets if not (locate(name) if "." in name else monai.get_component_module_name(name))
        ] == []

    @pytest.mark.interpreter
    def test_public_face_is_imported_without_torch_and_monai(self) -> None:
        code = "import sys, mri_seg; print(sorted({'torch', 'monai', 'numpy'} & sys.modules.keys()))"
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


class TestNames:
    @pytest.mark.parametrize("module", _modules())
    def test_names_given_up_are_defined_nowhere(self, module: str) -> None:
        defined = _defined(ast.parse(_modules()[module].read_text(encoding="utf-8")))
        assert [name for name, variable in defined if name in (GIVEN_UP - PLAIN if variable else GIVEN_UP)] == []

    def test_modules_given_up_are_gone(self) -> None:
        assert {path.stem for path in PACKAGE.rglob("*.py")} & FORMER_MODULES == set()

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
    def test_keys_given_up_are_in_no_config(self, path: Path) -> None:
        config = json.loads(path.read_text(encoding="utf-8"))
        assert {key for key, _ in _items(config)} & GIVEN_UP == set()
        assert config.keys() & RENAMED.keys() == set()


def _defined(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that a module defines, and whether each is but a variable or an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, False
        elif isinstance(node, ast.arg):
            yield node.arg, False
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, True
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, True


def _items(part: Any) -> Iterator[tuple[str, Any]]:
    """Keys with their values, to any depth."""
    if isinstance(part, dict):
        yield from part.items()
    if isinstance(part, (dict, list)):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _items(value)


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, (dict, list)):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _texts(value)
