"""A whole job, its artifacts, and what is left when processes are killed in the middle of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cstar_client import Client, Conflict, NotFound
from cstar_client.documents import Job
from stack.demo import reproduce
from stack.demo.digits import load_digits
from stack.embedded import Stack
from tests.e2e.requests import Uploads, job_body
from tests.e2e.watching import (
    events,
    kill,
    of_type,
    runners,
    until,
    wait_for_checkpoint,
    worker_processes,
)

PHASES = [
    "checking",
    "dense_training",
    "planning",
    "admm",
    "factorising",
    "fine_tuning",
    "evaluating",
    "exporting",
]


@dataclass(frozen=True)
class Finished:
    """A job that has succeeded, and the folder its artifacts were downloaded to."""

    job: Job
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))


def download(client: Client, job: Job, folder: Path) -> Finished:
    assert job["status"] == "succeeded", job["error"]
    client.jobs.download_all(job, folder)
    return Finished(job, folder)


@pytest.fixture(scope="module")
def undisturbed(
    client: Client, uploads: Uploads, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    job = client.jobs.wait(client.jobs.create(job_body(uploads)), check=False)
    return download(client, job, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def reference(
    client: Client, uploads: Uploads, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """The job that is disturbed below, undisturbed."""
    job = client.jobs.wait(client.jobs.create(brief_body(uploads)), check=False)
    return download(client, job, tmp_path_factory.mktemp("reference"))


def brief_body(uploads: Uploads) -> dict[str, Any]:
    """Return a job whose attacks succeed at once, so that its evaluation is short."""
    targets = {"compression": {"ratio": 4.5}, "robustness": {"epsilon": 0.5, "min_accuracy": 0.5}}
    return job_body(uploads, targets=targets)


@pytest.fixture(scope="module")
def test_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    images = torch.from_numpy(digits.test_images).permute(0, 3, 1, 2).float() / 255
    path = tmp_path_factory.mktemp("data") / "test.safetensors"
    labels = torch.from_numpy(digits.test_labels)
    save_file({"images": images.contiguous(), "labels": labels}, path)
    return path


def test_every_phase_ends_once_and_in_order(client: Client, undisturbed: Finished) -> None:
    finished = of_type(events(client, undisturbed.job["id"]), "phase.finished")

    assert [event["phase"] for event in finished] == PHASES


def test_events_are_numbered_without_a_gap(client: Client, undisturbed: Finished) -> None:
    rows = events(client, undisturbed.job["id"])

    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))


def test_the_network_is_as_small_as_asked_by_counting_tensors(undisturbed: Finished) -> None:
    tensors = load_file(undisturbed.folder / "model.safetensors")
    elements = sum(tensor.numel() for tensor in tensors.values())
    before = undisturbed.job["result"]["before"]["parameters"]

    assert undisturbed.job["result"]["after"]["parameters"] <= elements
    assert before / elements >= 4


def test_the_gap_of_every_layer_is_a_live_metric(client: Client, undisturbed: Finished) -> None:
    rows = list(client.jobs.metrics(undisturbed.job, phase="admm"))
    layers = {row["name"] for row in rows if row["name"].startswith("gap/")}
    planned = [row for row in undisturbed.report["plan"]["layers"] if row["method"] != "dense"]

    assert layers == {f"gap/{layer['name']}" for layer in planned}
    assert {row["step"] for row in rows} == set(range(1, 9))


def test_every_accuracy_carries_its_n_and_interval(undisturbed: Finished) -> None:
    for when in ("before", "after"):
        figures = undisturbed.job["result"][when]
        robust = figures["robust_accuracy"]
        assert figures["clean_accuracy"]["n"] == 360
        assert (robust["pgd-20"]["n"], robust["autoattack"]["n"]) == (64, 4)
        for figure in (figures["clean_accuracy"], *robust.values()):
            low, high = figure["interval"]
            assert 0 <= low <= figure["value"] <= high <= 1


def test_autoattack_is_never_above_pgd_on_the_same_examples(undisturbed: Finished) -> None:
    evaluation = undisturbed.report["evaluation"]

    for when in ("before", "after"):
        assert evaluation[when]["autoattack"]["name"] == "autoattack-standard"
        assert evaluation[when]["autoattack"]["correct"] <= evaluation[when]["pgd"]["correct"]


def test_a_target_out_of_reach_is_reported_as_missed(undisturbed: Finished) -> None:
    outcomes = {row["metric"]: row["outcome"] for row in undisturbed.job["result"]["targets"]}

    assert outcomes == {"ratio": "met", "robust_accuracy": "missed"}


def test_the_downloaded_file_scores_as_reported_with_torch_and_its_loader_alone(
    undisturbed: Finished, test_data: Path
) -> None:
    command = [sys.executable, "-I", reproduce.__file__, str(undisturbed.folder), str(test_data)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(ended.stdout)
    after = undisturbed.job["result"]["after"]

    assert found["parameters"] == after["parameters"]
    assert found["clean"]["correct"] / found["clean"]["n"] == after["clean_accuracy"]["value"]
    robust = found["pgd-20"]["correct"] / found["pgd-20"]["n"]
    assert robust == after["robust_accuracy"]["pgd-20"]["value"]


def test_what_it_left_is_a_version_of_the_model_with_a_point_on_its_frontier(
    client: Client, uploads: Uploads, undisturbed: Finished
) -> None:
    job, parent = undisturbed.job, uploads.model["id"]
    model = client.transport.post(f"/v1/jobs/{job['id']}/model")
    frontier = client.transport.get(f"/v1/models/{parent}/pareto", axes="parameters")
    points = {point["id"]: point for point in frontier["data"]}
    after = (job["result"] or {})["after"]

    assert (model["status"], model["parent_model_id"]) == ("ready", parent)
    assert model["parameters"] == points[job["id"]]["parameters"] == after["parameters"]
    assert points[job["id"]]["robust_accuracy"] == after["robust_accuracy"]["autoattack"]
    assert points[job["id"]]["model_id"] == model["id"]
    assert points[parent]["on_front"] is False
    with pytest.raises(Conflict):
        client.transport.send("DELETE", f"/v1/jobs/{job['id']}")


def test_the_onnx_file_agrees(undisturbed: Finished) -> None:
    parity = undisturbed.report["verification"]["onnx"]

    assert parity["agreement"] == 1.0
    assert parity["max_abs_difference"] < 1e-3


def test_the_fresh_process_agrees_on_every_image(undisturbed: Finished) -> None:
    verification = undisturbed.report["verification"]

    assert (verification["n"], verification["disagreements"]) == (360, 0)


def test_the_manifest_names_every_file_with_its_hash(undisturbed: Finished) -> None:
    content = json.loads((undisturbed.folder / "manifest.json").read_text())
    downloaded = {path.name for path in undisturbed.folder.iterdir()} - {"manifest.json"}

    assert set(content["files"]) == downloaded
    for name, facts in content["files"].items():
        data = (undisturbed.folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_job_survives_kill_9_of_its_runner_and_then_of_its_worker(
    stack: Stack, client: Client, uploads: Uploads, reference: Finished, tmp_path: Path
) -> None:
    job_id = client.jobs.create(brief_body(uploads))["id"]
    wait_for_checkpoint(client, job_id, "admm")
    kill(until(lambda: runners(stack), "a runner"))
    wait_for_checkpoint(client, job_id, "fine_tuning")
    kill(worker_processes(stack))
    job = client.jobs.wait(job_id, check=False)

    disturbed = download(client, job, tmp_path)
    rows = events(client, job_id)
    finished = Counter(event["phase"] for event in of_type(rows, "phase.finished"))
    assert finished == Counter(PHASES)
    assert len(of_type(rows, "job.succeeded")) == 1
    assert [event["reason"] for event in of_type(rows, "job.queued")[1:]] == [
        "worker_lost",
        "worker_lost",
    ]
    assert job["attempt"] == 3
    same = [(f.folder / "model.safetensors").read_bytes() for f in (disturbed, reference)]
    assert same[0] == same[1], "the resumed job ended with other bits"


def test_a_paused_job_goes_on_where_it_was(
    client: Client, uploads: Uploads, reference: Finished, tmp_path: Path
) -> None:
    job_id = client.jobs.create(brief_body(uploads))["id"]
    wait_for_checkpoint(client, job_id, "dense_training")
    client.jobs.pause(job_id)
    until(lambda: client.jobs.get(job_id)["status"] == "paused", "the pause")
    client.jobs.resume(job_id)

    resumed = download(client, client.jobs.wait(job_id, check=False), tmp_path)
    same = [(f.folder / "model.safetensors").read_bytes() for f in (resumed, reference)]
    assert same[0] == same[1]
    counted = Counter(e["phase"] for e in of_type(events(client, job_id), "phase.finished"))
    assert counted == Counter(PHASES)


def test_a_running_job_can_be_cancelled_and_leaves_no_process(
    stack: Stack, client: Client, uploads: Uploads
) -> None:
    job_id = client.jobs.create(job_body(uploads))["id"]
    until(lambda: runners(stack), "a runner")
    client.jobs.cancel(job_id)

    assert client.jobs.wait(job_id, check=False)["status"] == "cancelled"
    until(lambda: not runners(stack), "the end of the runner")
    assert client.jobs.artifacts(job_id) == []
    assert client.transport.send("DELETE", f"/v1/jobs/{job_id}").status_code == 204
    with pytest.raises(NotFound):
        client.jobs.get(job_id)
