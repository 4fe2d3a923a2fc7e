"""What an operator's Prometheus reads, and who may."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.dependencies import open_services
from api.system.metrics import render
from store import leases, records
from store.blobs import remember
from store.database import Database, database_now
from store.lifecycle import dispatch
from store.measures import measure
from store.settings import Settings
from store.states import Damage, ErrorCode, JobState
from store.tables import Blob, Job, JobEvent, OutboxMessage, Worker
from tests.support import rows

Samples = dict[tuple[str, tuple[str, ...]], float]


def parsed(text: str) -> Samples:
    """Return every sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(database: Database) -> Samples:
    with database.reading() as session:
        return parsed(render(measure(session), {}).decode())


def queued(database: Database, **columns: Any) -> str:
    """Add a queued job with the event that says so."""
    job_id = rows.add_job(database, event_count=1, **columns)
    with database.writing() as session:
        now = database_now(session)
        event = {"job_id": job_id, "seq": 1, "type": "job.queued", "attempt": 0, "data": {}}
        session.add(JobEvent(**event, created_at=now))
    return job_id


def test_an_empty_service_is_measured(database: Database) -> None:
    samples = scraped(database)
    assert samples["cstar_outbox_messages", ()] == 0
    assert samples["cstar_blob_bytes", ()] == 0
    assert samples["cstar_expired_leases", ()] == 0


def test_waiting_jobs_are_counted_by_queue_and_kind(database: Database) -> None:
    for kind, queue in (("compress", "gpu.default"), ("compress", "gpu.default"), ("plan", "io")):
        queued(database, kind=kind, queue=queue)
    samples = scraped(database)
    assert samples["cstar_queue_depth", ("gpu.default",)] == 2
    assert samples["cstar_queue_depth", ("io",)] == 1
    assert samples["cstar_jobs", ("plan", "io", "queued")] == 1


def test_a_queue_that_has_emptied_is_still_told_of(database: Database) -> None:
    """Else a scaler sees no figure in the place of 0."""
    rows.job_in(database, JobState.SUCCEEDED)
    samples = scraped(database)
    assert samples["cstar_queue_depth", ("gpu.default",)] == 0
    assert samples["cstar_queue_oldest_wait_seconds", ("gpu.default",)] == 0


def test_a_job_that_came_back_waits_since_it_came_back(database: Database) -> None:
    job_id = queued(database)
    with database.writing() as session:
        job, event = session.get_one(Job, job_id), session.get_one(JobEvent, (job_id, 1))
        job.created_at = database_now(session) - timedelta(days=3)
        event.created_at = database_now(session) - timedelta(seconds=100)
    wait = scraped(database)["cstar_queue_oldest_wait_seconds", ("gpu.default",)]
    assert 100 <= wait < 86_400


def test_endings_are_counted_by_outcome_and_error(database: Database) -> None:
    for state in (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        rows.job_in(database, state)
    samples = scraped(database)
    assert samples["cstar_jobs_ended_total", ("compress", "succeeded")] == 2
    assert samples["cstar_jobs_ended_total", ("compress", "cancelled")] == 1
    assert samples["cstar_job_errors_total", ("diverged",)] == 1


def test_attempts_and_expirations_are_counted(database: Database) -> None:
    lost, kept = rows.running_job(database), rows.running_job(database)
    rows.expire(database, lost.job_id)
    assert scraped(database)["cstar_expired_leases", ()] == 1
    rows.reap(database)
    samples = scraped(database)
    assert samples["cstar_expired_leases", ()] == 0
    assert samples["cstar_attempts_total", (ErrorCode.WORKER_LOST,)] == 1
    assert samples["cstar_running_attempts", ()] == 1
    assert kept.job_id


def test_the_outbox_tells_how_far_it_lags(database: Database) -> None:
    job_id = queued(database)
    with database.writing() as session:
        dispatch(session, session.get_one(Job, job_id))
        session.flush()
        call = session.query(OutboxMessage).one()
        call.created_at = database_now(session) - timedelta(seconds=42)
    samples = scraped(database)
    assert samples["cstar_outbox_messages", ()] == 1
    assert 42 <= samples["cstar_outbox_lag_seconds", ()] < 3600


def test_a_call_that_is_not_due_yet_does_not_lag(database: Database) -> None:
    job_id = queued(database)
    with database.writing() as session:
        dispatch(session, session.get_one(Job, job_id))
        session.flush()
        call = session.query(OutboxMessage).one()
        call.created_at = database_now(session) - timedelta(seconds=500)
        call.due_at = database_now(session) + timedelta(seconds=100)
    assert scraped(database)["cstar_outbox_lag_seconds", ()] == 0


def test_only_workers_heard_of_lately_are_alive(database: Database) -> None:
    with database.writing() as session:
        now = database_now(session)
        for name, silent_s, queues in (("a", 1, ["io"]), ("b", 2, ["io", "x"]), ("c", 999, ["io"])):
            seen = now - timedelta(seconds=silent_s)
            facts = {"hostname": "host", "pid": 1, "queues": queues, "facts": {}}
            session.add(Worker(id=name, **facts, started_at=seen, last_seen_at=seen))
    samples = scraped(database)
    assert samples["cstar_workers", ("io",)] == 2
    assert samples["cstar_workers", ("x",)] == 1


def test_blobs_are_counted_with_their_bytes(database: Database) -> None:
    with database.writing() as session:
        for content in (b"four", b"sixsix"):
            remember(session, rows.blob_of(content))
    samples = scraped(database)
    assert (samples["cstar_blobs", ()], samples["cstar_blob_bytes", ()]) == (2, 10)


def test_blobs_that_a_scrub_found_damaged_are_counted(database: Database) -> None:
    with database.writing() as session:
        for content, damage in (
            (b"rotten", Damage.DAMAGED),
            (b"gone", Damage.MISSING),
            (b"", None),
        ):
            remember(session, rows.blob_of(content))
            session.get_one(Blob, rows.blob_of(content).sha256).damage = damage
    assert scraped(database)["cstar_damaged_blobs", ()] == 2


def test_the_times_of_ended_jobs_are_told_by_phase(database: Database) -> None:
    lease = rows.running_job(database)
    with database.writing() as session:
        for phase in ("checking", "admm"):
            records.record_progress(session, lease, phase=phase, progress=0.5, eta_s=None)
            blob = rows.blob_of(phase.encode())
            records.record_checkpoint(session, lease, phase=phase, blob=blob, finished=True)
        for event in session.query(JobEvent).filter_by(type="phase.started"):
            event.created_at -= timedelta(seconds=30)
        assert leases.fail(session, lease, code=ErrorCode.DIVERGED, message="no", retryable=False)
    samples = scraped(database)
    for phase in ("checking", "admm"):
        assert 30 <= samples["cstar_recent_phase_seconds", ("compress", phase, "0.95")] < 3600
    assert ("cstar_recent_run_seconds", ("compress", "0.5")) in samples


def test_metrics_need_no_key_and_are_in_the_format_of_prometheus(anonymous: Any) -> None:
    response = anonymous.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert ("cstar_outbox_messages", ()) in parsed(response.text)


@pytest.fixture
def guarded(app: FastAPI, settings: Settings) -> Iterator[None]:
    """The application with a token of the scraper's own."""
    token = {"metrics_token": SecretStr("of the scraper")}
    app.state.services = open_services(settings.model_copy(update=token))
    yield
    app.state.services.database.dispose()


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer of the scraper", 200), ("Bearer another", 401), ("Basic x", 401), ("", 401)],
)
def test_a_token_keeps_others_away(anonymous: Any, given: str, status: int) -> None:
    headers = {"Authorization": given} if given else {}
    assert anonymous.get("/metrics", headers=headers).status_code == status


def test_asking_again_at_once_does_not_ask_the_database_again(
    anonymous: Any, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.system.metrics.MAX_AGE_S", 3600.0)
    first = anonymous.get("/metrics").text
    rows.job_in(app.state.services.database, JobState.SUCCEEDED)
    assert anonymous.get("/metrics").text == first
