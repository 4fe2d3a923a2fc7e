"""The one function that moves a job between states."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import false

from store.database import Database
from store.lifecycle import LeaseLost, hold, transition
from store.outbox import pending
from store.states import ALLOWED, FINAL, LEASED, JobState
from store.tables import JobEvent, OutboxMessage
from tests.support.databases import contents, interrupted
from tests.support.rows import (
    add_job,
    count,
    events,
    job_in,
    move,
    read_attempt,
    read_job,
    running_job,
)

PAIRS = [
    pytest.param(origin, target, id=f"{origin}-{target}")
    for origin, target in product(JobState, JobState)
]


@pytest.mark.parametrize(("origin", "target"), PAIRS)
def test_a_transition_happens_exactly_when_it_is_allowed(
    database: Database, origin: JobState, target: JobState
) -> None:
    job_id = job_in(database, origin).job_id
    before = contents(database)
    moved = move(database, job_id, target)
    assert (moved is not None) == (target in ALLOWED[origin])
    if moved is None:
        assert contents(database) == before
    else:
        assert read_job(database, job_id).state == target


@pytest.mark.parametrize(
    ("origin", "target"),
    [(origin, target) for origin in ALLOWED for target in sorted(ALLOWED[origin])],
)
def test_a_transition_leaves_one_event_and_a_wake_up_call_only_when_it_queues(
    database: Database, origin: JobState, target: JobState
) -> None:
    job_id = job_in(database, origin).job_id
    events_before, calls_before = count(database, JobEvent), count(database, OutboxMessage)
    move(database, job_id, target)
    assert count(database, JobEvent) == events_before + 1
    assert events(database, job_id)[-1].type == f"job.{target}"
    assert count(database, OutboxMessage) == calls_before + (target is JobState.QUEUED)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_never_left(database: Database, state: JobState) -> None:
    reached = job_in(database, state)
    before = contents(database)
    for target in JobState:
        assert move(database, reached.job_id, target) is None
    assert contents(database) == before


@pytest.mark.parametrize("state", sorted(LEASED))
def test_a_wrong_token_writes_nothing(database: Database, state: JobState) -> None:
    job_id = job_in(database, state).job_id
    before = contents(database)
    for target in JobState:
        with database.writing() as session:
            assert transition(session, job_id, target, token="another") is None
    assert contents(database) == before


def test_a_token_does_not_move_a_job_that_has_no_lease(database: Database) -> None:
    job_id = add_job(database)
    with database.writing() as session:
        assert transition(session, job_id, JobState.CANCELLED, token="any") is None


def test_origin_narrows_where_a_job_may_come_from(database: Database) -> None:
    job_id = add_job(database)
    assert move(database, job_id, JobState.CANCELLED, origin=[JobState.PAUSED]) is None
    assert move(database, job_id, JobState.CANCELLED, origin=[JobState.QUEUED]) is not None


def test_origin_does_not_widen_where_a_job_may_come_from(database: Database) -> None:
    job_id = job_in(database, JobState.SUCCEEDED).job_id
    assert move(database, job_id, JobState.QUEUED, origin=[JobState.SUCCEEDED]) is None


def test_a_condition_that_does_not_hold_stops_a_transition(database: Database) -> None:
    job_id = add_job(database)
    with database.writing() as session:
        assert transition(session, job_id, JobState.CANCELLED, where=false()) is None


def test_an_unknown_job_is_not_moved(database: Database) -> None:
    assert move(database, "job_missing", JobState.CANCELLED) is None


def test_a_transition_raises_the_version_by_one(database: Database) -> None:
    job_id = add_job(database)
    before = read_job(database, job_id).version
    move(database, job_id, JobState.PAUSED)
    assert read_job(database, job_id).version == before + 1


def test_the_event_carries_its_data_and_the_number_of_the_attempt(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        transition(session, lease.job_id, JobState.CANCELLING, event={"by": "client"})
    event = events(database, lease.job_id)[-1]
    assert (event.data, event.attempt) == ({"by": "client"}, 1)


def test_changes_are_written_with_the_state(database: Database) -> None:
    job_id = add_job(database)
    with database.writing() as session:
        job = transition(session, job_id, JobState.CANCELLED, changes={"phase": "planning"})
    assert job is not None
    assert read_job(database, job_id).phase == job.phase == "planning"


def test_a_queued_job_calls_for_a_worker_of_its_queue_with_its_priority(
    database: Database,
) -> None:
    job_id = add_job(database, state=JobState.PAUSED, queue="io", priority=7)
    move(database, job_id, JobState.QUEUED)
    with database.reading() as session:
        [call] = pending(session)
    assert (call.job_id, call.queue, call.priority) == (job_id, "io", 7)


@pytest.mark.parametrize("state", sorted(FINAL | {JobState.QUEUED, JobState.PAUSED}))
def test_a_job_without_a_lease_keeps_no_token(database: Database, state: JobState) -> None:
    job = read_job(database, job_in(database, state).job_id)
    assert (job.lease_token, job.lease_expires_at, job.eta_s) == (None, None, None)


@pytest.mark.parametrize("state", JobState)
def test_only_a_final_state_has_a_finishing_time(database: Database, state: JobState) -> None:
    job = read_job(database, job_in(database, state).job_id)
    assert (job.finished_at is not None) == (state in FINAL)


def test_an_outcome_closes_the_attempt_and_adds_its_time(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        transition(session, lease.job_id, JobState.QUEUED, token=lease.token, outcome="released")
    attempt = read_attempt(database, lease.job_id, 1)
    assert attempt.ended_at is not None
    assert attempt.outcome == "released"
    spent = (attempt.ended_at - attempt.started_at).total_seconds()
    assert read_job(database, lease.job_id).running_s == pytest.approx(spent)


def test_a_transaction_that_fails_takes_its_transition_back(database: Database) -> None:
    job_id = add_job(database)
    before = contents(database)
    with interrupted(database) as session:
        transition(session, job_id, JobState.CANCELLED)
    assert contents(database) == before


@pytest.mark.parametrize("state", sorted(set(JobState) - LEASED))
def test_a_job_outside_its_lease_cannot_be_held(database: Database, state: JobState) -> None:
    reached = job_in(database, state)
    token = reached.lease.token if reached.lease else "any"
    with pytest.raises(LeaseLost), database.writing() as session:
        hold(session, reached.job_id, token)
