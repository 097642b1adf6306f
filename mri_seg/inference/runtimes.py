"""Run the network by another runtime than PyTorch: OpenVINO, in float32 or in 8-bit integers, or ONNX Runtime."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from monai.inferers import Inferer

from mri_seg.config.weights import check_sum
from mri_seg.inference.inferers import as_module, bfloat16_is_fast
from mri_seg.utils.compat import changes_of

__all__ = ["DIGEST", "RUNTIMES", "RuntimeInferer", "int8_file", "openvino", "openvino_model", "weights_digest"]

logger = logging.getLogger(__name__)

DIGEST = ("mri_seg", "weights_digest")
"""Where a file of 8-bit weights says of which float weights it was made: see :py:func:`weights_digest`."""

_MULTIPLE = 32  # sides of the image that conversions run the network on: small, and a multiple of what networks want

Compiled = Callable[[torch.Tensor], torch.Tensor]


class RuntimeInferer(Inferer):
    """Call another inferer with the network compiled for a runtime; the network's weights and results stay PyTorch's.

    Other runtimes than ``torch`` compute on the CPU, with as many threads as PyTorch has when this is made. A network
    is compiled when it is first called and whenever its weights were changed since.

    Args:
        inferer: the inferer to call; it calls the network on slices ``(B, C, H, W)``.
        runtime: one of :py:data:`RUNTIMES`.
        checkpoints: files of the float weights of the networks; beside each, ``openvino-int8`` looks for its 8-bit
            weights (:py:func:`int8_file`). Sequences in it count as their items.

    Raises:
        ValueError: when there is no such runtime.
        ImportError: when its package is not installed.
    """

    def __init__(
        self, inferer: Inferer, runtime: str = "torch", *, checkpoints: Sequence[PathLike | str | Sequence] = ()
    ) -> None:
        super().__init__()
        if runtime not in RUNTIMES:
            raise ValueError(f"--runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}.")
        _require(runtime)
        self.inferer = inferer
        self.runtime = runtime
        self.checkpoints = list(_paths(checkpoints))
        self.threads = torch.get_num_threads()
        self._compiled: WeakKeyDictionary[torch.nn.Module, _Known] = WeakKeyDictionary()

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Infer with the compiled network."""
        if self.runtime != "torch":
            network = self._compile(as_module(network))
        return self.inferer(inputs, network, *args, **kwargs)

    def _compile(self, network: torch.nn.Module) -> Compiled:
        known = self._compiled.get(network)
        if known and known.version == _version(known.weights):
            return known.call
        with torch.autocast("cpu", enabled=False):  # it would be converted as a part of the network
            call = RUNTIMES[self.runtime].compile(network, self.checkpoints, self.threads)
        weights = [*network.parameters(), *network.buffers()]
        self._compiled[network] = _Known(weights, _version(weights), call)
        return call


class _Known(NamedTuple):
    """A compiled network, and the weights it was compiled with."""

    weights: list[torch.Tensor]
    version: int
    call: Compiled


class Runtime(NamedTuple):
    """A runtime: what makes a function of slices of a network, for so many threads; its package; the extra with it."""

    compile: Callable[[torch.nn.Module, Sequence[Path], int], Compiled]
    package: str
    extra: str


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of weights: of their names, shapes and values, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def int8_file(checkpoint: PathLike | str) -> Path:
    """Where the 8-bit weights of a checkpoint are: ``model.int8.xml`` for ``model.pt``, with a ``.bin`` beside it."""
    return Path(checkpoint).with_suffix(".int8.xml")


def openvino() -> ModuleType:
    """Import OpenVINO, without the package by which it reports its use over the internet.

    Raises:
        ImportError: when it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so Python marks what is not there
    # OpenVINO takes its stub instead: clinics want no such reports.
    import openvino

    return openvino


def openvino_model(network: torch.nn.Module) -> Any:
    """Convert a network to an OpenVINO model of any number and size of slices.

    Args:
        network: takes slices ``(B, C, H, W)``.
    """
    return openvino().convert_model(_traced(network), input=[(-1, _channels(network), -1, -1)])


def _compile_openvino(network: torch.nn.Module, checkpoints: Sequence[Path], threads: int) -> Compiled:
    return _openvino_callable(openvino_model(network), threads)


def _compile_int8(network: torch.nn.Module, checkpoints: Sequence[Path], threads: int) -> Compiled:
    wanted, found = weights_digest(network.state_dict()), []
    for file in map(int8_file, checkpoints):
        if not file.is_file():
            found.append(f"{file}: no such file")
            continue
        for part in (file, file.with_suffix(".bin")):
            check_sum(part)
        model = openvino().Core().read_model(file)
        if model.has_rt_info(list(DIGEST)) and model.get_rt_info(list(DIGEST)).value == wanted:
            logger.info("Loaded the 8-bit weights %s", file)
            precision = "bf16" if bfloat16_is_fast("cpu") else "f32"  # of layers kept in float
            return _openvino_callable(model, threads, precision)
        found.append(f"{file}: made of other weights than those in use")
    raise ValueError(
        f"runtime openvino-int8: {'; '.join(found) or 'no checkpoint is given'}. "
        "Make 8-bit weights of these by bundle/configs/quantize.json, or take another runtime."
    )


def _openvino_callable(model: Any, threads: int, precision: str = "f32") -> Compiled:
    # Compiling takes a fraction of a second: a cache on disk would gain nothing.
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    request = openvino().Core().compile_model(model, "CPU", settings).create_infer_request()

    def call(slices: torch.Tensor) -> torch.Tensor:
        (logits,) = request.infer([_array(slices)], share_inputs=True).values()
        return torch.from_numpy(logits).to(slices.device)

    return call


def _compile_onnxruntime(network: torch.nn.Module, checkpoints: Sequence[Path], threads: int) -> Compiled:
    import onnxruntime

    sizes = {0: "batch", 2: "rows", 3: "columns"}
    names: dict[str, Any] = {
        "input_names": ["image"],
        "output_names": ["logits"],
        "dynamic_axes": {"image": sizes, "logits": sizes},
    }
    model = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's newer exporter gives the same model, but takes a minute
        torch.onnx.export(
            _on_cpu(network),
            (_example(network),),
            model,  # type: ignore[arg-type]  # a stream is taken too, where dynamo is off
            dynamo=False,
            **names,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.getvalue(), options, providers=["CPUExecutionProvider"])

    def call(slices: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(None, {"image": _array(slices)})
        return torch.from_numpy(logits).to(slices.device)

    return call


RUNTIMES = {
    "torch": Runtime(lambda network, checkpoints, threads: network, "torch", ""),
    "openvino": Runtime(_compile_openvino, "openvino", "openvino"),
    "openvino-int8": Runtime(_compile_int8, "openvino", "openvino"),
    "onnxruntime": Runtime(_compile_onnxruntime, "onnxruntime", "export"),
}
"""The runtimes by the names that the option ``runtime`` takes."""


def _require(runtime: str) -> None:
    package, extra = RUNTIMES[runtime].package, RUNTIMES[runtime].extra
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'--runtime {runtime}: needs {package}. Install the extra: pip install -e ".[{extra}]"')


def _paths(paths: PathLike | str | Sequence) -> Iterable[Path]:
    if isinstance(paths, (str, PathLike)):
        yield Path(paths)
    else:
        for path in paths:
            yield from _paths(path)


def _version(weights: Iterable[torch.Tensor]) -> int:
    """A number that grows whenever weights are changed in place."""
    return sum(0 if weight.is_inference() else changes_of(weight) for weight in weights)


def _on_cpu(network: torch.nn.Module) -> torch.nn.Module:
    # PyTorch's annotations leave the memory format out.
    return copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _channels(network: torch.nn.Module) -> int:
    return next(network.parameters()).shape[1]  # of the first convolution


def _example(network: torch.nn.Module) -> torch.Tensor:
    return torch.zeros(1, _channels(network), _MULTIPLE, _MULTIPLE)


@torch.no_grad()
def _traced(network: torch.nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sides were looked at; they may differ all the same
        return torch.jit.freeze(torch.jit.trace(_on_cpu(network), _example(network), check_trace=False))


def _array(slices: torch.Tensor) -> np.ndarray:
    return torch.as_tensor(slices).detach().cpu().float().contiguous().numpy()
