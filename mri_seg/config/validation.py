"""Values of config keys as a command line gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch

__all__ = ["RULES", "check_value", "check_values", "check_words", "explain_expression"]


_OPTION = re.compile(r"-(?:-|(?=[A-Za-z]))([^=]+)(?:=(.*))?", re.DOTALL)  # by fire, which reads the command line


_REFERENCE = re.compile(r"@([A-Za-z]\w*)(?:(?:::|#)\w+)*")


class Rule(NamedTuple):
    """What values an option may have: in words, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of options that cannot work, before anything is read or written.

    Args:
        config: a config before it is resolved; values that are expressions are let through.

    Raises:
        ValueError: with the option, its value and what was expected.
    """
    for key in config:
        value = _followed(key, config)
        if not _is_expression(value):
            check_value(key, value)
    for smaller, larger in (("batch_size", "slices_per_epoch"), ("roi_size", "spatial_size")):
        values = config.get(smaller), config.get(larger)
        if None in values or any(map(_is_expression, values)):
            continue
        small, large = (value if isinstance(value, (list, tuple)) else [value] for value in values)
        if any(one > other for one, other in zip(small, large, strict=True)):
            raise ValueError(f"--{smaller}: {values[0]}, expected no more than --{larger}, {values[1]}.")


def check_value(key: str, value: Any) -> None:
    """Refuse a value that an option cannot have, or a device that is not there.

    Args:
        key: name of the option; others than those of :py:data:`RULES` may have any value.
        value: its value.

    Raises:
        ValueError: with the option, its value and what was expected.
    """
    if key in RULES and not RULES[key].holds(value):
        raise ValueError(f"--{key}: {value!r}, expected {RULES[key].expected}.")
    if key == "device":
        _check_device(torch.device(value))


def check_words(words: Sequence[str]) -> None:
    """Refuse words of a command line of which its parser drops the end, because ``#`` begins a comment in Python.

    Args:
        words: the command line, such as ``["--dataset_dir", "patient#2"]``.

    Raises:
        ValueError: with the option, what the parser makes of the word, and what to write instead.
    """
    from fire.parser import DefaultParseValue

    for key, word in _given(words):
        value = DefaultParseValue(word)
        if str(value).count("#") < word.count("#"):
            instead = f"./{word}" if RULES.get(key) is _PATH else "\"'" + word + "'\""
            raise ValueError(
                f"--{key}: {word!r} would be read as {value!r}, because what follows a # is taken for a comment. "
                f"Write {instead}"
            )


def explain_expression(key: str, value: str, error: Exception) -> ValueError:
    """The error of an option whose text was taken for a Python expression that fails, perhaps because it is a path.

    Args:
        key: name of the option.
        value: its text, which begins with ``$``.
        error: what the expression raised.
    """
    return ValueError(
        f"--{key}: {value!r} begins with $, so that it is taken for a Python expression, which fails ({error}). "
        f"Write ./{value} for a file or folder of that name, or leave the quotes out if it is a shell variable."
    )


def _given(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a command line with their words: ``--key word`` and ``--key=word``."""
    for word, after in zip(words, [*words[1:], ""]):
        if option := _OPTION.fullmatch(word):
            yield option[1].replace("-", "_"), after if option[2] is None else option[2]


def _followed(key: str, config: Mapping[str, Any]) -> Any:
    """The value of a key, or of the key that it refers to.

    Raises:
        ValueError: when there is none.
    """
    value = config[key]
    for _ in config:
        reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if reference is None:
            break
        if reference[1] not in config:
            raise ValueError(
                f"--{key}: {value!r} begins with @, so that it is taken for a key of the config, which has none "
                f"of that name. Write ./{value} for a file or folder of that name."
            )
        if reference[0][1:] != reference[1]:
            return f"${value}"  # a part of that key, known once it is evaluated
        value = config[reference[1]]
    return value


def _check_device(device: torch.device) -> None:
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) < count:
            return
        found = f"{count} GPUs, cuda:0 to cuda:{count - 1}" if count > 1 else "one GPU, cuda:0" if count else "no GPU"
        why = f"PyTorch sees {found}"
    else:
        try:
            torch.empty(0, device=device)
            return
        except (RuntimeError, AssertionError) as error:
            why = f"PyTorch cannot use it here ({str(error).splitlines()[0]})"
    raise ValueError(
        f"--device: {str(device)!r}, but {why}. Give --device cpu, or install a driver and a PyTorch that know the GPU."
    )


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _is_whole(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _are(count: int, value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == count and all(map(holds, value))


def _is_device(value: Any) -> bool:
    try:
        return bool(torch.device(value))
    except (RuntimeError, TypeError):
        return False


def _whole(lowest: int) -> Rule:
    return Rule(f"a whole number, {lowest} or more", lambda value: _is_whole(value, lowest))


_SWITCH = Rule("true or false", lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false"))


_SHARE = Rule("a number, 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)


_POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)


_NOT_NEGATIVE = Rule("a number, 0 or more", lambda value: _is_number(value) and value >= 0)


_PATH = Rule(
    "a path (one that looks like a number with ./ before it)", lambda value: isinstance(value, (str, PathLike))
)


_TEXT = Rule("text (in quotes twice, where it looks like a number)", lambda value: isinstance(value, str))


RULES = {
    **dict.fromkeys(("epochs", "slices_per_epoch", "batch_size", "val_interval", "checkpoint_interval"), _whole(1)),
    **dict.fromkeys(("keep_checkpoints", "slices_per_batch", "bootstrap_resamples", "calibration_slices"), _whole(1)),
    **dict.fromkeys(("num_workers", "seed"), _whole(0)),
    **dict.fromkeys(("learning_rate", "max_grad_norm", "max_voxels"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "min_lesion_volume", "surface_tolerance"), _NOT_NEGATIVE),
    **dict.fromkeys(("warmup_fraction", "ema_momentum", "threshold"), _SHARE),
    **dict.fromkeys(("resume", "debug", "allow_missing", "amp", "compile", "overwrite", "report"), _SWITCH),
    **dict.fromkeys(("allow_non_axial", "fill_holes", "flip", "crop_foreground"), _SWITCH),
    **dict.fromkeys(("bundle_root", "dataset_dir", "output_dir", "checkpoint", "split"), _PATH),
    **dict.fromkeys(("run_name", "section"), _TEXT),
    "tumor_fraction": Rule("a number, 0 to 1, or None", lambda value: value is None or _SHARE.holds(value)),
    "num_slices": Rule("a whole odd number", lambda value: _is_whole(value, 1) and value % 2 == 1),
    "spatial_size": Rule(
        'two whole numbers, as in "[256,256]"', lambda value: _are(2, value, lambda one: _is_whole(one, 1))
    ),
    "roi_size": Rule(
        'two multiples of 32, as in "[160,160]"',
        lambda value: _are(2, value, lambda one: _is_whole(one, 32) and one % 32 == 0),
    ),
    "pixdim": Rule('two numbers above 0, as in "[0.94,0.94]"', lambda value: _are(2, value, _POSITIVE.holds)),
    "spacing": Rule(
        'three numbers above 0, rows, columns and slices in mm, as in "[0.9,0.9,5]"',
        lambda value: value is None or _are(3, value, _POSITIVE.holds),
    ),
    "volume": Rule("a whole number, 0 or more", lambda value: value is None or _is_whole(value, 0)),
    "series_uid": Rule("a SeriesInstanceUID", lambda value: value is None or isinstance(value, str)),
    "series_description": Rule(_TEXT.expected, lambda value: value is None or isinstance(value, str)),
    "outputs": Rule("names with commas between", lambda value: isinstance(value, (str, list, tuple))),
    "ensemble": Rule("paths, as in \"['a.pt','b.pt']\"", lambda value: isinstance(value, (str, list, tuple))),
    "device": Rule("a device, such as cpu or cuda:0", _is_device),
}
"""What values the options of the configs may have."""
