"""Where a run took place, in words: versions, processor, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Settings, interleave

LIBRARIES = (
    "torch", "numpy", "tensorly", "torchattacks", "torch-pruning", "onnx", "onnxruntime", "openvino"
)  # fmt: skip
SIDE = 1024


def describe(settings: Settings) -> dict[str, Any]:
    """Seed, commit, versions and hardware; neither host names nor paths."""
    return {
        "seed": settings.seed,
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "seconds_per_comparison": settings.seconds,
        "images": "random and digits" if settings.data is None else "random and CIFAR-10",
        "sgemm_gflops": sgemm_gflops(),
    }


def load_average() -> float:
    """Processes that ran or waited over the last minute: above the cores, the machine was busy."""
    return round(os.getloadavg()[0], 1)


def hardware() -> str:
    """The processor, its cores and its vector instructions, in words."""
    model = _field("/proc/cpuinfo", "model name") or platform.processor()
    capability = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {capability}, {gpu}"


def commit() -> str:
    """The commit of the code, marked where files differ from it."""
    here = Path(__file__).parent
    found = _git(here, "rev-parse", "--short=12", "HEAD")
    changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    return (found or "unknown") + (" with changes" if changed else "")


def sgemm_gflops() -> float:
    """GFLOP/s of a float32 product of square matrices on one thread, the machine's peak."""
    timing = interleave({"sgemm": sgemm()}, seconds=2.0, warmup=3)["sgemm"]
    return gflops(2 * SIDE**3, timing.median_ms)


def sgemm() -> Any:
    """A candidate of 2 * SIDE^3 floating-point operations."""
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return lambda: left @ right


def gflops(operations: float, milliseconds: float) -> float:
    """Operations per nanosecond."""
    return operations / milliseconds / 1e6


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
