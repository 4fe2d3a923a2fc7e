"""An evaluation through the real stack: a model as it is, and a runner that is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cstar_client import ApiError, Client
from cstar_client.documents import Job
from stack.embedded import Stack
from tests.e2e.requests import Uploads
from tests.e2e.watching import events, kill, of_type, runners, wait_for_checkpoint

# Attacks succeed at once, so that the evaluation is short.
TARGETS = {"robustness": {"epsilon": 0.5, "min_accuracy": 0.9}, "min_clean_accuracy": 0.5}
TRIES = 5
COUNTS = {"examples": 300, "autoattack_examples": 4, "probe_examples": 32}


def killed_in_the_midst(stack: Stack, client: Client, asked: dict[str, Any]) -> Job:
    """Return a job whose runner was killed; on a stalled machine one may end before it is."""
    for _ in range(TRIES):
        job_id = client.jobs.create(asked)["id"]
        wait_for_checkpoint(client, job_id, "evaluating")
        kill(runners(stack))
        job = client.jobs.wait(job_id)
        if job["attempt"] > 1:
            return job
    raise AssertionError(f"{TRIES} evaluations ended before they could be killed")


def test_an_evaluation_survives_kill_9_of_its_runner_and_leaves_its_reports(
    stack: Stack, client: Client, uploads: Uploads, tmp_path: Path
) -> None:
    model_id, dataset_id = uploads.model["id"], uploads.dataset["id"]
    asked = {"kind": "evaluate", "model_id": model_id, "dataset_id": dataset_id, "seed": 3}
    asked |= {"targets": TARGETS, "evaluation": COUNTS}
    job = killed_in_the_midst(stack, client, asked)
    job_id = job["id"]

    assert (job["status"], job["kind"], job["attempt"]) == ("succeeded", "evaluate", 2), job[
        "error"
    ]
    rows = events(client, job_id)
    found = [e for e in of_type(rows, "evaluation.finished") if e["attack"] == "pgd-20"]
    assert found  # twice, where it was killed between this and the next checkpoint
    assert all(one == found[0] for one in found)
    assert [event["phase"] for event in of_type(rows, "phase.finished")] == ["evaluating"]
    assert next(client.jobs.list(kind="evaluate", model=model_id))["id"] == job_id
    outcomes = {row["metric"]: row["outcome"] for row in job["result"]["targets"]}
    assert outcomes == {"robust_accuracy": "missed", "clean_accuracy": "met"}
    assert job["result"]["before"] is None
    assert job["result"]["after"]["parameters"] == uploads.model["parameters"]

    artifacts = client.jobs.artifacts(job_id)
    kinds = {artifact["kind"] for artifact in artifacts}
    assert kinds == {"report", "report_html", "report_markdown", "manifest"}
    client.jobs.download_all(job_id, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["result"] == job["result"]
    assert report["model"]["id"] == model_id
    metrics = list(client.jobs.metrics(job_id))
    assert job["result"]["after"]["clean_accuracy"]["value"] in [row["value"] for row in metrics]


def test_what_belongs_to_a_compression_is_refused(client: Client, uploads: Uploads) -> None:
    model_id, dataset_id = uploads.model["id"], uploads.dataset["id"]
    with pytest.raises(ApiError) as refusal:
        client.jobs.evaluate(model_id, dataset_id, epsilon=0.1, method="cstar")

    assert refusal.value.problem["errors"][0]["pointer"] == "/method"
