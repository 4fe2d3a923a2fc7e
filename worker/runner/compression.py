"""Running the pipeline of `cstar_core` and passing on what it says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from cstar_core.architectures import Architecture
from cstar_core.attacks import ThreatModel
from cstar_core.files.datasets import load_dataset
from cstar_core.pipeline import PROFILES, Interrupted, State, Task, Workbench, phases_of, run
from cstar_core.pipeline.artifact import ONNX, PLAN
from cstar_core.pipeline.profiles import adapt
from cstar_core.pipeline.report import result
from cstar_core.pipeline.run import overall
from cstar_core.pipeline.task import Limits
from store.contracts import JobRequest
from worker.protocol import CHECKPOINT_FILE, OutputFile, Result, Spec, Stopped
from worker.runner.companions import Companions, device_of, wanted_processes
from worker.runner.observer import RunnerObserver
from worker.runner.outputs import JSON, REPORTS
from worker.runner.voice import Voice

BYTES = "application/octet-stream"
FILES = (
    OutputFile(kind="checkpoint", filename="model.safetensors", media_type=BYTES),
    OutputFile(kind="architecture", filename="architecture.json", media_type=JSON),
    OutputFile(kind="loader", filename="loader.py", media_type="text/x-python"),
    OutputFile(kind="onnx", filename=ONNX, media_type=BYTES),
    OutputFile(kind="plan", filename=PLAN, media_type=JSON),
    *REPORTS,
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
        overall=partial(overall, method=workbench.task.method),
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
        probe_examples=request.evaluation.probe_examples,
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
