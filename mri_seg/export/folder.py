"""Export a bundle's weights with everything that belongs to them: model card, metadata, configs, license and sums."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser, ckpt_export, onnx_export

from mri_seg.config.weights import CheckpointLoader, write_sums

__all__ = ["FORMATS", "export_bundle"]

FORMATS = ("ts", "onnx")
"""Formats of the network that run without this package: TorchScript and ONNX."""

_TOLERANCE = 1e-5  # maximum difference between the logits of an exported network and the original
_SIZES = ((2, 2, 3), (1, 3, 4))  # slices, and rows and columns in multiples, on which they are compared
_NEEDED = ("configs/inference.json", "configs/metadata.json", "docs/README.md", "LICENSE")


def export_bundle(
    bundle_root: PathLike | str,
    output_dir: PathLike | str,
    *,
    checkpoint: PathLike | str | None = None,
    formats: Sequence[str] = ("ts",),
) -> Path:
    """Export a bundle to a folder for others; a partly written folder is never left.

    The folder has the weights as ``models/model.pt`` and in the requested ``formats``, ``SHA256SUMS`` of all of them,
    and the configs, metadata, model card and license of the bundle. The TorchScript file also contains the metadata and
    ``inference.json``. The ONNX file accepts any number and size of slices.

    Args:
        bundle_root: the bundle.
        output_dir: the folder to write; it must not exist, or be empty.
        checkpoint: weights of the network that ``inference.json`` defines; by default those of the bundle.
        formats: one or more of :py:data:`FORMATS`.

    Returns:
        the folder.

    Raises:
        FileNotFoundError: when a part of the bundle or the weights are missing.
        FileExistsError: when the folder is not empty.
        ImportError: when a package that a format needs is not installed.
        ValueError: when a format is unknown, when the weights are damaged or belong to another network, or when an
            exported network does not give the logits of the original.
    """
    bundle, output_dir = Path(bundle_root), Path(output_dir)
    for name in _NEEDED:
        if not (bundle / name).is_file():
            raise FileNotFoundError(f"{bundle / name}: no such file. Give the folder of a bundle.")
    _check_formats(formats)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{output_dir}: exists already. Give the path of a new folder, or remove it.")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=output_dir.parent) as unfinished:
        folder = Path(unfinished, output_dir.name)
        ignored = shutil.ignore_patterns("*.py", "__pycache__", ".*")
        for part in ("configs", "docs"):
            shutil.copytree(bundle / part, folder / part, ignore=ignored)
        shutil.copy(bundle / "LICENSE", folder)
        _write_weights(folder, Path(checkpoint) if checkpoint else bundle / "models" / "model.pt", formats)
        folder.replace(output_dir)
    return output_dir


def _check_formats(formats: Sequence[str]) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"formats: {', '.join(unknown)} is not known; expected one or more of {', '.join(FORMATS)}.")
    missing = [name for name in ("onnx", "onnxruntime") if "onnx" in formats and not importlib.util.find_spec(name)]
    if missing:
        raise ImportError(
            f'formats: onnx needs {" and ".join(missing)}. Install the extra: pip install "mri_seg[export]"'
        )


def _write_weights(folder: Path, checkpoint: Path, formats: Sequence[str]) -> None:
    """Write ``models``: the weights, the network in each format, and their sums."""
    config, models = folder / "configs" / "inference.json", folder / "models"
    parser = ConfigParser(ConfigParser.load_config_file(config))
    parser["device"] = "cpu"
    network = parser.get_parsed_content("network_def").eval()
    CheckpointLoader(checkpoint, {"model": network})(Engine(lambda engine, batch: None))
    models.mkdir()
    shutil.copyfile(checkpoint, models / "model.pt")  # a copy, so that its SHA-256 is the one in evaluations
    named = "model" in torch.load(models / "model.pt", map_location="cpu", weights_only=True)

    channels = next(network.parameters()).shape[1]
    multiple = getattr(network, "multiple", 32)  # of every side of the input; MONAI's networks do not say theirs
    common: dict[str, Any] = {
        "net_id": "network_def",
        "ckpt_file": str(models / "model.pt"),
        "key_in_ckpt": "model" if named else "",
        "meta_file": str(folder / "configs" / "metadata.json"),
        "config_file": str(config),
    }
    if "ts" in formats:
        ckpt_export(**common, filepath=str(models / "model.ts"))
        _compare(models / "model.ts", network, torch.jit.load(models / "model.ts"), channels, multiple)
    if "onnx" in formats:
        sizes = {0: "slices", 2: "rows", 3: "columns"}
        names = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": sizes, "pred": sizes}}
        onnx_export(
            **common,
            filepath=str(models / "model.onnx"),
            input_shape=[1, channels, 2 * multiple, 2 * multiple],
            use_trace=True,
            converter_kwargs={**names, "dynamo": False},
        )
        _compare(models / "model.onnx", network, partial(_run_onnx, models / "model.onnx"), channels, multiple)
    write_sums(models)


def _run_onnx(file: Path, image: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": np.asarray(image)})
    return torch.from_numpy(logits)


def _compare(file: Path, network: Callable, exported: Callable, channels: int, multiple: int) -> None:
    """Check that an exported network gives the logits of the original."""
    generator = torch.Generator().manual_seed(0)
    for slices, rows, columns in _SIZES:
        image = torch.randn(slices, channels, rows * multiple, columns * multiple, generator=generator)
        with torch.no_grad():
            difference = (network(image) - exported(image)).abs().max().item()
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"{file.name}: its logits are off by {difference:.2g}, expected {_TOLERANCE} or less. "
                "Export with the versions of PyTorch and ONNX in metadata.json."
            )
