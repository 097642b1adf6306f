"""Run the network with another runtime than PyTorch: OpenVINO in float32 or 8-bit integers, or ONNX Runtime."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
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

from mri_seg.config.preprocessing import check_record, recorded_by
from mri_seg.config.weights import check_sum
from mri_seg.inference.inferers import as_module, bfloat16_is_fast
from mri_seg.utils.compat import changes_of

__all__ = [
    "DIGEST",
    "PREPROCESSING",
    "RUNTIMES",
    "RuntimeInferer",
    "int8_file",
    "openvino",
    "openvino_model",
    "weights_digest",
]

logger = logging.getLogger(__name__)

DIGEST = ("mri_seg", "weights_digest")
"""Key in a file of 8-bit weights for the digest of their float weights; see :py:func:`weights_digest`."""

PREPROCESSING = ("mri_seg", "preprocessing")
"""Key in a file of 8-bit weights for the record of their preprocessing, as JSON; see
:py:mod:`mri_seg.config.preprocessing`."""

_MULTIPLE = 32  # sides of the example image for conversions: small, and a multiple that networks accept

Compiled = Callable[[torch.Tensor], torch.Tensor]


class RuntimeInferer(Inferer):
    """Call another inferer with the network compiled for a runtime; weights and results are still PyTorch tensors.

    All runtimes except ``torch`` run on the CPU, with the number of threads that PyTorch has at construction. A network
    is compiled when it is first called, and again whenever its weights have changed.

    Args:
        inferer: the inferer to call; it calls the network on slices ``(B, C, H, W)``.
        runtime: one of :py:data:`RUNTIMES`.
        checkpoints: files of the float weights of the networks, which may be nested in sequences; ``openvino-int8``
            looks for 8-bit weights beside each (:py:func:`int8_file`).

    Raises:
        ValueError: when the runtime is unknown.
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
        self._compiled: WeakKeyDictionary[torch.nn.Module, _CompiledNetwork] = WeakKeyDictionary()

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Infer with the compiled network."""
        if self.runtime != "torch":
            network = self._compile(as_module(network))
        return self.inferer(inputs, network, *args, **kwargs)

    def _compile(self, network: torch.nn.Module) -> Compiled:
        compiled = self._compiled.get(network)
        if compiled and compiled.version == _version(compiled.weights):
            return compiled.call
        with torch.autocast("cpu", enabled=False):  # otherwise, autocast would become a part of the network
            call = RUNTIMES[self.runtime].compile(network, self.checkpoints, self.threads)
        weights = [*network.parameters(), *network.buffers()]
        self._compiled[network] = _CompiledNetwork(weights, _version(weights), call)
        return call


class _CompiledNetwork(NamedTuple):
    """A compiled network, with the weights with which it was compiled."""

    weights: list[torch.Tensor]
    version: int
    call: Compiled


class Runtime(NamedTuple):
    """A runtime: a function that compiles a network for a number of threads, its package, and the extra that has it."""

    compile: Callable[[torch.nn.Module, Sequence[Path], int], Compiled]
    package: str
    extra: str


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, shapes and values of weights; it does not depend on the file."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def int8_file(checkpoint: PathLike | str) -> Path:
    """Path of the 8-bit weights of a checkpoint: ``model.int8.xml`` for ``model.pt``, with a ``.bin`` beside it."""
    return Path(checkpoint).with_suffix(".int8.xml")


def openvino() -> ModuleType:
    """Import OpenVINO without its telemetry package, which reports its use over the internet.

    Raises:
        ImportError: when it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # marks it as missing
    # OpenVINO then uses its stub, so no reports leave a clinic.
    import openvino

    return openvino


def openvino_model(network: torch.nn.Module) -> Any:
    """Convert a network to an OpenVINO model for any number and size of slices.

    Args:
        network: network for slices ``(B, C, H, W)``.
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
            if model.has_rt_info(list(PREPROCESSING)):
                record = json.loads(model.get_rt_info(list(PREPROCESSING)).value)
                check_record(str(file), record, recorded_by(network))
            logger.info("Loaded the 8-bit weights %s", file)
            precision = "bf16" if bfloat16_is_fast("cpu") else "f32"  # for layers that stay in floating point
            return _openvino_callable(model, threads, precision)
        found.append(f"{file}: was made from other weights than those in use")
    raise ValueError(
        f"runtime openvino-int8: {'; '.join(found) or 'no checkpoint is given'}. "
        "Make 8-bit weights from the float weights with bundle/configs/quantize.json, or choose another runtime."
    )


def _openvino_callable(model: Any, threads: int, precision: str = "f32") -> Compiled:
    # Compiling takes a fraction of a second, so a cache on disk is not worthwhile.
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
"""The runtimes, by their names in the option ``runtime``."""


def _require(runtime: str) -> None:
    package, extra = RUNTIMES[runtime].package, RUNTIMES[runtime].extra
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'--runtime {runtime}: needs {package}. Install the extra: pip install "mri_seg[{extra}]"')


def _paths(paths: PathLike | str | Sequence) -> Iterable[Path]:
    if isinstance(paths, (str, PathLike)):
        yield Path(paths)
    else:
        for path in paths:
            yield from _paths(path)


def _version(weights: Iterable[torch.Tensor]) -> int:
    """A number that increases whenever weights are changed in place."""
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
        warnings.simplefilter("ignore")  # tracing warns that sides are checked; other sides still work
        return torch.jit.freeze(torch.jit.trace(_on_cpu(network), _example(network), check_trace=False))


def _array(slices: torch.Tensor) -> np.ndarray:
    return torch.as_tensor(slices).detach().cpu().float().contiguous().numpy()
