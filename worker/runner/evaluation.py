"""Judging a model as it is: nothing is compressed or trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cstar_core.architectures import Architecture
from cstar_core.attacks import ThreatModel
from cstar_core.evaluate.data import Evaluated
from cstar_core.evaluate.judging import Case, judge, write_files
from cstar_core.evaluate.networks import Candidate, Reading, candidate, of_weights, open_network
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.files.datasets import load_dataset
from cstar_core.pipeline import Interrupted, State
from cstar_core.pipeline.evaluation_watch import EvaluationWatch
from store.contracts import JobRequest
from worker.protocol import CHECKPOINT_FILE, OUTPUT_FOLDER, Result, Spec, Stopped
from worker.runner.companions import device_of
from worker.runner.observer import RunnerObserver
from worker.runner.outputs import REPORTS
from worker.runner.voice import Voice

PHASE = "evaluating"


def evaluate(spec: Spec, folder: Path, voice: Voice) -> None:
    """Judge the model from the last checkpoint on, if there is one, to the report."""
    case = make_case(spec, folder)
    checkpoint = folder / CHECKPOINT_FILE
    state = State.load(checkpoint) if checkpoint.exists() else State()
    observer = RunnerObserver(
        voice,
        checkpoint,
        save_interval_s=spec.checkpoint_interval_s,
        overall=lambda _, fraction: fraction,  # there is one phase
    )
    watch = EvaluationWatch(PHASE, state, observer)
    try:
        report = judge(case, device=device_of(0), ledgers=state.verdicts, watch=watch)
    except Interrupted:
        voice.say(Stopped())
        return
    write_files(folder / OUTPUT_FOLDER, report)
    _say_figures(observer, report["result"]["after"])
    voice.say(Result(result=report["result"], files=list(REPORTS)))


def make_case(spec: Spec, folder: Path) -> Case:
    """Translate a request and what is known of its models into the method's own terms."""
    request = JobRequest.model_validate(spec.request)
    subject, targets = spec.subject, request.targets
    facts = {
        "job": {"id": subject["job_id"], "method": None},
        "model": subject["model"],
        "dataset": subject["dataset"],
        "targets": targets.model_dump(mode="json"),
    }
    before = None
    if "baseline" in subject:
        facts["baseline"] = subject["baseline"]["model"]
        before = _network(subject["baseline"], folder / "baseline.safetensors", folder / "baseline")
    return Case(
        after=_network(subject, folder / "weights.safetensors", folder / "network"),
        before=before,
        data=Evaluated.of(load_dataset(folder / "dataset.npz")),
        settings=EvaluationSettings(
            threat=ThreatModel(targets.robustness.norm, targets.robustness.epsilon),
            seed=request.seed,
            **request.evaluation.model_dump(),
        ),
        min_robust_accuracy=targets.robustness.min_accuracy,
        min_clean_accuracy=targets.min_clean_accuracy,
        facts=facts,
    )


def _network(subject: Mapping[str, Any], weights: Path, exported: Path) -> Candidate:
    """Open a network of the registry in `weights`, or one that was exported to a folder."""
    images, facts = subject["input"], subject["model"]
    channels, height, width = images["shape"]
    name, shape = str(facts["name"]), (channels, height, width)
    if subject.get("exported", False):
        return open_network(exported, name=name, shape=shape, reading=Reading())
    architecture = Architecture.from_json(subject["architecture"])
    model = of_weights(architecture, load_file(weights), mean=images["mean"], std=images["std"])
    return candidate(name, model, shape=shape, weights_sha256=str(facts["weights_sha256"]))


def _say_figures(observer: RunnerObserver, network: Mapping[str, Any]) -> None:
    figures = {"clean_accuracy": network["clean_accuracy"], **network["robust_accuracy"]}
    for name, figure in figures.items():
        observer.metric(PHASE, name, figure["value"], step=0)
