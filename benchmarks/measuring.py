"""Shared parts of the benchmarks: machine, limits, alternating repeats, timing of parts, processes, tables and JSON."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from mri_seg.config.provenance import versions
from mri_seg.inference.runtimes import openvino

ROOT = Path(__file__).resolve().parent.parent
Name = TypeVar("Name")

_CHILD = """
import json, os, time
options = json.loads(os.environ["OPTIONS"])
{}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found["memory_gib"] = int(status["VmHWM"].split()[0]) / 2**20  # getrusage's begins with what the parent had
print(json.dumps(found))
"""


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, versions, threads and load."""
    import importlib.metadata

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = dict(versions())
    for package in ("openvino", "nncf", "onnxruntime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {
        "processor": next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg(),
        "versions": found,
    }


def in_turn(contestants: Mapping[Name, Callable[[], Any]], repeats: int) -> dict[Name, list[float]]:
    """Seconds of each contestant in alternating turns; the first turn is not counted."""
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def synchronize() -> None:
    """Wait until the GPU, if there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Parts:
    """Seconds of the parts of a run: a nested part counts only for itself; time outside all parts counts as the rest.

    On a GPU, events between its kernels measure the parts, so that timing does not make it wait.

    Args:
        rest: name of the rest.
    """

    def __init__(self, rest: str) -> None:
        self.rest = rest
        self.begin()

    def begin(self) -> None:
        """Reset all parts, and start with the rest."""
        self._open, self._marks = [self.rest], [("", self._now())]

    def timed(self, name: str, function: Callable) -> Callable:
        """Wrap a function so that its time counts for this part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._mark()
            self._open.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self._mark()
                self._open.pop()

        return call

    def seconds(self) -> dict[str, float]:
        """Seconds of each part since the beginning."""
        self._mark()
        synchronize()
        found: dict[str, float] = defaultdict(float)
        for (_, began), (name, ended) in itertools.pairwise(self._marks):
            found[name] += ended - began if isinstance(ended, float) else began.elapsed_time(ended) / 1000
        return dict(found)

    def _mark(self) -> None:
        self._marks.append((self._open[-1], self._now()))

    @staticmethod
    def _now() -> Any:
        if not torch.cuda.is_available():
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def traffic(network: torch.nn.Module, image: torch.Tensor, size: int) -> float:
    """Minimum memory traffic in bytes: each convolution reads its input and weights once and writes its output once.

    Args:
        network: the network.
        image: a batch ``(B, C, H, W)``.
        size: bytes of a number.
    """
    counted = []

    def count(module: torch.nn.modules.conv._ConvNd, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        counted.append(inputs[0].numel() + output.numel() + module.weight.numel())

    kinds = (torch.nn.modules.conv._ConvNd,)
    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, kinds)]
    network(image)
    for hook in hooks:
        hook.remove()
    return float(sum(counted) * size)


def avx2(folder: Path) -> dict[str, str]:
    """Environment in which a process has no more than AVX2: a newer processor simulates an older one.

    Args:
        folder: where a library is made that hides the rest; it needs a C compiler, Linux, and an x86-64 processor that
            can trap CPUID.
    """
    library = folder / "avx2.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", str(ROOT / "benchmarks" / "avx2.c"), "-o", str(library)], check=True
    )
    return {"LD_PRELOAD": str(library)}


def in_process(code: str, environment: Mapping[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """Run code in a separate process: it reads ``options`` and sets ``found``, to which its peak memory is added.

    Args:
        code: the code.
        environment: further environment variables.
        options: what it reads.
    """
    environment = {
        **os.environ,
        **(environment or {}),
        "OPTIONS": json.dumps(options, default=str),
        "BEGAN": str(time.time()),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
    }
    command = [sys.executable, "-W", "ignore", "-c", _CHILD.replace("{}", code, 1)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{options}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def limits(repeats: int) -> dict[str, float]:
    """Peak rates of the machine: 10^9 operations per second of matrix products by type, and GB/s of a copy.

    Of the GPU, where there is one. Products are PyTorch's and, on a CPU where it is installed, OpenVINO's; the faster
    counts.
    """
    gpu = torch.cuda.is_available()
    device, size = ("cuda", 8192) if gpu else ("cpu", 2048)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions have it
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    small = torch.randint(-100, 100, (size, size), dtype=torch.int8, device=device)
    source = torch.zeros(2**26, device=device)
    target, c, d = torch.empty_like(source), a.bfloat16(), b.bfloat16()
    work = {
        "float32": [lambda: a @ b],
        "bfloat16": [lambda: c @ d],
        "int8": [lambda: torch._int_mm(small, small)],
        "copy": [lambda: target.copy_(source)],
    }
    try:
        ov = None if gpu else openvino()
    except ImportError:
        ov = None
    if ov is not None:
        work["float32"].append(_openvino_product(ov, a.numpy(), b.numpy(), quantised=False))
        work["int8"].append(_openvino_product(ov, a.numpy(), b.numpy(), quantised=True))
    units = {name: 2 * source.nbytes if name == "copy" else 2 * size**3 for name in work}
    contestants = {f"{name} {n}": run for name, runs in work.items() for n, run in enumerate(runs)}
    fastest = {name: min(seconds) for name, seconds in in_turn(contestants, repeats).items()}
    return {name: units[name] / min(t for key, t in fastest.items() if key.split()[0] == name) / 1e9 for name in work}


def _openvino_product(ov: Any, a: np.ndarray, b: np.ndarray, *, quantised: bool) -> Callable[[], Any]:
    from openvino import opset13

    def eight_bits(values: Any) -> Any:
        low, high = np.float32(-3), np.float32(3)
        return opset13.fake_quantize(values, low, high, low, high, 256) if quantised else values

    image = opset13.parameter(a.shape, np.float32)
    product = opset13.matmul(eight_bits(image), eight_bits(opset13.constant(b)), False, False)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = ov.Core().compile_model(ov.Model([product], [image]), "CPU", settings).create_infer_request()
    return lambda: request.infer([a], share_inputs=True, share_outputs=True)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median, with the smallest and the largest."""
    values = list(values)
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the results as JSON, if a file is given."""
    if path:
        path.write_text(json.dumps(content, indent=4, default=str) + "\n")
