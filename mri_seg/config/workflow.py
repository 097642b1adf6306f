"""A workflow in its process: its options are checked before it begins, and the process is as it was when it has ended.

MONAI hands no expression the config that it belongs to, and wraps every error of one in an error of its own. So the
first expression of ``initialize`` looks the config's parser up on the stack and puts expressions and components of ours
in the place of MONAI's, by the parser's public parts: theirs, but errors come out as they were raised.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.utils import get_seed, set_determinism

from mri_seg.config.errors import check_keys, one_line_errors
from mri_seg.config.options import RULES
from mri_seg.config.provenance import evaluated_config, evaluated_parser
from mri_seg.config.validation import (
    check_renamed,
    check_value,
    check_values,
    check_words,
    explain_expression,
)
from mri_seg.utils.compat import become, called_from, caller_of
from mri_seg.utils.messages import root_of
from mri_seg.utils.random_state import load_random_state, random_state

__all__ = ["begin_workflow", "check_options", "end_workflow"]


class _Process(NamedTuple):
    """What MONAI's ``set_determinism`` changes in a process."""

    seed: int | None
    random: dict[str, Any]
    cudnn: tuple[bool, bool]

    @classmethod
    def now(cls) -> _Process:
        return cls(get_seed(), random_state(), (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))

    def restore(self) -> None:
        set_determinism(self.seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.cudnn
        load_random_state(self.random)


_before: WeakKeyDictionary[ConfigParser, _Process] = WeakKeyDictionary()
"""The process before each workflow that has begun and not ended, in the order they began."""


_checked: WeakSet[ConfigParser] = WeakSet()
"""Those whose options have been checked: a host may change parts of them afterwards, so that options lie idle."""


def begin_workflow(debug: bool | str = False) -> None:
    """Begin the workflow whose config calls this; one that has begun already goes on.

    From here on its errors come out as they were raised, and the first of them ends it, as :py:func:`end_workflow`
    does. If a command line started it, the error that ends the process is shown in one line.

    Args:
        debug: whether a command line shows the traceback.
    """
    parser = evaluated_parser()
    if parser not in _before:
        _before[parser] = _Process.now()
    if str(debug).lower() != "true" and _from_command_line():  # what else it may not be, check_options says
        one_line_errors()
    _restore_number_signs(parser)
    for item in parser.ref_resolver.items.values():
        for ours, theirs in ((_Expression, ConfigExpression), (_Component, ConfigComponent)):
            if type(item) is theirs:
                become(item, ours)


def check_options() -> None:
    """Check the options of the workflow whose config calls this: that there are such, and that their values can work.

    Raises:
        ValueError: with the option, and what to write instead.
    """
    parser, config = evaluated_parser(), evaluated_config()
    if parser not in _checked:
        check_renamed(config)
        if _from_command_line():
            check_words(sys.argv[1:])
        check_keys(config, known=_shipped())
        _checked.add(parser)
    check_values(config)


def end_workflow() -> None:
    """End the workflow whose config calls this, and put the process back as it was before it.

    If others have begun since, as in a federation, that is left to the first of them to end.
    """
    parser = evaluated_parser()
    if parser not in _before:
        return
    begun = list(_before)
    later = begun[begun.index(parser) + 1 :]
    before = _before.pop(parser)
    if later:
        _before[later[0]] = before
    else:
        before.restore()


class _Expression(ConfigExpression):
    def evaluate(self, globals: dict | None = None, locals: dict | None = None) -> Any:
        with _errors_as_raised(self.get_id()):
            value = super().evaluate(globals, locals)
            if self.get_id() in RULES:
                check_value(self.get_id(), value)
            return value


class _Component(ConfigComponent):
    def instantiate(self, **kwargs: Any) -> object:
        with _errors_as_raised(self.get_id()):
            return super().instantiate(**kwargs)


@contextlib.contextmanager
def _errors_as_raised(key: str) -> Iterator[None]:
    """End the workflow at an error, and raise that instead of what MONAI wraps around it."""
    try:
        yield
    except BaseException as error:
        end_workflow()
        root = root_of(error)
        if key in RULES and isinstance(root, (NameError, SyntaxError)):
            raise explain_expression(key, evaluated_parser()[key], root) from root
        if root is error:
            raise
        raise root from root.__cause__


def _from_command_line() -> bool:
    """Whether fire is below, which reads the command line of ``python -m monai.bundle``."""
    return called_from("fire.core")


def _shipped() -> list[tuple[str, Any]]:
    """Keys and values of all configs in the workflow's folder: they may lie idle where one config overrides another."""
    workflow = caller_of(ConfigWorkflow)
    if workflow is None:
        return []
    texts = (file.read_text(encoding="utf-8") for file in workflow.config_root_path.glob("*.json"))
    return [item for text in texts for item in json.loads(ReferenceResolver.normalize_id(text)).items()]


def _restore_number_signs(parser: ConfigParser) -> None:
    """Give texts their # back: MONAI makes :: of it, in paths and descriptions too."""
    config = parser.get()
    restored = {key: _restored(value) for key, value in config.items() if key != parser.meta_key}
    if any(config[key] != value for key, value in restored.items()):
        config.update(restored)
        resolved = parser.ref_resolver.resolved_content  # imports; without any, MONAI would parse once more
        parser.parse(reset=True)
        parser.ref_resolver.resolved_content.update(resolved)


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _restored(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if not isinstance(value, str) or value.startswith(("$", "@", "%")) or "::" not in value or os.path.exists(value):
        return value
    # As an expression that MONAI finds none of its signs in.
    return "$" + repr(value.replace("::", "#")).replace("#", r"\x23").replace("@", r"\x40")
