"""Evaluations by a real runner: what it leaves, and that it goes on where it was killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from cstar_core.architectures import Architecture, build, stem_name
from cstar_core.evaluate.networks import file_sha256
from cstar_core.export import write_model
from cstar_core.factorization import factorise
from cstar_core.files.checkpoints import write_weights
from cstar_core.files.datasets import DatasetArrays, write_dataset
from cstar_core.layers import count_parameters, describe
from cstar_core.pipeline.budgets import budgets_within
from cstar_core.pipeline.task import Limits
from cstar_core.ranks import Inventory, plan_network
from cstar_core.reporting import SCHEMA_PATH
from store.contracts import JobRequest, document
from store.results import EvaluationResult
from tests.worker.processes import disturbed
from tests.worker.shop import PATIENCE_S
from tests.worker.test_voice import Heard
from worker import executors
from worker.protocol import (
    CHECKPOINT_FILE,
    MAX_LINE_BYTES,
    SPEC_FILE,
    AnyMessage,
    CheckpointSaved,
    Event,
    Metric,
    Result,
    Spec,
    decode,
    encode,
)
from worker.runner.evaluation import evaluate, make_case

SIZES = {"width": 4, "in_channels": 1, "num_classes": 3, "hidden": 8}
ARCHITECTURE = Architecture("small_cnn_mnist", SIZES)
REQUEST: dict[str, Any] = {
    "kind": "evaluate",
    "model_id": "mdl_1",
    "dataset_id": "dts_1",
    "seed": 3,
    # the first attack breaks everything: the later ones have nothing to do
    "targets": {"robustness": {"norm": "linf", "epsilon": 0.5, "min_accuracy": 0.9}},
    "evaluation": {"examples": 200, "autoattack_examples": 4, "probe_examples": 32},
}


def lay_out(folder: Path, *, baseline: bool = False) -> Path:
    """Make the folder of an evaluation of a small network with random weights."""
    (folder / "output").mkdir(parents=True)
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (220, 28, 28, 1), np.uint8)
    labels = source.integers(0, 3, 220)
    arrays = DatasetArrays(
        train_images=images[:20],
        train_labels=labels[:20],
        test_images=images[20:],
        test_labels=labels[20:],
        num_classes=3,
        class_names=None,
    )
    write_dataset(arrays, folder / "dataset.npz")
    dataset = {"id": "dts_1", "name": "noise", "content_sha256": arrays.sha256}
    subject = {"job_id": "job_1", "dataset": dataset, **network(folder, "weights", 1)}
    request = dict(REQUEST)
    if baseline:
        subject["baseline"] = network(folder, "baseline", 2)
        request["baseline_model_id"] = "mdl_2"
    spec = Spec(
        kind="evaluate",
        request=document(JobRequest.model_validate(request)),
        subject=subject,
        threads=1,
        memory_bytes=16 << 30,
        checkpoint_interval_s=0.0,
    )
    (folder / SPEC_FILE).write_text(spec.model_dump_json())
    return folder


def network(folder: Path, name: str, number: int) -> dict[str, Any]:
    """Write the weights of a model and return what is known of it."""
    write_weights(build(ARCHITECTURE, seed=number).state_dict(), folder / f"{name}.safetensors")
    digest = file_sha256(folder / f"{name}.safetensors")
    return {
        "model": {"id": f"mdl_{number}", "name": name, "weights_sha256": digest},
        "architecture": ARCHITECTURE.to_json(),
        "input": {"shape": [1, 28, 28], "mean": [0.5], "std": [0.25]},
        "num_classes": 3,
    }


def spec_of(folder: Path) -> Spec:
    return Spec.model_validate_json((folder / SPEC_FILE).read_text())


@pytest.fixture
def as_runner() -> Iterator[None]:
    """Give back what a runner does to its process."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def here(folder: Path) -> list[Any]:
    """Evaluate in this process; returns what was said."""
    voice = Heard()
    evaluate(spec_of(folder), folder, voice)
    return list(voice.messages)


def finished(said: list[AnyMessage]) -> list[str]:
    """The attacks that were carried out, not merely recalled."""
    events = [m.data for m in said if isinstance(m, Event) and m.name == "evaluation.finished"]
    return [str(data["attack"]) for data in events]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "after": {**result["after"], "latency_ms": None}}


@pytest.mark.usefixtures("as_runner", "plain")
def test_a_runner_that_was_killed_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "killed")
    an_attack_is_over = "isinstance(message, Event) and 'value' in message.data"
    killing = "os.kill(os.getpid(), signal.SIGKILL)"
    command = disturbed(folder, when=an_attack_is_over, act=killing)
    process = executors.start_confined(command, folder, folder / "runner.log")
    assert process.stdout is not None
    with process.stdout as pipe:
        said = list(map(decode, pipe))
    assert executors.end(process, patience_s=PATIENCE_S) == -signal.SIGKILL
    assert sum(isinstance(m, CheckpointSaved) for m in said) == 2  # PGD's two batches
    assert (folder / CHECKPOINT_FILE).exists()
    assert list((folder / "output").iterdir()) == []

    resumed, undisturbed = here(folder), here(lay_out(tmp_path / "undisturbed"))
    assert finished(undisturbed) == ["pgd-20", *finished(resumed)]
    for name in (resumed, undisturbed):
        assert isinstance(name[-1], Result)
    assert without_times(resumed[-1].result) == without_times(undisturbed[-1].result)
    _complete(folder, undisturbed)


def _complete(folder: Path, said: list[Any]) -> None:
    """What is said at the end is what the service expects, and what lies in the folder."""
    result = said[-1]
    assert len(encode(result)) < MAX_LINE_BYTES
    judged = EvaluationResult.model_validate(json.loads(json.dumps(result.result)))
    assert judged.model_dump(mode="json") == result.result
    assert (judged.before, judged.targets[0].metric) == (None, "robust_accuracy")
    assert judged.verdict.targets != "met"
    kinds = [file.kind for file in result.files]
    assert kinds == ["report", "report_html", "report_markdown", "manifest"]
    assert all((folder / "output" / file.filename).stat().st_size for file in result.files)
    report = json.loads((folder / "output" / "report.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA_PATH.read_text()))
    assert report["job"]["id"] == "job_1"
    assert report["targets"]["robustness"] == REQUEST["targets"]["robustness"]
    metrics = {m.name: m.value for m in said if isinstance(m, Metric)}
    assert metrics["clean_accuracy"] == result.result["after"]["clean_accuracy"]["value"]
    assert "pgd-20" in metrics


def factorised(network: nn.Module) -> nn.Module:
    layers = describe(network, (1, 28, 28), stem=stem_name(ARCHITECTURE))
    budgets = budgets_within(Limits(ratio=1.5), Inventory.of(network, layers))
    proposal = plan_network(network, layers, budgets, multiple=1)
    return factorise(network, proposal.recommended).eval()


@pytest.mark.usefixtures("as_runner")
def test_a_compressed_network_is_judged_beside_what_it_was_made_of(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, baseline=True)
    dense = build(ARCHITECTURE, seed=2).eval()
    small = factorised(dense)
    images = {"input_shape": (1, 28, 28), "mean": [0.5], "std": [0.25], "num_classes": 3}
    write_model(folder / "network", small, **images)
    spec = json.loads((folder / SPEC_FILE).read_text())
    spec["subject"] |= {"exported": True, "architecture": {"name": "cstar-architecture"}}
    (folder / SPEC_FILE).write_text(json.dumps(spec))
    case = make_case(spec_of(folder), folder)
    seen = case.data.examples(torch.device("cpu")).images[:4] / 255

    torch.testing.assert_close(case.after.model(seen), small((seen - 0.5) / 0.25))
    judged = here(folder)[-1].result
    assert judged["after"]["parameters"] == count_parameters(small)
    assert judged["before"]["parameters"] == count_parameters(dense) > count_parameters(small)


def test_a_baseline_is_what_the_model_is_compared_with(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, baseline=True)
    case = make_case(spec_of(folder), folder)
    images = case.data.examples(torch.device("cpu")).images[:4] / 255
    found = {name: each.model(images) for name, each in case.named().items()}

    assert [each.name for each in case.named().values()] == ["baseline", "weights"]
    for name, seed in (("before", 2), ("after", 1)):
        expected = build(ARCHITECTURE, seed=seed).eval()((images - 0.5) / 0.25)
        torch.testing.assert_close(found[name], expected)
    assert (case.facts["model"]["id"], case.facts["baseline"]["id"]) == ("mdl_1", "mdl_2")
    assert case.after.weights_sha256 == file_sha256(folder / "weights.safetensors")
    assert case.settings.probe_examples == REQUEST["evaluation"]["probe_examples"]
