"""What programs that measure inference share: the machine, its limits, repeats in turn, tables and JSON."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mri_seg.record import versions
from mri_seg.runtimes import openvino


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
        "load": os.getloadavg(),
        "versions": found,
    }


def in_turn(contestants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contestant, which take turns; a first turn is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def limits(repeats: int, size: int = 2048) -> dict[str, float]:
    """What the machine gives at best: 10^9 operations a second of matrix products by type, GB/s of a copy.

    Products are PyTorch's and, where it is installed, OpenVINO's; the faster counts.
    """
    a, b = torch.randn(size, size), torch.randn(size, size)
    small, source = torch.randint(-100, 100, (size, size), dtype=torch.int8), torch.zeros(2**26)
    target, c, d = torch.empty_like(source), a.bfloat16(), b.bfloat16()
    work = {
        "float32": [lambda: a @ b],
        "bfloat16": [lambda: c @ d],
        "int8": [lambda: torch._int_mm(small, small)],
        "copy": [lambda: target.copy_(source)],
    }
    try:
        ov = openvino()
    except ImportError:
        pass
    else:
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
    """Write what was measured as JSON, where a file is asked for."""
    if path:
        path.write_text(json.dumps(content, indent=4, default=str) + "\n")
