"""ONNX: the export, and how closely ONNX Runtime agrees with PyTorch on real images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

BATCH = 128


@dataclass(frozen=True)
class OnnxParity:
    """Largest difference of a logit, and the share of images on which the predictions agree."""

    max_abs_difference: float
    agreement: float


def export_onnx(module: nn.Module, input_shape: Sequence[int], path: Path) -> None:
    """Write `module` to one file `path`: input "images" (batch, C, H, W), output "logits".

    The batch axis is dynamic. Exported in eval mode; the module is left as it was. The file names
    no path of this machine: the exporter's stack traces are taken out.
    """
    training = {child: child.training for child in module.modules()}
    example = next(module.parameters())
    images = torch.zeros(2, *input_shape, device=example.device, dtype=example.dtype)
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (images,),
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    finally:
        for child, flag in training.items():
            child.training = flag
    if program is None:
        raise RuntimeError("the ONNX exporter returned no program")
    model = program.model_proto
    _strip(model)
    onnx.save_model(model, path)


def onnx_parity(path: Path, module: nn.Module, images: Tensor) -> OnnxParity:
    """Compare ONNX Runtime on the CPU with `module` on `images` (N, C, H, W) in [0, 1]."""
    session = _session(path)
    largest, agreeing = 0.0, 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        with torch.inference_mode():
            expected = module(batch).cpu()
        (logits,) = session.run(["logits"], {"images": batch.cpu().numpy()})
        found = torch.from_numpy(logits)
        largest = max(largest, float((found - expected).abs().max()))
        agreeing += int((found.argmax(1) == expected.argmax(1)).sum())
    return OnnxParity(largest, agreeing / len(images))


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _strip(model: onnx.ModelProto) -> None:
    """Remove the notes of the exporter: Python class names and source paths on every node."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
