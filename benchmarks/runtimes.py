"""Networks in the runtimes that deploy them: one thread each, float32, through one ONNX file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from torch import nn

from benchmarks.harness import Unavailable
from benchmarks.networks import SHAPE
from cstar_core.export import export_onnx

RUNTIMES = ("ONNX Runtime", "OpenVINO")

Infer = Callable[[], object]


@dataclass(frozen=True)
class Exported:
    """A network as the bytes of an ONNX file with a dynamic batch axis."""

    content: bytes

    @classmethod
    def of(cls, network: nn.Module) -> Exported:
        """Export as the service does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(network, SHAPE, path)
            return cls(path.read_bytes())

    def candidate(self, runtime: str, *, batch: int) -> Infer:
        """One inference of a random batch in `runtime`, one of `RUNTIMES`."""
        images = np.random.default_rng(0).random((batch, *SHAPE), dtype=np.float32)
        return _onnx_runtime(self.content, images) if runtime == RUNTIMES[0] else _openvino(
            self.content, images
        )  # fmt: skip


def _onnx_runtime(content: bytes, images: np.ndarray) -> Infer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


def _openvino(content: bytes, images: np.ndarray) -> Infer:
    try:
        import openvino  # noqa: PLC0415
    except ImportError as missing:
        raise Unavailable("openvino is missing; run `make bench`") from missing
    core = openvino.Core()
    model = core.read_model(content)
    model.reshape([*images.shape])
    one_thread = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", one_thread).create_infer_request()
    return lambda: request.infer([images])
