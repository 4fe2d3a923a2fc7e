"""Taking jobs back from those who died, and waking the workers again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from store import leases
from store.database import Database, database_now
from store.leases import redispatch
from store.outbox import pending
from store.states import LEASED, JobState
from store.tables import Job, OutboxMessage
from tests.support.databases import contents
from tests.support.rows import (
    LEASE_S,
    add_job,
    claim,
    count,
    events,
    expire,
    job_in,
    read_attempt,
    read_job,
    reap,
    running_job,
)


def dispatched(database: Database, job_id: str, *, seconds_ago: float) -> None:
    """Let the wake-up call of a job have been published some time ago."""
    with database.writing() as session:
        then = database_now(session) - timedelta(seconds=seconds_ago)
        session.execute(update(Job).where(Job.id == job_id).values(dispatched_at=then))


def redispatched(database: Database) -> list[str]:
    with database.writing() as session:
        return redispatch(session, after_s=60.0)


def test_a_job_whose_lease_ran_out_is_queued_again_with_a_wake_up_call(database: Database) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    assert reap(database) == [lease.job_id]
    job = read_job(database, lease.job_id)
    assert (job.state, job.lost_attempts, job.lease_token) == (JobState.QUEUED, 1, None)
    assert read_attempt(database, lease.job_id, 1).outcome == "worker_lost"
    assert events(database, lease.job_id)[-1].data["reason"] == "worker_lost"
    with database.reading() as session:
        assert [call.job_id for call in pending(session)] == [lease.job_id]


@pytest.mark.parametrize("state", sorted(LEASED))
def test_a_lease_that_holds_is_left_alone(database: Database, state: JobState) -> None:
    job_in(database, state)
    before = contents(database)
    assert reap(database) == []
    assert contents(database) == before


def test_a_heartbeat_in_time_saves_a_job_from_the_reaper(database: Database) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    with database.writing() as session:
        leases.heartbeat(session, lease, lease_s=LEASE_S)
    assert reap(database) == []


def test_a_job_that_was_lost_too_often_fails(database: Database) -> None:
    job_id = add_job(database)
    for _ in range(3):
        claim(database, job_id)
        expire(database, job_id)
        reap(database, max_attempts=3)
    job = read_job(database, job_id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["retryable"]) == ("worker_lost", True)
    assert "worker-1" in job.error["message"]


@pytest.mark.parametrize(
    ("state", "settled"),
    [(JobState.CANCELLING, JobState.CANCELLED), (JobState.PAUSING, JobState.PAUSED)],
)
def test_a_job_that_was_asked_to_stop_stops_when_its_worker_is_lost(
    database: Database, state: JobState, settled: JobState
) -> None:
    job_id = job_in(database, state).job_id
    expire(database, job_id)
    assert reap(database, max_attempts=1) == [job_id]
    assert read_job(database, job_id).state == settled
    assert count(database, OutboxMessage) == 0


def test_every_lease_that_ran_out_is_taken_back_at_once(database: Database) -> None:
    lost = {running_job(database).job_id for _ in range(3)}
    kept = running_job(database).job_id
    for job_id in lost:
        expire(database, job_id)
    assert set(reap(database)) == lost
    assert read_job(database, kept).state == JobState.RUNNING


def test_reaping_twice_takes_a_job_back_once(database: Database) -> None:
    lease = running_job(database)
    expire(database, lease.job_id)
    assert (reap(database), reap(database)) == ([lease.job_id], [])
    assert read_job(database, lease.job_id).lost_attempts == 1


def test_a_queued_job_that_nobody_claimed_is_called_for_again(database: Database) -> None:
    job_id = add_job(database)
    dispatched(database, job_id, seconds_ago=61)
    assert redispatched(database) == [job_id]
    with database.reading() as session:
        assert [call.job_id for call in pending(session)] == [job_id]


def test_a_job_is_called_for_once_until_that_call_is_published(database: Database) -> None:
    job_id = add_job(database)
    dispatched(database, job_id, seconds_ago=61)
    assert (redispatched(database), redispatched(database)) == ([job_id], [])


def test_a_job_that_waits_again_is_not_judged_by_its_earlier_call(database: Database) -> None:
    job_id = add_job(database)
    dispatched(database, job_id, seconds_ago=3600)
    claim(database, job_id)
    expire(database, job_id)
    reap(database)
    assert redispatched(database) == []


def test_a_call_that_was_just_published_is_given_time(database: Database) -> None:
    dispatched(database, add_job(database), seconds_ago=30)
    assert redispatched(database) == []


def test_a_job_whose_call_is_not_yet_published_is_not_called_for_twice(database: Database) -> None:
    add_job(database)
    assert redispatched(database) == []


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.QUEUED}))
def test_a_job_that_does_not_wait_is_not_called_for(database: Database, state: JobState) -> None:
    job_id = job_in(database, state).job_id
    dispatched(database, job_id, seconds_ago=3600)
    assert redispatched(database) == []
