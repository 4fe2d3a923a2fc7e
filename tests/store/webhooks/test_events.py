"""What happened is told in the transaction in which it happens, to those who want to know."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select

from store import leases, records
from store.database import Database
from store.records import fail_subject
from store.states import ErrorCode, JobKind, JobState
from store.submit import submit
from store.tables import Dataset, Model, WebhookDelivery, WebhookEndpoint
from store.webhooks import events
from tests.support import rows
from tests.support.databases import interrupted
from tests.support.threads import await_lock_wait, in_background
from tests.support.webhooks import add_endpoint, deliveries_of, read_endpoint


def types(database: Database, endpoint_id: str) -> list[str]:
    return [delivery.type for delivery in deliveries_of(database, endpoint_id)]


def message(database: Database, endpoint_id: str) -> dict[str, Any]:
    """Return the newest message to an endpoint."""
    found: dict[str, Any] = json.loads(deliveries_of(database, endpoint_id)[-1].body)
    return found


def ended_validation(database: Database, kind: JobKind, reasons: list[dict[str, str]]) -> str:
    """Let a validation end with these findings; returns an endpoint of its tenant."""
    lease = rows.claim(database, rows.add_validation(database, kind))
    endpoint_id = add_endpoint(database, rows.read_job(database, lease.job_id).tenant_id)
    finish = {
        JobKind.VALIDATE_MODEL: partial(records.finish_model_validation, weights=None),
        JobKind.VALIDATE_DATASET: partial(records.finish_dataset_validation, blob=None),
    }[kind]
    with database.writing() as session:
        finish(session, lease, findings={"reasons": reasons})
    return endpoint_id


def test_every_state_a_client_waits_for_is_told_in_its_order(database: Database) -> None:
    tenant_id = rows.add_tenant(database)
    endpoint_id = add_endpoint(database, tenant_id)
    with database.writing() as session:
        values = {"tenant_id": tenant_id, "queue": "cpu.default", "request": {}}
        job = submit(session, kind=JobKind.COMPRESS, **values)
    lease = rows.claim(database, job.id)
    rows.move(database, job.id, JobState.PAUSING)
    with database.writing() as session:
        leases.settle(session, lease)
    rows.move(database, job.id, JobState.QUEUED)
    rows.move(database, job.id, JobState.CANCELLED)
    told = ["queued", "running", "paused", "queued", "cancelled"]
    assert types(database, endpoint_id) == [f"job.{state}" for state in told]


def test_a_transition_that_is_undone_tells_nothing(database: Database) -> None:
    lease = rows.running_job(database)
    endpoint_id = add_endpoint(database, rows.read_job(database, lease.job_id).tenant_id)
    with interrupted(database) as session:
        records.finish(session, lease, result={}, files=[])
        assert session.scalars(select(WebhookDelivery)).all()
    assert types(database, endpoint_id) == []
    assert rows.read_job(database, lease.job_id).state == JobState.RUNNING


def test_a_transition_that_somebody_else_made_first_tells_nothing(database: Database) -> None:
    job_id = rows.add_job(database)
    endpoint_id = add_endpoint(database, rows.read_job(database, job_id).tenant_id)
    assert rows.move(database, job_id, JobState.CANCELLED)
    assert rows.move(database, job_id, JobState.CANCELLED) is None
    assert types(database, endpoint_id) == ["job.cancelled"]


def test_only_enabled_endpoints_of_the_tenant_that_want_the_event_are_told(
    database: Database,
) -> None:
    job_id = rows.add_job(database)
    tenant_id = rows.read_job(database, job_id).tenant_id
    told = [
        add_endpoint(database, tenant_id),
        add_endpoint(database, tenant_id, events=["job.failed", "job.cancelled"]),
    ]
    untold = [
        add_endpoint(database, tenant_id, events=["job.succeeded"]),
        add_endpoint(database, tenant_id, enabled=False),
        add_endpoint(database, rows.add_tenant(database)),
    ]
    rows.move(database, job_id, JobState.CANCELLED)
    assert [types(database, one) for one in told] == [["job.cancelled"]] * 2
    assert [types(database, one) for one in untold] == [[]] * 3
    first, second = [deliveries_of(database, one)[0] for one in told]
    assert first.message_id == second.message_id
    assert first.id != second.id


def test_a_message_says_what_and_where_and_no_more(database: Database) -> None:
    job_id = rows.add_job(database, labels={"team": "vision", "nul": "\0"}, request={"secret": "x"})
    endpoint_id = add_endpoint(database, rows.read_job(database, job_id).tenant_id)
    lease = rows.claim(database, job_id)
    with database.writing() as session:
        error = {"code": ErrorCode.DIVERGED, "message": "a long story", "retryable": True}
        leases.fail(session, lease, **error)
    told = message(database, endpoint_id)
    assert told.keys() == {"type", "timestamp", "data"}
    assert datetime.fromisoformat(told["timestamp"]).tzinfo is not None
    assert told["type"] == "job.failed"
    assert told["data"] == {
        "object": "job",
        "id": job_id,
        "kind": "compress",
        "state": "failed",
        "attempt": 1,
        "model_id": None,
        "dataset_id": None,
        "labels": {"team": "vision", "nul": "\0"},
        "error": {"code": "diverged", "retryable": True},
        "url": f"/v1/jobs/{job_id}",
    }


def test_a_message_stays_small_whatever_the_labels_are(database: Database) -> None:
    job_id = rows.add_job(database, labels={"essay": "a" * 500_000})
    endpoint_id = add_endpoint(database, rows.read_job(database, job_id).tenant_id)
    rows.move(database, job_id, JobState.CANCELLED)
    assert message(database, endpoint_id)["data"]["labels"] is None
    assert len(deliveries_of(database, endpoint_id)[0].body) < 2000


@pytest.mark.parametrize(
    ("kind", "reasons", "event"),
    [
        (JobKind.VALIDATE_MODEL, [{"code": "not_finite", "detail": "NaN"}], "model.rejected"),
        (JobKind.VALIDATE_DATASET, [{"code": "empty_split", "detail": "no"}], "dataset.rejected"),
    ],
)
def test_a_rejection_is_told_with_its_reasons_and_not_as_a_job(
    database: Database, kind: JobKind, reasons: list[dict[str, str]], event: str
) -> None:
    endpoint_id = ended_validation(database, kind, reasons)
    assert types(database, endpoint_id) == [event]
    data = message(database, endpoint_id)["data"]
    assert (data["status"], data["reasons"]) == ("rejected", [reasons[0]["code"]])


@pytest.mark.parametrize(
    ("kind", "event"),
    [(JobKind.VALIDATE_MODEL, "model.ready"), (JobKind.VALIDATE_DATASET, "dataset.ready")],
)
def test_what_is_ready_is_told(database: Database, kind: JobKind, event: str) -> None:
    endpoint_id = ended_validation(database, kind, [])
    assert types(database, endpoint_id) == [event]
    table = Model if kind is JobKind.VALIDATE_MODEL else Dataset
    with database.reading() as session:
        subject_id = session.scalars(select(table.id)).one()
    data = message(database, endpoint_id)["data"]
    assert data["id"] == subject_id
    assert data["url"].endswith(f"s/{subject_id}")


def test_a_validation_that_could_not_be_carried_out_is_told_as_a_rejection(
    database: Database,
) -> None:
    lease = rows.claim(database, rows.add_validation(database, JobKind.VALIDATE_MODEL))
    endpoint_id = add_endpoint(database, rows.read_job(database, lease.job_id).tenant_id)
    with database.writing() as session:
        error = {"code": ErrorCode.WORKER_LOST, "message": "it died", "retryable": True}
        job = leases.fail(session, lease, **error)
        assert job is not None
        fail_subject(session, job)
    assert types(database, endpoint_id) == ["model.rejected"]
    assert message(database, endpoint_id)["data"]["reasons"] == ["worker_lost"]


def test_an_endpoint_that_is_deleted_meanwhile_does_not_fail_the_transition(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgresql_database
    job_id = rows.add_job(database)
    endpoint_id = add_endpoint(database, rows.read_job(database, job_id).tenant_id)

    def remove() -> None:
        with database.writing() as session:
            session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id))

    with ThreadPoolExecutor(1) as pool:
        removals: list[Future[None]] = []

        def once_chosen(*arguments: Any) -> str:
            """Delete the endpoint that has just been found to want the event."""
            removals.append(pool.submit(remove))
            await_lock_wait(database, removals[0])
            return body_of(*arguments)

        body_of = events._body
        monkeypatch.setattr(events, "_body", once_chosen)
        assert rows.move(database, job_id, JobState.CANCELLED)
        removals[0].result(30)
    assert rows.read_job(database, job_id).state == JobState.CANCELLED
    assert rows.count(database, WebhookDelivery) == 0


def test_a_transition_does_not_wait_for_a_change_of_an_endpoint(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    job_id = rows.add_job(database)
    endpoint_id = add_endpoint(database, rows.read_job(database, job_id).tenant_id)
    with database.writing() as session:
        endpoint = session.get_one(
            WebhookEndpoint, endpoint_id, with_for_update={"key_share": True}
        )
        endpoint.description = "being changed"
        session.flush()
        with in_background(partial(rows.move, database, job_id, JobState.CANCELLED)) as moving:
            assert moving.result(30) is not None
    assert read_endpoint(database, endpoint_id).description == "being changed"
    assert types(database, endpoint_id) == ["job.cancelled"]
