"""What an operator sees of a job: its lines in every log, and one trace through all processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from cstar_client import Client
from stack.embedded import Stack
from store.database import Database
from store.tables import Job, JobAttempt
from tests.e2e.conftest import TRACES
from tests.e2e.requests import Uploads
from tests.e2e.watching import until

PROCESSES = {"cstar-api", "cstar-scheduler", "cstar-worker", "cstar-runner"}


@pytest.fixture(scope="module")
def job(stack: Stack, uploads: Uploads) -> Job:
    """The job that validated the demo's network."""
    database = Database(stack.settings.resolved_database_url)
    with database.reading() as session:
        found = session.scalars(select(Job).where(Job.model_id == uploads.model["id"])).first()
    database.dispose()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def runner_log(stack: Stack, job: Job) -> str:
    database = Database(stack.settings.resolved_database_url)
    with database.reading() as session:
        log = session.get_one(JobAttempt, (job.id, 1)).log
    database.dispose()
    return str(log)


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def spans(stack: Stack) -> list[dict[str, Any]]:
    return parsed((stack.data_dir / TRACES).read_text())


def trace_of(stack: Stack, job: Job) -> list[dict[str, Any]]:
    """Return the spans of the trace in which the job was attempted, once the attempt is over."""

    def attempts() -> list[dict[str, Any]]:
        named = [span for span in spans(stack) if span["name"] == "attempt"]
        return [span for span in named if span["attributes"]["cstar.job_id"] == job.id]

    found = until(attempts, "the attempt's span")
    trace = found[0]["context"]["trace_id"]
    return [span for span in spans(stack) if span["context"]["trace_id"] == trace]


def service_of(span: dict[str, Any]) -> str:
    return str(span["resource"]["attributes"]["service.name"])


def test_one_trace_goes_through_every_process(stack: Stack, job: Job) -> None:
    trace = trace_of(stack, job)
    assert {service_of(span) for span in trace} == PROCESSES


def test_the_trace_begins_with_the_request_and_ends_in_the_runner(stack: Stack, job: Job) -> None:
    trace = trace_of(stack, job)
    (request,) = [span for span in trace if span["parent_id"] is None]
    (attempt,) = [span for span in trace if span["name"] == "attempt"]
    parts = [span for span in trace if service_of(span) == "cstar-runner"]

    assert request["name"] == "POST /v1/models"
    assert attempt["parent_id"] == request["context"]["span_id"]
    assert [part["name"] for part in parts] == ["importing", "validate_model"]
    assert {part["parent_id"] for part in parts} == {attempt["context"]["span_id"]}
    assert all(attempt["start_time"] <= part["start_time"] for part in parts)


def test_every_process_logs_json_with_the_ids_of_the_job(
    stack: Stack, job: Job, runner_log: str
) -> None:
    texts = {name: (stack.logs / f"{name}.log").read_text() for name in ("api", "io")}
    texts["runner"] = runner_log
    about = {
        name: [line for line in parsed(text) if line.get("job_id") == job.id]
        for name, text in texts.items()
    }

    assert {name: bool(lines) for name, lines in about.items()} == dict.fromkeys(texts, True)
    assert {line["service"] for lines in about.values() for line in lines} == {
        "api",
        "worker",
        "runner",
    }
    (request_id,) = {line["request_id"] for lines in about.values() for line in lines}
    assert request_id.startswith("req_")
    for line in about["runner"]:
        assert (line["attempt"], line["worker_id"]) == ("1", job.worker_id)


def test_nothing_but_json_is_in_the_logs_of_our_processes(stack: Stack, runner_log: str) -> None:
    texts = [(stack.logs / f"{name}.log").read_text() for name in ("api", "scheduler")]
    for line in "".join([*texts, runner_log]).splitlines():
        assert json.loads(line)["level"]


def test_metrics_tell_of_the_job_and_its_worker(stack: Stack, client: Client, job: Job) -> None:
    text = client.transport.send("GET", "/metrics").text
    names = {
        sample.name: sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("kind") == job.kind or sample.labels.get("queue") == "io"
    }
    assert {"cstar_jobs_ended_total", "cstar_workers", "cstar_recent_run_seconds"} <= set(names)
