"""Claiming a job, keeping it, giving it back, and ending it with an error."""

from __future__ import annotations

from datetime import timedelta

import pytest

from store import leases
from store.database import Database, database_now
from store.leases import Lease
from store.lifecycle import LeaseLost
from store.states import ErrorCode, JobState
from store.tables import JobAttempt, OutboxMessage
from tests.support.databases import contents
from tests.support.rows import (
    LEASE_S,
    WORKER,
    add_job,
    claim,
    count,
    event_types,
    events,
    expire,
    job_in,
    move,
    read_attempt,
    read_job,
    running_job,
)


def heartbeat(database: Database, lease: Lease) -> JobState:
    with database.writing() as session:
        return leases.heartbeat(session, lease, lease_s=LEASE_S)


def give_back(database: Database, lease: Lease) -> bool:
    with database.writing() as session:
        return leases.give_back(session, lease)


def lose(database: Database, lease: Lease, *, max_attempts: int = 3) -> str | None:
    with database.writing() as session:
        job = leases.lose(
            session,
            lease,
            code=ErrorCode.OUT_OF_MEMORY,
            message="killed by signal 9",
            max_attempts=max_attempts,
        )
        return job.state if job is not None else None


def test_a_claim_begins_an_attempt_with_a_lease_from_now_on(database: Database) -> None:
    job_id = add_job(database)
    with database.writing() as session:
        now = database_now(session)
        lease = leases.claim(session, job_id, worker_id=WORKER, lease_s=LEASE_S)
    assert lease is not None
    job = read_job(database, job_id)
    assert (job.state, job.attempt, job.worker_id) == (JobState.RUNNING, lease.attempt, WORKER)
    assert job.lease_token == lease.token
    assert job.lease_expires_at is not None
    assert job.lease_expires_at >= now + timedelta(seconds=LEASE_S)
    assert job.started_at is not None
    assert read_attempt(database, job_id, 1).worker_id == WORKER
    assert event_types(database, job_id) == ["job.running"]


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.QUEUED}))
def test_only_a_queued_job_can_be_claimed(database: Database, state: JobState) -> None:
    job_id = job_in(database, state).job_id
    before = contents(database)
    with database.writing() as session:
        assert leases.claim(session, job_id, worker_id="another", lease_s=LEASE_S) is None
    assert contents(database) == before


def test_a_second_claim_gets_another_token_and_number_but_keeps_the_starting_time(
    database: Database,
) -> None:
    first = running_job(database)
    started = read_job(database, first.job_id).started_at
    give_back(database, first)
    second = claim(database, first.job_id, worker_id="worker-2")
    assert second.token != first.token
    assert (first.attempt, second.attempt) == (1, 2)
    assert read_job(database, first.job_id).started_at == started
    assert count(database, JobAttempt) == 2


def test_a_heartbeat_extends_the_lease(database: Database) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    with database.writing() as session:
        now = database_now(session)
        leases.heartbeat(session, lease, lease_s=LEASE_S)
    expires = read_job(database, lease.job_id).lease_expires_at
    assert expires is not None
    assert expires >= now + timedelta(seconds=LEASE_S)


def test_a_heartbeat_leaves_no_event(database: Database) -> None:
    lease = running_job(database)
    heartbeat(database, lease)
    assert event_types(database, lease.job_id) == ["job.running"]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING])
def test_a_heartbeat_says_what_the_client_wants(database: Database, state: JobState) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    assert heartbeat(database, lease) is state


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED])
def test_a_heartbeat_of_an_attempt_that_ended_raises(database: Database, state: JobState) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    with pytest.raises(LeaseLost):
        heartbeat(database, lease)


def test_a_job_given_back_is_queued_again_without_counting_the_attempt(database: Database) -> None:
    lease = running_job(database)
    assert give_back(database, lease)
    job = read_job(database, lease.job_id)
    assert (job.state, job.lost_attempts, job.worker_id) == (JobState.QUEUED, 0, None)
    assert read_attempt(database, lease.job_id, 1).outcome == "released"
    assert count(database, OutboxMessage) == 1
    assert events(database, lease.job_id)[-1].data == {"reason": "worker_drained"}


def test_a_job_may_be_given_back_more_often_than_it_may_be_lost(database: Database) -> None:
    job_id = add_job(database)
    for _ in range(5):
        give_back(database, claim(database, job_id))
    assert lose(database, claim(database, job_id), max_attempts=2) == JobState.QUEUED


@pytest.mark.parametrize(
    ("state", "settled"),
    [(JobState.PAUSING, JobState.PAUSED), (JobState.CANCELLING, JobState.CANCELLED)],
)
def test_a_job_given_back_ends_where_the_client_wanted_it(
    database: Database, state: JobState, settled: JobState
) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    assert give_back(database, lease)
    assert read_job(database, lease.job_id).state == settled
    assert read_attempt(database, lease.job_id, 1).outcome == settled
    assert count(database, OutboxMessage) == 0


def test_a_running_job_that_nobody_asked_to_stop_does_not_settle(database: Database) -> None:
    lease = running_job(database)
    before = contents(database)
    with database.writing() as session:
        assert leases.settle(session, lease) is None
    assert contents(database) == before


def test_a_paused_job_that_is_resumed_runs_again(database: Database) -> None:
    lease = job_in(database, JobState.PAUSED).lease
    assert lease is not None
    assert move(database, lease.job_id, JobState.QUEUED)
    assert claim(database, lease.job_id).attempt == 2


def test_a_lost_attempt_counts_and_says_why(database: Database) -> None:
    lease = running_job(database)
    assert lose(database, lease) == JobState.QUEUED
    assert read_job(database, lease.job_id).lost_attempts == 1
    assert read_attempt(database, lease.job_id, 1).outcome == ErrorCode.OUT_OF_MEMORY
    assert events(database, lease.job_id)[-1].data == {
        "reason": "out_of_memory",
        "message": "killed by signal 9",
    }


def test_the_last_attempt_that_may_be_lost_fails_the_job(database: Database) -> None:
    job_id = add_job(database)
    states = [lose(database, claim(database, job_id)) for _ in range(3)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert read_job(database, job_id).error == {
        "code": "out_of_memory",
        "message": "killed by signal 9",
        "retryable": True,
        "phase": None,
        "attempt": 3,
    }


@pytest.mark.parametrize(
    ("state", "settled"),
    [(JobState.PAUSING, JobState.PAUSED), (JobState.CANCELLING, JobState.CANCELLED)],
)
def test_a_lost_attempt_ends_where_the_client_wanted_it(
    database: Database, state: JobState, settled: JobState
) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    assert lose(database, lease, max_attempts=1) == settled


def test_a_failure_says_what_where_and_whether_to_try_again(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        leases.fail(
            session,
            lease,
            code=ErrorCode.TARGET_INFEASIBLE,
            message="a ratio of 40 cannot be met",
            retryable=False,
            details={"largest_ratio": 31.5},
        )
    job = read_job(database, lease.job_id)
    expected = {
        "code": "target_infeasible",
        "message": "a ratio of 40 cannot be met",
        "retryable": False,
        "phase": None,
        "attempt": 1,
        "largest_ratio": 31.5,
    }
    assert (job.state, job.error) == (JobState.FAILED, expected)
    assert events(database, lease.job_id)[-1].data == expected
    assert read_attempt(database, lease.job_id, 1).outcome == JobState.FAILED


@pytest.mark.parametrize("state", [JobState.PAUSING, JobState.CANCELLING])
def test_a_job_that_fails_while_it_is_asked_to_stop_fails(
    database: Database, state: JobState
) -> None:
    lease = job_in(database, state).lease
    assert lease is not None
    with database.writing() as session:
        leases.fail(session, lease, code=ErrorCode.INTERNAL, message="no", retryable=True)
    assert read_job(database, lease.job_id).state == JobState.FAILED
