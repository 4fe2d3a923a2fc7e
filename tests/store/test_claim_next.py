"""Serving the line: a wake-up call takes the first job of its queue."""

from __future__ import annotations

from store import leases
from store.database import Database
from store.leases import Lease
from tests.support.rows import LEASE_S, WORKER, add_job
from tests.support.threads import at_once


def claim_next(database: Database, job_id: str) -> Lease | None:
    with database.writing() as session:
        return leases.claim_next(session, job_id, worker_id=WORKER, lease_s=LEASE_S)


def claimed(database: Database, job_id: str) -> str | None:
    lease = claim_next(database, job_id)
    return lease and lease.job_id


def test_the_higher_priority_goes_first_then_the_older(database: Database) -> None:
    older, newer = sorted([add_job(database), add_job(database)])
    urgent = add_job(database, priority=5)

    assert [claimed(database, older) for _ in range(4)] == [urgent, older, newer, None]


def test_another_queue_is_left_alone(database: Database) -> None:
    here, there = add_job(database, queue="io"), add_job(database, queue="gpu.default")

    assert [claimed(database, here), claimed(database, here)] == [here, None]
    assert claimed(database, there) == there


def test_a_call_for_an_unknown_job_takes_nothing(database: Database) -> None:
    add_job(database)

    assert claim_next(database, "job_unknown") is None


def test_workers_that_call_at_once_get_a_job_each(database: Database) -> None:
    jobs = [add_job(database) for _ in range(4)]
    results = at_once([lambda: claimed(database, jobs[0]) for _ in jobs])

    assert sorted(result for result in results if result) == sorted(jobs)
