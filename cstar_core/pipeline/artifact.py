"""The folder that is handed to the client."""

from __future__ import annotations

from pathlib import Path

from cstar_core.export import write_model
from cstar_core.export.writer import WEIGHTS
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench

FOLDER = "output"
ONNX = "model.onnx"
PLAN = "plan.json"


def write_artifact(workbench: Workbench, state: State) -> Path:
    """Write weights, architecture and loader, unless they lie there already; returns the folder."""
    folder = workbench.folder / FOLDER
    if not (folder / WEIGHTS).exists():
        task = workbench.task
        write_model(
            folder,
            workbench.compressed_model(state).network,
            input_shape=task.input_shape,
            mean=task.mean,
            std=task.std,
            num_classes=task.num_classes,
        )
    return folder
