"""Phase `exporting`: ONNX, a second look in a fresh process, the report and the manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cstar_core.environment import environment
from cstar_core.export import export_onnx, load, manifest
from cstar_core.export.timing import compared_latency
from cstar_core.pipeline.artifact import ONNX, PLAN, write_artifact
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.report import report
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.reporting import write_report

PHASE = "exporting"
LARGEST_SHARE_OF_TIES = 0.001  # on a GPU only


class VerificationFailed(Exception):
    """The exported files do not compute what was evaluated: a defect of ours."""


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Finish the folder; raises VerificationFailed when its files do not score as evaluated."""
    folder = write_artifact(workbench, state)
    model = load(folder)
    export_onnx(model, workbench.task.input_shape, folder / ONNX)
    observer.progress(PHASE, 0.3)
    verified = verify_in_fresh_process(workbench, folder)
    verified["disagreements"] = _disagreements(verified, workbench, state)
    observer.event("artifact.verified", {k: v for k, v in verified.items() if k != "predictions"})
    observer.progress(PHASE, 0.7)
    state.findings[PHASE] = {
        "verified": {k: v for k, v in verified.items() if k != "predictions"},
        "latency": _latency(workbench, state, model),
        "bytes": {
            "before": sum(tensor.nbytes for tensor in workbench.uploaded.values()),
            "after": sum(tensor.nbytes for tensor in state.factorised.values()),
        },
    }
    (folder / PLAN).write_text(json.dumps(state.plan, indent=1) + "\n")
    content = report(workbench, state)
    write_report(folder, content)
    manifest(folder, _facts(workbench))


def verify_in_fresh_process(workbench: Workbench, folder: Path) -> dict[str, Any]:
    """Score every test image again with the shipped loader, in a process that starts anew."""
    output = workbench.folder / "verified.json"
    command = [sys.executable, "-m", "cstar_core.export.verify", str(folder)]
    command += ["--data", str(workbench.folder / "dataset.npz"), "--output", str(output)]
    command += ["--count", str(len(workbench.test))]
    # As many threads as here: another number may round another way, and no verdict may differ.
    variables = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if ended.returncode != 0:
        raise VerificationFailed(f"the exported files do not load: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def _disagreements(verified: dict[str, Any], workbench: Workbench, state: State) -> int:
    """Hold every prediction of the fresh process against that of the evaluation.

    On the CPU all must agree. After an evaluation on a GPU, which rounds another way than the CPU
    that verifies, a rare tie is let pass and reported. More raises VerificationFailed.
    """
    evaluated = torch.tensor(state.verdicts["after"]["predictions"])
    found = torch.tensor(verified["predictions"])
    differing = int((found != evaluated).sum())
    allowed = 0.0 if workbench.device.type == "cpu" else LARGEST_SHARE_OF_TIES * len(found)
    if differing > allowed:
        raise VerificationFailed(
            f"on {differing} of {len(found)} test images the exported files do not say what was "
            "evaluated"
        )
    return differing


def _latency(workbench: Workbench, state: State, compressed: nn.Module) -> dict[str, Any]:
    """Return section `latency` of the report, uploaded and compressed network in turn."""
    return compared_latency(
        {"before": workbench.dense_model(dict(workbench.uploaded)), "after": compressed},
        workbench.task.input_shape,
        device=workbench.device,
        smaller_by=workbench.plan(state).ratio,
    )


def _facts(workbench: Workbench) -> dict[str, Any]:
    task = workbench.task
    return {
        **task.facts,
        "seed": task.seed,
        "architecture": task.architecture.to_json(),
        "method": task.method,
        "profile": workbench.profile.to_json(),
        "split_sha256": workbench.data.sha256,
        "environment": environment(torch.get_num_threads()),
    }
