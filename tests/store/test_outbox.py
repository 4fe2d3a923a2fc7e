"""Wake-up calls waiting to be published."""

from __future__ import annotations

from store.database import Database, database_now
from store.lifecycle import dispatch
from store.outbox import WakeUp, pending, published
from store.states import JobState
from store.tables import Job, OutboxMessage
from tests.support.databases import interrupted
from tests.support.rows import add_job, claim, read_job


def call_for(database: Database, job_id: str) -> None:
    with database.writing() as session:
        dispatch(session, session.get_one(Job, job_id))


def waiting(database: Database, *, limit: int = 100) -> list[WakeUp]:
    with database.reading() as session:
        return pending(session, limit=limit)


def publish(database: Database, calls: list[WakeUp]) -> None:
    with database.writing() as session:
        published(session, calls)


def test_calls_wait_in_the_order_they_were_made(database: Database) -> None:
    jobs = [add_job(database) for _ in range(3)]
    for job_id in jobs:
        call_for(database, job_id)
    assert [call.job_id for call in waiting(database)] == jobs


def test_the_order_is_that_of_their_numbers(database: Database) -> None:
    job_id = add_job(database)
    for number in (30, 10, 20):
        with database.writing() as session:
            now = database_now(session)
            columns = {"job_id": job_id, "queue": "io", "priority": 0, "created_at": now}
            session.add(OutboxMessage(id=number, **columns))
    assert [call.id for call in waiting(database)] == [10, 20, 30]


def test_no_more_calls_are_returned_than_asked_for(database: Database) -> None:
    jobs = [add_job(database) for _ in range(3)]
    for job_id in jobs:
        call_for(database, job_id)
    assert [call.job_id for call in waiting(database, limit=2)] == jobs[:2]


def test_a_published_call_is_forgotten_and_its_job_watched(database: Database) -> None:
    job_id = add_job(database)
    call_for(database, job_id)
    publish(database, waiting(database))
    assert waiting(database) == []
    assert read_job(database, job_id).dispatched_at is not None


def test_only_the_calls_that_were_published_are_forgotten(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    call_for(database, first)
    calls = waiting(database)
    call_for(database, second)
    publish(database, calls)
    assert [call.job_id for call in waiting(database)] == [second]
    assert read_job(database, second).dispatched_at is None


def test_a_job_claimed_before_its_call_was_booked_is_not_watched(database: Database) -> None:
    job_id = add_job(database)
    call_for(database, job_id)
    calls = waiting(database)
    claim(database, job_id)
    publish(database, calls)
    assert read_job(database, job_id).dispatched_at is None


def test_publishing_nothing_changes_nothing(database: Database) -> None:
    publish(database, [])
    assert waiting(database) == []


def test_a_call_is_written_only_with_the_transaction_that_makes_it_due(database: Database) -> None:
    job_id = add_job(database, state=JobState.PAUSED)
    with interrupted(database) as session:
        dispatch(session, session.get_one(Job, job_id))
    assert waiting(database) == []
