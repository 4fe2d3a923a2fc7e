"""Taking jobs back from those who died, and waking the workers again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from store import leases
from store.database import Database, database_now
from store.leases import redispatch
from store.lifecycle import dispatch
from store.outbox import pending
from store.states import LEASED, ErrorCode, JobState
from store.tables import Job, JobAttempt, OutboxMessage
from tests.support.databases import contents
from tests.support.rows import (
    LEASE_S,
    add_job,
    claim,
    count,
    events,
    expire,
    job_in,
    move,
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


def redispatched(database: Database, **published: int) -> list[str]:
    """Call again for unclaimed jobs; `published`: calls that wait in the broker, by queue."""
    with database.writing() as session:
        return redispatch(session, after_s=60.0, published=published)


def unclaimed(database: Database, number: int, *, queue: str = "io") -> list[str]:
    """Add jobs that nobody claimed although they were called for."""
    jobs = sorted(add_job(database, queue=queue) for _ in range(number))
    for job_id in jobs:
        dispatched(database, job_id, seconds_ago=61)
    return jobs


def storage_failed(database: Database, job_id: str, *, full: bool) -> tuple[float, float] | None:
    """Lose an attempt to storage; returns for how long the job waits (None: it has failed).

    From a moment after the loss, and from one before it.
    """
    lease = claim(database, job_id)
    with database.writing() as session:
        before = database_now(session)
        job = leases.lose(
            session,
            lease,
            code=ErrorCode.STORAGE_ERROR,
            message="no room",
            max_attempts=3,
            full=full,
        )
        after = database_now(session)
    assert job is not None
    if job.available_at is None:
        return None
    return (job.available_at - after).total_seconds(), (job.available_at - before).total_seconds()


def pending_calls(database: Database) -> list[str]:
    with database.reading() as session:
        return [call.job_id for call in pending(session)]


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


def test_calls_that_wait_in_the_broker_are_not_made_again(database: Database) -> None:
    unclaimed(database, 5)
    assert redispatched(database, io=5) == []


def test_only_the_calls_that_the_broker_has_lost_are_made_again(database: Database) -> None:
    jobs = unclaimed(database, 5)
    assert redispatched(database, io=3) == jobs[:2]


def test_a_call_in_the_outbox_is_not_made_again(database: Database) -> None:
    jobs = unclaimed(database, 3)
    with database.writing() as session:
        dispatch(session, session.get_one(Job, jobs[0]))
    assert len(redispatched(database)) == 2


def test_more_calls_than_jobs_are_no_reason_for_another(database: Database) -> None:
    unclaimed(database, 2)
    assert redispatched(database, io=7) == []


def test_the_calls_of_one_queue_do_not_answer_for_another(database: Database) -> None:
    jobs = unclaimed(database, 2, queue="gpu.default")
    assert redispatched(database, io=5) == jobs


def test_a_job_called_for_in_the_future_is_called_for_again(database: Database) -> None:
    """The clock was set back since."""
    job_id = add_job(database)
    dispatched(database, job_id, seconds_ago=-3600)
    assert redispatched(database) == [job_id]


def test_a_lease_that_a_clock_set_back_has_prolonged_is_shortened(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        later = database_now(session) + timedelta(hours=5)
        session.execute(update(Job).values(lease_expires_at=later))
    with database.writing() as session:
        assert leases.shorten_leases(session, lease_s=LEASE_S) == 1
        limit = database_now(session) + timedelta(seconds=LEASE_S)
    expires = read_job(database, lease.job_id).lease_expires_at
    assert expires is not None
    assert expires <= limit


def test_a_lease_of_now_is_not_shortened(database: Database) -> None:
    running_job(database)
    with database.writing() as session:
        assert leases.shorten_leases(session, lease_s=LEASE_S) == 0


def test_a_worker_with_a_longer_lease_than_the_schedulers_keeps_it(database: Database) -> None:
    running_job(database)
    with database.writing() as session:
        assert leases.shorten_leases(session, lease_s=0.6 * LEASE_S) == 0


def test_the_time_between_the_end_of_a_lease_and_the_reaper_is_not_work(
    database: Database,
) -> None:
    """The machine was off over night."""
    lease = running_job(database)
    with database.writing() as session:
        now = database_now(session)
        evening, last_beat = now - timedelta(hours=10), now - timedelta(hours=9)
        session.execute(update(JobAttempt).values(started_at=evening))
        session.execute(update(Job).values(lease_expires_at=last_beat))
    reap(database)
    assert read_job(database, lease.job_id).running_s == pytest.approx(3600)


def test_a_job_whose_storage_was_full_waits_and_has_lost_no_attempt(database: Database) -> None:
    job_id = add_job(database)
    for wait_s in (15, 30, 60, 120, 240, 480, 600):
        found = storage_failed(database, job_id, full=True)
        assert found is not None
        assert found[0] <= wait_s <= found[1]
    assert (read_job(database, job_id).state, read_job(database, job_id).lost_attempts) == (
        JobState.QUEUED,
        0,
    )
    assert events(database, job_id)[-1].data["reason"] == "storage_error"


def test_the_call_for_a_job_that_waits_is_due_when_the_job_is(database: Database) -> None:
    job_id = add_job(database)
    storage_failed(database, job_id, full=True)
    assert pending_calls(database) == []
    with database.writing() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.execute(update(OutboxMessage).values(due_at=past))
    assert pending_calls(database) == [job_id]


def test_another_storage_error_counts_as_a_lost_attempt(database: Database) -> None:
    job_id = add_job(database)
    waits = [storage_failed(database, job_id, full=False) for _ in range(3)]
    assert waits[2] is None
    job = read_job(database, job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "storage_error")


def test_a_disk_that_never_has_room_ends_a_job_at_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "STORAGE_FAILURES", 3)
    job_id = add_job(database)
    for _ in range(3):
        storage_failed(database, job_id, full=True)
    job = read_job(database, job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "storage_error")


def test_a_job_that_waits_for_room_can_be_cancelled(database: Database) -> None:
    job_id = add_job(database)
    storage_failed(database, job_id, full=True)
    assert move(database, job_id, JobState.CANCELLED)


def test_a_job_that_is_paused_and_resumed_waits_for_nothing(database: Database) -> None:
    job_id = add_job(database)
    storage_failed(database, job_id, full=True)
    assert move(database, job_id, JobState.PAUSED)
    assert move(database, job_id, JobState.QUEUED)
    assert read_job(database, job_id).available_at is None
