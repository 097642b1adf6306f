"""Check the values of config keys, which may come from a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mri_seg.config.options import PATH, PATH_OR_PATHS, RULES
from mri_seg.utils.label_classes import LabelClasses
from mri_seg.utils.sequence_names import sequence_names

if TYPE_CHECKING:
    import torch

__all__ = [
    "RENAMED",
    "check_arguments",
    "check_renamed",
    "check_value",
    "check_values",
    "explain_expression",
    "references",
    "texts",
]


_OPTION = re.compile(r"-(?:-|(?=[A-Za-z]))([^=]+)(?:=(.*))?", re.DOTALL)  # by fire, which reads the command line


_REFERENCE = re.compile(r"@([A-Za-z]\w*)(?:(?:::|#)\w+)*")


_REFERENCES = re.compile(r"@(?:%?)([A-Za-z_]\w*)")


RENAMED = {
    "averaging_momentum": "ema_momentum",
    "crop_size": "roi_size",
    "flip": "tta_flip",
    "gradient_norm": "max_grad_norm",
    "largest_volume": "max_voxels",
    "neighbouring_slices": "num_slices",
    "pixel_size": "pixdim",
    "plane_size": "spatial_size",
    "skip_air": "crop_foreground",
    "smallest_lesion": "min_lesion_volume",
    "tumour_fraction": "tumor_fraction",
    "validated_network": "ema_network",
    "warmup_share": "warmup_fraction",
}
"""Current names of renamed options, by their old names."""


def check_renamed(config: Mapping[str, Any]) -> None:
    """Refuse renamed options under their old names, and references to them, such as in an old config.

    Args:
        config: a config before it is resolved, with the options in it.

    Raises:
        ValueError: with the new names.
    """
    given = {*config, *references(config)}
    if renamed := sorted(given & RENAMED.keys()):
        raise ValueError("; ".join(f"`{name}` is now `{RENAMED[name]}`" for name in renamed) + ".")


def references(part: Any) -> Iterator[str]:
    """Names of the keys that a part of a config refers to, in any of its texts."""
    for text in texts(part):
        yield from _REFERENCES.findall(text)


def texts(part: Any) -> Iterator[str]:
    """All texts in a part of a config, but not its keys."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from texts(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from texts(value)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse invalid values of options before anything is read or written.

    Args:
        config: a config before it is resolved; values that are expressions are let through.

    Raises:
        ValueError: with the option, its value and what was expected.
    """
    for key in config:
        value = _followed(key, config)
        if not _is_expression(value):
            check_value(key, value)
    classes = [_followed(key, config) for key in ("label_mode", "label_values") if key in config]
    if len(classes) > 1 and not any(map(_is_expression, classes)):
        LabelClasses(*classes)
    sequences = _followed("sequences", config) if "sequences" in config else None
    if not _is_expression(sequences) and sequence_names(sequences):
        for key in ("fade_probability", "transplant_probability"):
            value = _followed(key, config) if key in config else 0
            if not _is_expression(value) and value:
                raise ValueError(f"--{key}: changes lesions in FLAIR alone, expected 0 with --sequences.")
    if isinstance(config.get("dataset_dir"), (list, tuple)) and "split" in config:
        raise ValueError(f"--dataset_dir: {config['dataset_dir']!r}, expected one folder: training data have a split.")
    for smaller, larger in (("batch_size", "slices_per_epoch"), ("roi_size", "spatial_size")):
        values = config.get(smaller), config.get(larger)
        if None in values or any(map(_is_expression, values)):
            continue
        small, large = (value if isinstance(value, (list, tuple)) else [value] for value in values)
        if any(one > other for one, other in zip(small, large, strict=True)):
            raise ValueError(f"--{smaller}: {values[0]}, expected no more than --{larger}, {values[1]}.")


def check_value(key: str, value: Any) -> None:
    """Refuse an invalid value of an option, or a device that does not exist.

    Args:
        key: name of the option; others than those of :py:data:`~mri_seg.config.options.RULES` may have any value.
        value: its value.

    Raises:
        ValueError: with the option, its value and what was expected.
    """
    if key in RULES and not RULES[key].holds(value):
        raise ValueError(f"--{key}: {value!r}, expected {RULES[key].expected}.")
    if key == "device":
        _check_device(value)


def check_arguments(words: Sequence[str]) -> None:
    """Refuse command-line arguments that the parser would cut at ``#``, which begins a comment in Python.

    Args:
        words: the command line, such as ``["--dataset_dir", "patient#2"]``.

    Raises:
        ValueError: with the option, what the parser makes of the word, and what to write instead.
    """
    from fire.parser import DefaultParseValue

    for key, word in _given(words):
        value = DefaultParseValue(word)
        if str(value).count("#") < word.count("#"):
            instead = f"./{word}" if RULES.get(key) in (PATH, PATH_OR_PATHS) else "\"'" + word + "'\""
            raise ValueError(
                f"--{key}: {word!r} would be read as {value!r}, because # begins a comment. Write {instead}"
            )


def explain_expression(key: str, value: str, error: Exception) -> ValueError:
    """Make the error for an option whose text was taken as a Python expression and failed, though it may be a path.

    Args:
        key: name of the option.
        value: its text, which begins with ``$``.
        error: what the expression raised.
    """
    return ValueError(
        f"--{key}: {value!r} begins with $, so it is taken as a Python expression, which fails ({error}). "
        f"Write ./{value} for a file or folder of that name, or remove the quotes if it is a shell variable."
    )


def _given(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line with their values: ``--key value`` and ``--key=value``."""
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
                f"--{key}: {value!r} begins with @, so it is taken as a reference to a config key, but there is no "
                f"such key. Write ./{value} for a file or folder of that name."
            )
        if reference[0][1:] != reference[1]:
            return f"${value}"  # a part of that key, which is known only after evaluation
        value = config[reference[1]]
    return value


def _check_device(given: torch.device | str) -> None:
    import torch

    device = torch.device(given)
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
        f"--device: {str(device)!r}, but {why}. Give --device cpu, or install a driver and PyTorch for the GPU."
    )


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@", "%"))
