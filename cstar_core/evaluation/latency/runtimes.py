"""The runtimes in which networks are timed: eager PyTorch, ONNX Runtime, and OpenVINO if there.

All on the CPU in float32 with the same number of threads, that of torch; none may keep a thread
spinning while another is timed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from cstar_core.evaluation.latency.speed import RuntimeLatencies
from cstar_core.evaluation.latency.timing import (
    Call,
    Latency,
    eager_calls,
    interleaved,
    random_images,
)

TORCH, ONNXRUNTIME, OPENVINO = "torch", "onnxruntime", "openvino"
SECONDS = 5.0


def measure_runtimes(
    models: Mapping[str, nn.Module],
    onnx_files: Mapping[str, Path],
    shape: tuple[int, int, int],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    repeats: int = 50,
    warmup: int = 5,
    seconds: float = SECONDS,
) -> RuntimeLatencies:
    """Time every model in every runtime on random images of `shape` (C, H, W).

    `models` on the CPU; `onnx_files` has the same networks under the same names, with input
    "images" and a dynamic batch. Models and runtimes take turns within every repeat. All
    batch sizes together are measured for about `seconds`, though each at least five times after
    one round of warming up; loading is not counted. Runtimes that cannot be had are skipped, with
    the reason. ValueError unless repeats >= 2 and warmup >= 0.
    """
    skipped = _skipped(models, onnx_files)
    files = {name: path for name, path in onnx_files.items() if name in models}
    found: dict[str, dict[str, dict[str, Latency]]] = {}
    left = seconds
    for index, batch_size in enumerate(batch_sizes):
        images = random_images(batch_size, shape)
        with ExitStack() as stack:
            eager = stack.enter_context(eager_calls(models, images))
            calls = {(TORCH, name): call for name, call in eager.items()}
            calls |= _exported_calls(files, images, skipped)
            share = left / (len(batch_sizes) - index)
            times = interleaved(calls, repeats=repeats, warmup=warmup, seconds=share)
        left -= sum(map(sum, times.values()))
        for (runtime, name), each in times.items():
            figures = found.setdefault(runtime, {}).setdefault(name, {})
            figures[f"batch {batch_size}"] = Latency.of(each, batch_size=batch_size)
    return RuntimeLatencies(found, skipped, threads=torch.get_num_threads(), seconds=seconds)


def _skipped(models: Mapping[str, nn.Module], onnx_files: Mapping[str, Path]) -> dict[str, str]:
    """The runtimes that cannot be had here, and why."""
    missing = sorted(models.keys() - onnx_files.keys())
    if missing:
        why = f"no ONNX file of {', '.join(missing)}"
        return {ONNXRUNTIME: why, OPENVINO: why}
    if importlib.util.find_spec(OPENVINO) is None:
        return {OPENVINO: "the package openvino is not installed"}
    return {}


def _exported_calls(
    files: Mapping[str, Path], images: Tensor, skipped: Mapping[str, str]
) -> dict[tuple[str, str], Call]:
    makers = {ONNXRUNTIME: _onnxruntime_call, OPENVINO: _openvino_call}
    return {
        (runtime, name): make(path, images)
        for runtime, make in makers.items()
        if runtime not in skipped
        for name, path in files.items()
    }


def onnxruntime_session(path: Path) -> Any:
    """The network in ONNX Runtime on the CPU, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # A thread that spins for more work would take the processor from whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def openvino_model(path: Path, shape: Sequence[int]) -> Any:
    """The network in OpenVINO, compiled for images of `shape` (N, C, H, W), with torch's threads.

    ImportError where the package openvino, an extra, is not installed.

    OpenVINO's CPU plugin gives the thread that asks for it a signal stack, and in the end gives it
    back the one before, which may be that of a plugin that is gone: the next signal would kill the
    process (seen). So a thread of its own asks.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_compiled, path, shape).result()


def _compiled(path: Path, shape: Sequence[int]) -> Any:
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape(list(shape))
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # never bfloat16, which the other runtimes do not use
        "ENABLE_CPU_PINNING": False,  # other programs may be on the processors it would choose
    }
    return core.compile_model(model, "CPU", settings)


def _onnxruntime_call(path: Path, images: Tensor) -> Call:
    session, inputs = onnxruntime_session(path), {"images": images.numpy()}
    return lambda: session.run(None, inputs)


def _openvino_call(path: Path, images: Tensor) -> Call:
    request = openvino_model(path, images.shape).create_infer_request()
    inputs = [images.numpy()]
    return lambda: request.infer(inputs)
