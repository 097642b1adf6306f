"""Begin and end a workflow: check its options before it runs, and restore the process's state afterwards.

MONAI does not pass the config to its expressions, and wraps every error of an expression in its own errors. So the
first expression of ``initialize`` finds the config's parser on the stack and replaces the parser's expressions and
components by subclasses that raise the original errors.
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
    check_arguments,
    check_renamed,
    check_value,
    check_values,
    explain_expression,
)
from mri_seg.utils.bundle_folder import refuse_installed
from mri_seg.utils.compat import become, called_from, caller_of
from mri_seg.utils.files import refuse_unwritable
from mri_seg.utils.library_warnings import silence_library_warnings
from mri_seg.utils.messages import root_of
from mri_seg.utils.random_state import load_random_state, random_state

__all__ = ["begin_workflow", "check_options", "end_workflow"]


class _Process(NamedTuple):
    """The state of a process that MONAI's ``set_determinism`` changes."""

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
"""State of the process before each running workflow, in the order in which they began."""


_checked: WeakSet[ConfigParser] = WeakSet()
"""Workflows whose options have been checked; a host may change them afterwards, so that options are not used."""


def begin_workflow(debug: bool | str = False) -> None:
    """Begin the workflow whose config calls this; does nothing if it has already begun.

    From now on, errors are raised without MONAI's wrapping, and the first one ends the workflow like
    :py:func:`end_workflow`. On a command line, the error that ends the process is shown in one line.

    Args:
        debug: whether the command line shows the traceback instead.
    """
    parser = evaluated_parser()
    if parser not in _before:
        _before[parser] = _Process.now()
    if str(debug).lower() != "true" and _from_command_line():  # check_options checks its value
        one_line_errors()
    if _from_command_line():
        silence_library_warnings()
    _restore_number_signs(parser)
    for item in parser.ref_resolver.items.values():
        for ours, theirs in ((_Expression, ConfigExpression), (_Component, ConfigComponent)):
            if type(item) is theirs:
                become(item, ours)


def check_options() -> None:
    """Check the options of the workflow whose config calls this: that they exist, and that their values are valid.

    So is ``output_dir`` if nothing can be written there, or if it is relative and the workflow is started within the
    installed package.

    Raises:
        ValueError: with the name of the option, and what to write instead.
        PermissionError: when this user may not write in ``output_dir``.
    """
    parser, config = evaluated_parser(), evaluated_config()
    if parser not in _checked:
        check_renamed(config)
        if _from_command_line():
            check_arguments(sys.argv[1:])
        check_keys(config, known=_shipped())
        _checked.add(parser)
    check_values(config)
    if "output_dir" in config:
        refuse_installed(config["output_dir"], "--output_dir")
        if not str(config["output_dir"]).startswith(("$", "@", "%")):
            refuse_unwritable(config["output_dir"], "--output_dir")


def end_workflow() -> None:
    """End the workflow whose config calls this, and restore the process's state from before it.

    If other workflows have begun since, as in federated learning, the next of them restores the state when it ends.
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
    """On an error, end the workflow and raise the original error without MONAI's wrapping."""
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
    """Whether fire, which reads the command line of ``python -m monai.bundle``, is on the stack."""
    return called_from("fire.core")


def _shipped() -> list[tuple[str, Any]]:
    """Keys and values of all configs in the workflow's folder; they may be unused if one config overrides another."""
    workflow = caller_of(ConfigWorkflow)
    if workflow is None:
        return []
    texts = (file.read_text(encoding="utf-8") for file in workflow.config_root_path.glob("*.json"))
    return [item for text in texts for item in json.loads(ReferenceResolver.normalize_id(text)).items()]


def _restore_number_signs(parser: ConfigParser) -> None:
    """Restore # in texts: MONAI replaces it by ::, even in paths and descriptions."""
    config = parser.get()
    restored = {key: _restored(value) for key, value in config.items() if key != parser.meta_key}
    if any(config[key] != value for key, value in restored.items()):
        config.update(restored)
        resolved = parser.ref_resolver.resolved_content  # imports; without them, MONAI would parse again
        parser.parse(reset=True)
        parser.ref_resolver.resolved_content.update(resolved)


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _restored(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if not isinstance(value, str) or value.startswith(("$", "@", "%")) or "::" not in value or os.path.exists(value):
        return value
    # As an expression that contains none of MONAI's special characters.
    return "$" + repr(value.replace("::", "#")).replace("#", r"\x23").replace("@", r"\x40")
