"""An attempt that was declared lost can never write again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from store import leases, records
from store.database import Database
from store.leases import Lease
from store.lifecycle import LeaseLost
from store.records import ArtifactFile, MetricPoint
from store.states import ErrorCode, JobKind
from tests.support.databases import contents
from tests.support.rows import (
    LEASE_S,
    add_validation,
    blob_of,
    claim,
    expire,
    reap,
    running_job,
)

BLOB = blob_of(b"bytes of the attempt that was lost")
ARTIFACT = ArtifactFile("report", "report.json", "application/json", BLOB)
FINDINGS: dict[str, Any] = {"reasons": []}
FAILURE: Any = {"code": ErrorCode.INTERNAL, "message": "no"}

RAISING: dict[str, Callable[[Session, Lease], object]] = {
    "heartbeat": lambda s, lease: leases.heartbeat(s, lease, lease_s=LEASE_S),
    "progress": lambda s, lease: records.record_progress(
        s, lease, phase="admm", progress=0.5, eta_s=10.0
    ),
    "event": lambda s, lease: records.record_event(s, lease, "note", {}),
    "metrics": lambda s, lease: records.record_metrics(
        s, lease, [MetricPoint("admm", "loss", 1, 0.5)]
    ),
    "no metrics": lambda s, lease: records.record_metrics(s, lease, []),
    "log": lambda s, lease: records.record_log(s, lease, "a line"),
    "checkpoint": lambda s, lease: records.record_checkpoint(s, lease, phase="admm", blob=BLOB),
    "finish": lambda s, lease: records.finish(s, lease, result={}, files=[ARTIFACT]),
    "finish of a model": lambda s, lease: records.finish_model_validation(
        s, lease, findings=FINDINGS, weights=BLOB
    ),
    "finish of a data set": lambda s, lease: records.finish_dataset_validation(
        s, lease, findings=FINDINGS, blob=BLOB
    ),
}
REFUSED: dict[str, Callable[[Session, Lease], object]] = {
    "fail": lambda s, lease: leases.fail(s, lease, **FAILURE, retryable=True),
    "lose": lambda s, lease: leases.lose(s, lease, **FAILURE, max_attempts=3),
    "lose for good": lambda s, lease: leases.lose(s, lease, **FAILURE, max_attempts=1),
    "settle": leases.settle,
    "give back": lambda s, lease: leases.give_back(s, lease) or None,
}


def replaced(database: Database, lease: Lease) -> None:
    """Take the job from its attempt and give it to another one."""
    expire(database, lease.job_id)
    assert reap(database) == [lease.job_id]
    claim(database, lease.job_id, worker_id="worker-2")


@pytest.mark.parametrize("write", RAISING.values(), ids=RAISING)
def test_a_replaced_attempt_is_told_and_writes_nothing(
    database: Database, write: Callable[[Session, Lease], object]
) -> None:
    lease = running_job(database)
    replaced(database, lease)
    before = contents(database)
    with pytest.raises(LeaseLost), database.writing() as session:
        write(session, lease)
    assert contents(database) == before


@pytest.mark.parametrize("write", RAISING.values(), ids=RAISING)
def test_a_write_that_is_refused_leaves_nothing_even_when_the_transaction_is_committed(
    database: Database, write: Callable[[Session, Lease], object]
) -> None:
    lease = running_job(database)
    replaced(database, lease)
    before = contents(database)
    with database.writing() as session, pytest.raises(LeaseLost):
        write(session, lease)
    assert contents(database) == before


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
def test_a_replaced_attempt_does_not_move_its_job(
    database: Database, write: Callable[[Session, Lease], object]
) -> None:
    lease = running_job(database)
    replaced(database, lease)
    before = contents(database)
    with database.writing() as session:
        assert write(session, lease) is None
    assert contents(database) == before


@pytest.mark.parametrize("write", RAISING.values(), ids=RAISING)
def test_a_reaped_attempt_writes_nothing_before_another_begins(
    database: Database, write: Callable[[Session, Lease], object]
) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    reap(database)
    with pytest.raises(LeaseLost), database.writing() as session:
        write(session, lease)


@pytest.mark.parametrize(
    "name", sorted(set(RAISING) - {"finish of a model", "finish of a data set"})
)
def test_the_attempt_that_replaced_it_writes(database: Database, name: str) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    reap(database)
    second = claim(database, lease.job_id)
    with database.writing() as session:
        RAISING[name](session, second)


def test_a_replaced_validation_does_not_touch_its_model(database: Database) -> None:
    lease = claim(database, add_validation(database, JobKind.VALIDATE_MODEL))
    replaced(database, lease)
    before = contents(database)
    with pytest.raises(LeaseLost), database.writing() as session:
        records.finish_model_validation(session, lease, findings=FINDINGS, weights=BLOB)
    assert contents(database) == before
