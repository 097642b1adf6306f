"""A command that runs configs of the bundle, with their options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from mri_seg.cli.values import as_path, parse_value
from mri_seg.config.options import OPTIONS, PATH, SWITCH, TEXT, Described, describe
from mri_seg.config.used_keys import used_keys
from mri_seg.config.validation import RENAMED
from mri_seg.utils.bundle_folder import bundle_folder

__all__ = ["ConfigCommand", "Given"]

_EXTRA = "mri_seg.cli.extra_options"  # key of the options of this call in the context's meta
_SEPARATOR = re.compile("#|::")  # of the parts of a config
_SWITCH_VALUE = re.compile(r"(true|false|yes|no|on|off|none|\d+)$|[$@]", re.IGNORECASE)
_OR_NONE = re.compile("[,;] or None$")
_MARKDOWN = re.compile(r"`|\[([^]]*)\]\(([^)]*)\)")


_UNTOLD = {PATH.expected, TEXT.expected}
"""Kinds of values that go without saying in the help."""


class Given(NamedTuple):
    """What the user gives to a command.

    Attributes:
        files: the configs to run, each over those before it.
        overrides: values of config keys.
        tracking: settings of experiment tracking, as ``--tracking`` of MONAI's ``run`` takes them.
        quiet: whether to print errors and warnings only.
        verbose: whether to print all that MONAI logs too.
        dry_run: whether only to list the cases.
    """

    files: list[Path]
    overrides: dict[str, Any]
    tracking: str | None = None
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False


class ConfigCommand(click.Command):
    """A command that runs configs of the bundle; every key of the configs is an option.

    Args:
        name: name of the command.
        configs: names of the configs, each laid over those before it.
        run: runs them; returns the exit status.
        positional: metavariable of the paths.
        place: puts the paths into the config keys that the user gave; raises ``click.UsageError``.
        placed: the keys that it gives; help does not list them.
        dry_run: whether the command has ``--dry_run``.
        further: name of a config of the bundle that may be laid over the first one, for the help.
        options: further arguments of ``click.Command``, such as ``help``.
    """

    def __init__(
        self,
        name: str,
        *,
        configs: Sequence[str],
        run: Callable[[Given], int],
        positional: str,
        place: Callable[[list[str], dict[str, Any]], dict[str, Any]],
        placed: Sequence[str] = ("dataset_dir",),
        dry_run: bool = False,
        further: str = "",
        **options: Any,
    ) -> None:
        own: list[click.Parameter] = [
            click.Argument(["paths"], nargs=-1, metavar=positional, required=False),
            click.Option(["--quiet"], is_flag=True, help="Print warnings and errors only."),
            click.Option(["--verbose"], is_flag=True, help="Print everything, with MONAI's banner and all given keys."),
            click.Option(
                ["--config_file"],
                metavar="FILE",
                multiple=True,
                help=f"A further config, laid over {configs[0]}: a file, or the name of one of the bundle"
                f"{f', such as {further}' * bool(further)}. May be repeated.",
            ),
            click.Option(
                ["--tracking"],
                metavar="FILE",
                help="Track the run: mlflow for the settings of MONAI, or a file of settings, such as mlflow.json of "
                "the bundle.",
            ),
        ]
        if dry_run:
            own.append(
                click.Option(
                    ["--dry_run"],
                    is_flag=True,
                    help="List the cases found and what is passed over, and why; write nothing.",
                )
            )
        super().__init__(name, params=own, **options)
        self.configs = configs
        self.run = run
        self.place = place
        self.placed = placed

    @cached_property
    def described(self) -> list[Described]:
        """The options of the configs that this command uses, those of the last config first."""
        used, own = used_keys(self._contents), self._contents[-1]
        found = [option for option in self._all_described if option.name in used]
        return sorted(found, key=lambda option: option.name not in own)

    @cached_property
    def _all_described(self) -> list[Described]:
        return describe(*(self._folder / name for name in self.configs))

    @cached_property
    def _config_options(self) -> list[click.Parameter]:
        listed = [option for option in self.described if option.name not in self.placed]
        others = [option for option in self._all_described if option not in listed]
        return [
            *(_ConfigOption(option.name, option) for option in listed),
            *(_ConfigOption(option.name, option, hidden=True) for option in others),
        ]

    @cached_property
    def _contents(self) -> list[dict[str, Any]]:
        return [json.loads((self._folder / name).read_text(encoding="utf-8")) for name in self.configs]

    @cached_property
    def _keys(self) -> set[str]:
        """The top-level keys of the configs."""
        return {_SEPARATOR.split(key)[0] for config in self._contents for key in config}

    @property
    def _folder(self) -> Path:
        return bundle_folder() / "configs"

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, the options of the configs, and other keys that this call gives."""
        own = super().get_params(ctx)
        return [*own, *self._config_options, *ctx.meta.get(_EXTRA, ())]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line: an option for each config key that it gives, at any depth."""
        ctx.meta[_EXTRA] = []
        known = {name for param in self.get_params(ctx) for name in param.opts}
        return super().parse_args(ctx, list(self._prepared(ctx, args, known)))

    def _prepared(self, ctx: click.Context, args: list[str], known: set[str]) -> Iterator[str]:
        """Yield the words; adds options for further keys, and the value of a switch that is given without one."""
        flags = {
            name for param in self.params if isinstance(param, click.Option) and param.is_flag for name in param.opts
        }
        words = iter(args)
        for word in words:
            name, has_value = _option_name(word)
            if word == "--":
                yield from (word, *words)
                return
            if name is None or name in (*flags, "--help"):
                yield word
                continue
            if name not in known and self._is_key(name[2:]):
                ctx.meta[_EXTRA].append(_ConfigOption(name[2:]))
                known.add(name)
            elif name[2:] in RENAMED:
                raise click.NoSuchOption(name, f"{name} is now --{RENAMED[name[2:]]}.", ctx=ctx)
            if has_value or name not in known:
                yield word
                continue
            value = next(words, None)
            if _is_switch(name[2:]) and not _is_switch_value(value):
                yield f"{name}=true"
                words = iter([*([] if value is None else [value]), *words])
                yield from self._prepared(ctx, list(words), known)
                return
            yield from (word,) if value is None else (word, value)

    def _is_key(self, key: str) -> bool:
        """Whether a config has a key, or a part in which it may lie; names with a leading ``_`` are the user's own."""
        first, *parts = _SEPARATOR.split(key)
        return bool(first) and (first.startswith("_") or (first in self._keys and all(parts)))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the configs; the exit status is that of the run."""
        options = [param for param in self.get_params(ctx) if isinstance(param, _ConfigOption)]
        given = {
            option.key: parse_value(ctx.params[str(option.name)])
            for option in options
            if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        }
        paths = [as_path(path) for path in ctx.params["paths"]]
        try:
            overrides = self.place(paths, given)
        except click.UsageError as error:
            error.ctx = ctx  # so that it is shown with the usage
            raise
        first, *others = (self._folder / name for name in self.configs)
        more = [self._config_file(name) for name in ctx.params["config_file"]]
        flags = {name: ctx.params.get(name, False) for name in ("quiet", "verbose", "dry_run")}
        ctx.exit(self.run(Given([first, *more, *others], overrides, self._tracking(ctx.params["tracking"]), **flags)))

    def dry_run(self, path: str) -> int:
        """List the cases of a path; returns the exit status.

        Args:
            path: a folder or file.
        """
        given = {"dataset_dir": path}
        return self.run(Given([self._folder / name for name in self.configs], given, dry_run=True))

    def _config_file(self, name: str) -> Path:
        for file in (Path(name), self._folder / name):
            if file.is_file():
                return file
        raise click.BadParameter(f"{name}: no such file, here or in {self._folder}.", param_hint="--config_file")

    def _tracking(self, name: str | None) -> str | None:
        """What MONAI takes: the name of its own settings, or a file."""
        if name is None or "." not in name:
            return name
        try:
            return str(self._config_file(name))
        except click.BadParameter as error:
            error.param_hint = "--tracking"
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: first those of the command, then those of the configs."""
        title = f"Options of {' and '.join(self.configs)} (a switch needs no value to be true)"
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], title: []}
        own, config = sections.values()
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                (config if isinstance(param, _ConfigOption) else own).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=26)


class _ConfigOption(click.Option):
    """An option for a key of a config."""

    def __init__(self, key: str, described: Described | None = None, *, hidden: bool = False) -> None:
        self.key = key
        name = "key_" + re.sub(r"\W", "_", key)
        help_text = _help(described) if described else None
        hidden = hidden or described is None or _is_internal(described)
        super().__init__([f"--{key}", name], metavar="VALUE", help=help_text, hidden=hidden)


def _help(option: Described) -> str:
    """What an option means, its values, unit and default; of a link, the file that it leads to."""
    default = "none" if option.value is None else option.default
    expected = _OR_NONE.sub("", option.expected)
    about = [
        "" if expected in _UNTOLD else expected,
        "" if expected.count(f" in {option.unit},") else option.unit,
        "" if option.value is None and "by default" in option.meaning else f"default: {default}",
    ]
    text = f"{option.meaning[:1].upper()}{option.meaning[1:]}."
    if any(about):
        text += f" [{'; '.join(filter(None, about))}]"
    return _MARKDOWN.sub(lambda found: f"docs/{found[2]}" if found[2] else "", text)


def _is_internal(option: Described) -> bool:
    """Whether a key follows from others: it may be given, but help does not list it."""
    given_by_path = option.name == "bundle_root"
    follows = isinstance(option.value, list) or str(option.value).startswith(("$", "@", "%"))
    return given_by_path or (OPTIONS[option.name].rule is None and follows)


def _option_name(word: str) -> tuple[str | None, bool]:
    """The name of the option that a word gives, with ``_`` for ``-``, and whether its value comes with it."""
    if not word.startswith("--") or word == "--":
        return None, False
    name, equals, _ = word.partition("=")
    return "--" + name[2:].replace("-", "_"), bool(equals)


def _is_switch(key: str) -> bool:
    return key in OPTIONS and OPTIONS[key].rule is SWITCH


def _is_switch_value(word: str | None) -> bool:
    """Whether a word after a switch is meant as its value, be it a valid one, and not as a path."""
    return word is not None and bool(_SWITCH_VALUE.match(word))
