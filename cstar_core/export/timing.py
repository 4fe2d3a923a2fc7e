"""Section `latency` of a report: networks side by side in every runtime there is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cstar_core.evaluation.latency.runtimes import measure_runtimes
from cstar_core.evaluation.latency.timing import measure_latency
from cstar_core.export.onnx_model import export_onnx

ALONE = "no other network was timed beside it"
Shape = tuple[int, int, int]


def compared_latency(
    models: Mapping[str, nn.Module], shape: Shape, *, device: torch.device, smaller_by: float
) -> dict[str, Any]:
    """Time `before` and `after`, which take images of `shape` (C, H, W), side by side.

    In eager PyTorch, ONNX Runtime and, where it is installed, OpenVINO on the CPU, where the
    models are left; on `device` too if that is another. `smaller_by` is for the words.
    """
    on_device = _on_device(models, shape, device)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in models}
        for name, model in models.items():
            export_onnx(model, shape, files[name])
        measured = measure_runtimes(models, files, shape)
    return measured.to_json(smaller_by=smaller_by, on_device=on_device)


def latency_alone(model: nn.Module, shape: Shape, *, device: torch.device) -> dict[str, Any]:
    """Time one network in eager PyTorch: beside no other, its time says little."""
    models = {"after": model}
    on_device = _on_device(models, shape, device)
    measured = measure_runtimes(models, {}, shape)
    section = measured.to_json(smaller_by=1.0, on_device=on_device)
    return section | {"words": ALONE, "skipped": dict.fromkeys(measured.skipped, ALONE)}


def _on_device(
    models: Mapping[str, nn.Module], shape: Shape, device: torch.device
) -> dict[str, Any] | None:
    """Figures of the job's own device; None where that is the CPU. The models end on the CPU."""
    found = None
    if device.type != "cpu":
        for model in models.values():
            model.to(device)
        found = {
            name: {f"batch {figure.batch_size}": figure.to_json() for figure in figures}
            for name, figures in measure_latency(models, shape).items()
        }
    for model in models.values():
        model.to("cpu")
    return found
