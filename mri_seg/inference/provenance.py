"""Provenance of the results of a case: a record beside them of the input, weights, version and options."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple

import mri_seg
from mri_seg.config.provenance import evaluated_parser
from mri_seg.config.weights import weights_file, weights_origin
from mri_seg.inference.runtimes import int8_file
from mri_seg.io.file_parts import file_parts
from mri_seg.utils.files import sha256

__all__ = [
    "case_provenance",
    "describe_input",
    "describe_volume",
    "input_differences",
    "input_path",
    "output_options",
    "provenance_file",
    "result_options",
    "result_settings",
    "settings_differences",
]

_SETTINGS = ("mri_seg_version", "checkpoint_sha256", "ensemble_sha256", "int8_sha256", "quality_sha256", "options")
_SECTIONS = ("network", "preprocessing", "inferer", "postprocessing")
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:::|#)\w+)*)")

# Options to which the sections refer, but which do not change results: weights count by their content, and the others
# only say where and in what pieces results are computed, or what is refused.
_NEUTRAL = {
    *("bundle_root", "checkpoint", "ensemble", "float_weights"),
    *("device", "slices_per_batch", "max_voxels", "allow_non_axial"),
}

_FILES = {
    "input": "image",
    "sequences": "sequences",
    "reference": "label",
    "prediction": "prediction",
}  # keys of a case by their names in records

_NOTHING = object()

_SHOWN = 12  # characters of a SHA-256 in messages


def provenance_file(folder: PathLike | str, case: str) -> Path:
    """Path of the provenance record in the folder of a case."""
    return Path(folder, f"{case}_provenance.json")


def result_options(sections: Sequence[str] = _SECTIONS) -> dict[str, Any]:
    """Find the options on which results depend, with their values in the config whose expression calls this.

    They are found by following the references from those parts of the config that compute results. A part that is not a
    plain value, such as ``postprocessing``, is given as the SHA-256 of its text.

    Args:
        sections: parts of the config that compute results; nested ones with ``#``, as in ``validate#inferer``.

    Returns:
        values by name, sorted; ready for JSON.

    Raises:
        RuntimeError: when no config is being evaluated.
    """
    parser = evaluated_parser()
    reached: dict[str, Any] = {}
    sections = [name.replace("::", "#") for name in sections]
    waiting = list(sections)
    while waiting:
        name = waiting.pop().replace("::", "#")
        if name not in reached and (part := _part(parser.get(), name)) is not _NOTHING:
            reached[name] = part
            waiting += _REFERENCE.findall(_text(part))
    return {
        name: _text_digest(value) if name in sections else _plain(parser.get_parsed_content(name), value)
        for name, value in sorted(reached.items())
        if name not in _NEUTRAL
    }


def result_settings(
    checkpoint: PathLike | str | None,
    ensemble: Sequence[PathLike | str] | PathLike | str = (),
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect everything except the input on which results depend: version, SHA-256 of the weights, and options.

    Args:
        checkpoint: the weights.
        ensemble: further weights.
        options: result of :py:func:`result_options`.

    Returns:
        ``mri_seg_version``, ``checkpoint_sha256``, ``ensemble_sha256`` (a list), ``int8_sha256`` (of the files of 8-bit
        weights, if the runtime uses them) and ``options``; ``checkpoint_version`` and ``checkpoint_date``, version and
        date of the training of the weights, if these have a record of it.

    Raises:
        FileNotFoundError: when a file of weights does not exist.
    """
    weights = [weights_file(path) for path in (*ensure_tuple(checkpoint or ()), *ensure_tuple(ensemble))]
    sums = [sha256(path) for path in weights]
    settings: dict[str, Any] = {
        "mri_seg_version": mri_seg.__version__,
        "checkpoint_sha256": sums.pop(0) if checkpoint else None,
        "ensemble_sha256": sums,
    }
    if checkpoint:
        settings |= {f"checkpoint_{key}": value for key, value in weights_origin(weights[0]).items()}
    if options and options.get("runtime") == "openvino-int8":
        files = [part for path in weights for part in (int8_file(path), int8_file(path).with_suffix(".bin"))]
        settings["int8_sha256"] = [sha256(part) for part in files if part.is_file()]
    return {**settings, "options": json.loads(json.dumps(dict(options or {}), default=str))}


def case_provenance(
    case: Mapping[str, Any], settings: Mapping[str, Any], flags: Sequence[Mapping[str, str]], described: Mapping
) -> dict[str, Any]:
    """Make the provenance record of a case, ready for JSON.

    Args:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        settings: result of :py:func:`result_settings`.
        flags: flags of the case.
        described: result of :py:func:`describe_input`.
    """
    found: dict[str, Any] = {"case": case["case"], "source": case.get("source", "")}
    found |= {key: case[key] for key in ("series_uid", "series_description") if key in case}
    return {**found, **described, "flags": list(flags), **settings}


def describe_input(case: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the files of a case so that they can be recognized later by their content, wherever they are.

    Args:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`, or one whose image was in memory, with the result of
            :py:func:`describe_volume` under ``described``.

    Returns:
        for ``input`` and, if there are any, ``sequences`` and ``reference``: ``path``, the file or the folder of all
        files; ``files``, their names in it; ``sha256`` of their content; and ``stat``, the SHA-256 of their paths,
        sizes and modification times, by which unchanged files are recognized without reading them.

    Raises:
        OSError: when a file cannot be read.
    """
    if "described" in case:
        return case["described"]
    ordered = _is_ordered(case)
    return {name: _describe(files, ordered) for name, files in _files_of(case).items()}


def describe_volume(name: str, voxels: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """Describe an image that was in memory like :py:func:`describe_input`, with no files.

    Args:
        name: what the image is called, in place of a path.
        voxels: its voxels as read, of any shape.
        affine: its affine ``(4, 4)``.
    """
    digest = hashlib.sha256(f"{voxels.shape} {voxels.dtype} {affine.tolist()}\n".encode())
    digest.update(voxels.tobytes())
    return {"input": {"path": name, "files": [], "sha256": digest.hexdigest(), "stat": ""}}


def input_path(case: Mapping[str, Any]) -> str:
    """Path of the file of a case, or of the folder of all its files; the name of an image that was in memory."""
    return case["described"]["input"]["path"] if "described" in case else str(_root(_paths(case["image"])))


def output_options(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of the recorded outputs that change only one output; records of earlier versions have none.

    Args:
        recorded: result of :py:func:`case_provenance`.
    """
    former = {"seg_empty_frames": False} if recorded.get("source") == "dicom" else {}
    return recorded.get("output_options", former)


def settings_differences(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """List the differences between the settings of results and those of this run, each with both values."""
    found = []
    for name in _SETTINGS:
        old, new = recorded.get(name), settings.get(name)
        if name == "options":
            old, new = old or {}, new or {}
            keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            found += [f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}" for key in keys]
        elif old != new:
            found.append(f"{name} was {_shown(old)}, is {_shown(new)}")
    made, now = output_options(recorded), settings.get("output_options", {})
    both = sorted(key for key in made.keys() & now.keys() if made[key] != now[key])
    return found + [f"{key} was {_shown(made[key])}, is {_shown(now[key])}" for key in both]


def input_differences(recorded: Mapping[str, Any], case: Mapping[str, Any]) -> list[str]:
    """List the differences between the input files of results and those of a case, each with both files.

    The content of files is read only if they were moved or modified.

    Args:
        recorded: result of :py:func:`case_provenance` for the results.
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.

    Raises:
        OSError: when a file cannot be read.
    """
    files, ordered, found = _files_of(case), _is_ordered(case), []
    for name in _FILES:
        old, new = recorded.get(name), files.get(name)
        if old and new and old["stat"] == _stat_sum(_paths(new), ordered):
            continue
        described = _describe(new, ordered) if new else case.get("described", {}).get(name)
        if (old and old["sha256"]) != (described and described["sha256"]):
            found.append(f"{name} was {_shown_files(old)}, is {_shown_files(described)}")
    return found


def _describe(files: Sequence[PathLike | str], ordered: bool) -> dict[str, Any]:
    paths = _paths(files)
    root = _root(paths)
    return {
        "path": str(root),
        "files": [path.relative_to(root).as_posix() if len(paths) > 1 else path.name for path in paths],
        "sha256": _content_sum(paths, ordered),
        "stat": _stat_sum(paths, ordered),
    }


def _paths(files: Sequence[PathLike | str]) -> list[Path]:
    return [Path(file).absolute() for file in files]


def _root(paths: Sequence[Path]) -> Path:
    """The file, or the common folder of several files."""
    return paths[0] if len(paths) == 1 else Path(os.path.commonpath([path.parent for path in paths]))


def _files_of(case: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: list(ensure_tuple(case[key])) for name, key in _FILES.items() if case.get(key)}


def _is_ordered(case: Mapping[str, Any]) -> bool:
    return case.get("source") != "dicom"  # DICOM images give their positions


def _content_sum(paths: Sequence[Path], ordered: bool) -> str:
    return _sum([":".join(map(sha256, file_parts(path))) for path in paths], ordered)


def _stat_sum(paths: Sequence[Path], ordered: bool) -> str:
    stats = [(part, part.stat()) for path in paths for part in file_parts(path)]
    return _sum([f"{part} {stat.st_size} {stat.st_mtime_ns}" for part, stat in stats], ordered)


def _sum(texts: list[str], ordered: bool) -> str:
    return hashlib.sha256("\n".join(texts if ordered else sorted(texts)).encode()).hexdigest()


def _part(config: Any, name: str) -> Any:
    """A part of a config, such as ``validate#inferer``; ``_NOTHING`` if there is none."""
    for key in name.split("#"):
        config = config.get(key, _NOTHING) if isinstance(config, dict) else _NOTHING
    return config


def _text(part: Any) -> str:
    return json.dumps(part, sort_keys=True, default=lambda value: type(value).__qualname__)


def _text_digest(part: Any) -> str:
    return "sha256:" + hashlib.sha256(_text(part).encode()).hexdigest()


def _plain(value: Any, raw: Any) -> Any:
    """A value as JSON returns it, with "true" and "false" as booleans; the digest of its text if it is not plain."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return _text_digest(raw) if isinstance(raw, dict) else json.loads(json.dumps(value))
    except TypeError:
        return _text_digest(raw)


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"(sha256:)?[0-9a-f]{64}", value):
        return value.removeprefix("sha256:")[:_SHOWN]
    return json.dumps(value)


def _shown_files(described: Mapping[str, Any] | None) -> str:
    if described is None:
        return "none"
    count = len(described["files"])
    if not count:
        return f"{described['path']} (SHA-256 {_shown(described['sha256'])})"
    return f"{described['path']} ({count} file{'s' * (count > 1)}, SHA-256 {_shown(described['sha256'])})"
