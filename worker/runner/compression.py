"""Running the pipeline of `cstar_core` and passing on what it says."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cstar_core.architectures import Architecture
from cstar_core.attacks import ThreatModel
from cstar_core.files.datasets import load_dataset
from cstar_core.pipeline import PROFILES, Interrupted, State, Task, Workbench, phases_of, run
from cstar_core.pipeline.artifact import ONNX, PLAN, REPORT
from cstar_core.pipeline.profiles import adapt
from cstar_core.pipeline.report import result
from cstar_core.pipeline.run import overall
from cstar_core.pipeline.task import Limits
from store.contracts import JobRequest
from worker.protocol import (
    CHECKPOINT_FILE,
    CheckpointSaved,
    Event,
    Metric,
    OutputFile,
    Progress,
    Result,
    Spec,
    Stopped,
)
from worker.runner.companions import Companions, device_of, wanted_processes
from worker.runner.voice import Voice

PROGRESS_INTERVAL_S = 0.5
JSON = "application/json"
BYTES = "application/octet-stream"
FILES = (
    OutputFile(kind="checkpoint", filename="model.safetensors", media_type=BYTES),
    OutputFile(kind="architecture", filename="architecture.json", media_type=JSON),
    OutputFile(kind="loader", filename="loader.py", media_type="text/x-python"),
    OutputFile(kind="onnx", filename=ONNX, media_type=BYTES),
    OutputFile(kind="plan", filename=PLAN, media_type=JSON),
    OutputFile(kind="report", filename=REPORT, media_type=JSON),
    OutputFile(kind="manifest", filename="manifest.json", media_type=JSON),
)


def compress(spec: Spec, folder: Path, voice: Voice) -> None:
    """Run a compression from its last checkpoint, if there is one, to its artifacts."""
    workbench = make_workbench(spec, folder, device=device_of(0))
    checkpoint = folder / CHECKPOINT_FILE
    state = State.load(checkpoint) if checkpoint.exists() else State()
    observer = RunnerObserver(
        voice,
        checkpoint,
        save_interval_s=spec.checkpoint_interval_s,
        method=workbench.task.method,
    )
    try:
        with Companions(folder, size=wanted_processes(), voice=voice) as companions:
            phases = companions.accompany(phases_of(workbench.task))
            run(workbench, state, observer, phases=phases)
    except Interrupted:
        voice.say(Stopped())
        return
    voice.say(Result(result=result(workbench, state), files=list(FILES)))


def make_workbench(spec: Spec, folder: Path, *, device: torch.device) -> Workbench:
    """Lay out what the folder of a compression holds."""
    return Workbench(
        make_task(spec),
        load_file(folder / "weights.safetensors"),
        load_dataset(folder / "dataset.npz"),
        folder=folder,
        device=device,
    )


def make_task(spec: Spec) -> Task:
    """Translate a request and what is known of its model into the method's own terms."""
    request = JobRequest.model_validate(spec.request)
    subject, targets = spec.subject, request.targets
    options = request.options.model_dump()
    return Task(
        architecture=Architecture.from_json(subject["architecture"]),
        input_shape=tuple(subject["input"]["shape"]),
        mean=tuple(subject["input"]["mean"]),
        std=tuple(subject["input"]["std"]),
        num_classes=subject["num_classes"],
        limits=Limits(**request.compression.model_dump()),
        threat=ThreatModel(targets.robustness.norm, targets.robustness.epsilon),
        profile=adapt(PROFILES[request.profile], **options),
        seed=request.seed,
        examples=request.evaluation.examples,
        autoattack_examples=request.evaluation.autoattack_examples,
        min_robust_accuracy=targets.robustness.min_accuracy,
        min_clean_accuracy=targets.min_clean_accuracy,
        method=request.method,
        facts={
            "job": {"id": subject["job_id"], "method": request.method},
            "model": subject["model"],
            "dataset": subject["dataset"],
            "targets": targets.model_dump(mode="json"),
        },
    )


class RunnerObserver:
    """Says progress, metrics, events and checkpoints over the pipe; hears SIGTERM."""

    def __init__(
        self, voice: Voice, checkpoint: Path, *, save_interval_s: float, method: str = "cstar"
    ) -> None:
        self._voice, self._method = voice, method
        self._checkpoint = checkpoint
        self._save_interval_s = save_interval_s
        self._saved_at = time.monotonic()
        self._said_at = 0.0
        self._phase = ""
        self._began: tuple[float, float] | None = None
        self._stop = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def progress(self, phase: str, fraction: float) -> None:
        """Say how far the whole run is, at most twice a second within a phase."""
        now = time.monotonic()
        if phase == self._phase and now - self._said_at < PROGRESS_INTERVAL_S:
            return
        self._phase, self._said_at = phase, now
        done = overall(phase, fraction, method=self._method)
        self._voice.say(Progress(phase=phase, progress=done, eta_s=self._eta(now, done)))

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Say a measured value; one that is not finite cannot be written as JSON."""
        if math.isfinite(value):
            self._voice.say(Metric(phase=phase, name=name, step=step, value=value))

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Say something worth keeping."""
        self._voice.say(Event(name=name, data=dict(data)))

    def save_due(self) -> bool:
        """Say whether the last checkpoint is old enough for a new one."""
        return time.monotonic() - self._saved_at >= self._save_interval_s

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Write a checkpoint and tell the supervisor to keep it."""
        state.save(self._checkpoint)
        self._saved_at = time.monotonic()
        self._voice.say(CheckpointSaved(phase=phase, finished=finished))

    def stop_requested(self) -> bool:
        """Say whether SIGTERM has come."""
        return self._stop

    def _on_sigterm(self, *_: object) -> None:
        self._stop = True

    def _eta(self, now: float, done: float) -> float | None:
        """Seconds left if the rest goes as fast as what this attempt has done."""
        if self._began is None:
            self._began = (now, done)
        since, start = self._began
        return (now - since) * (1 - done) / (done - start) if done > start else None
