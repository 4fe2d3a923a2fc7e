"""Several processes at one database: nothing is done twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy import func, select, update

from store import leases, records
from store.blobs import remember
from store.database import Database, database_now
from store.garbage import condemn_unreferenced
from store.leases import Lease
from store.lifecycle import LeaseLost, transition
from store.records import ArtifactFile
from store.states import JobState
from store.tables import Artifact, Blob, Job, JobAttempt, OutboxMessage, Tenant
from tests.support.databases import interrupted
from tests.support.rows import (
    LEASE_S,
    add_file,
    add_job,
    add_tenant,
    blob_of,
    count,
    event_types,
    events,
    expire,
    move,
    read_job,
    reap,
    running_job,
)
from tests.support.threads import at_once, await_lock_wait, in_background

ROUNDS = 8


def try_claim(database: Database, job_id: str, worker_id: str) -> Lease | None:
    with database.writing() as session:
        return leases.claim(session, job_id, worker_id=worker_id, lease_s=LEASE_S)


def test_of_two_claims_at_once_exactly_one_gets_the_job(database: Database) -> None:
    for _ in range(ROUNDS):
        job_id = add_job(database)
        workers = ("worker-1", "worker-2")
        won = at_once([partial(try_claim, database, job_id, worker) for worker in workers])
        [lease] = [lease for lease in won if lease is not None]
        assert read_job(database, job_id).lease_token == lease.token
        assert [event.type for event in events(database, job_id)] == ["job.running"]
    assert count(database, JobAttempt) == ROUNDS


def test_a_cancel_and_a_claim_at_once_leave_the_job_in_a_state_both_know(
    database: Database,
) -> None:
    for _ in range(ROUNDS):
        job_id = add_job(database)
        either: list[Callable[[], object]] = [
            partial(move, database, job_id, JobState.CANCELLED),
            partial(try_claim, database, job_id, "worker-1"),
        ]
        cancelled, lease = at_once(either)
        assert (cancelled is None) != (lease is None)
        expected = JobState.RUNNING if lease else JobState.CANCELLED
        assert read_job(database, job_id).state == expected


def test_a_finish_and_a_reaper_at_once_do_not_both_have_the_job(database: Database) -> None:
    def finish(lease: Lease) -> str:
        try:
            with database.writing() as session:
                return records.finish(session, lease, result={}, files=[]).state
        except LeaseLost:
            return JobState.QUEUED

    for _ in range(ROUNDS):
        lease = running_job(database)
        expire(database, lease.job_id)
        both: list[Callable[[], object]] = [partial(finish, lease), partial(reap, database)]
        state, _ = at_once(both)
        assert read_job(database, lease.job_id).state == state


def test_two_reapers_at_once_take_a_job_back_once(database: Database) -> None:
    lost = [running_job(database).job_id for _ in range(ROUNDS)]
    for job_id in lost:
        expire(database, job_id)
    first, second = at_once([partial(reap, database)] * 2)
    assert sorted(first + second) == sorted(lost)
    assert all(read_job(database, job_id).lost_attempts == 1 for job_id in lost)
    assert count(database, OutboxMessage) == len(lost)


def test_the_reaper_leaves_a_job_whose_heartbeat_is_on_its_way(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    lease = running_job(database)
    expire(database, lease.job_id)
    with database.writing() as session:
        leases.heartbeat(session, lease, lease_s=LEASE_S)
        assert reap(database) == []
    assert read_job(database, lease.job_id).state == JobState.RUNNING


def test_events_of_several_writers_have_no_gap(database: Database) -> None:
    lease = running_job(database)

    def write(writer: int) -> None:
        for number in range(10):
            with database.writing() as session:
                data = {"writer": writer, "number": number}
                records.record_event(session, lease, "note", data)

    at_once([partial(write, writer) for writer in range(4)])
    written = events(database, lease.job_id)
    assert [event.seq for event in written] == list(range(1, 42))
    assert read_job(database, lease.job_id).event_count == 41
    for writer in range(4):
        own = [event.data["number"] for event in written if event.data.get("writer") == writer]
        assert own == list(range(10))


def test_an_event_follows_those_written_since_its_transaction_saw_the_job(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    lease = running_job(database)
    with database.writing() as session:
        assert session.get_one(Job, lease.job_id).event_count == 1
        with database.writing() as other:
            records.record_event(other, lease, "meanwhile", {})
        records.record_event(session, lease, "afterwards", {})
    assert event_types(database, lease.job_id) == ["job.running", "meanwhile", "afterwards"]


def test_an_event_that_was_rolled_back_leaves_no_gap(database: Database) -> None:
    lease = running_job(database)
    with interrupted(database) as session:
        records.record_event(session, lease, "lost", {})
    with database.writing() as session:
        records.record_event(session, lease, "kept", {})
    assert [event.seq for event in events(database, lease.job_id)] == [1, 2]


def test_eight_writers_on_sqlite_never_find_the_database_locked(
    sqlite_database: Database,
) -> None:
    tenant_id = add_tenant(sqlite_database)

    def write() -> None:
        for _ in range(50):
            with sqlite_database.writing() as session:
                tenant = session.get_one(Tenant, tenant_id)  # a read that turns into a write
                tenant.name = str(int(tenant.name) + 1) if tenant.name.isdigit() else "1"

    at_once([write] * 8)
    with sqlite_database.reading() as session:
        assert session.get_one(Tenant, tenant_id).name == "400"


def test_a_reader_on_sqlite_does_not_wait_for_a_writer(sqlite_database: Database) -> None:
    with sqlite_database.writing() as session:
        session.add(Tenant(id="tnt_1", name="new", created_at=database_now(session)))
        session.flush()
        assert count(sqlite_database, Tenant) == 0
    assert count(sqlite_database, Tenant) == 1


def test_a_reader_sees_one_moment_however_much_is_written_meanwhile(database: Database) -> None:
    add_tenant(database)
    tenants = select(func.count()).select_from(Tenant)
    with database.reading() as session:
        assert session.scalars(tenants).one() == 1
        add_tenant(database)
        assert session.scalars(tenants).one() == 1
    assert count(database, Tenant) == 2


def test_bytes_that_are_remembered_while_garbage_is_collected_stay(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    tenant_id = add_tenant(database)
    with database.writing() as session:
        remember(session, blob_of(b"old bytes"))
        long_ago = database_now(session) - timedelta(days=1)
        session.execute(update(Blob).values(created_at=long_ago))

    def collect() -> list[str]:
        with database.writing() as session:
            return condemn_unreferenced(session, grace_s=3600)

    with database.writing() as session:
        add_file(session, tenant_id, b"old bytes")
        with in_background(collect) as collected:
            await_lock_wait(database, collected)
            session.commit()
            assert collected.result() == []
    assert count(database, Blob) == 1


def test_jobs_that_leave_the_same_files_in_another_order_both_finish(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    leased = running_job(database)
    low, high = sorted((blob_of(b"loader"), blob_of(b"licence")), key=lambda blob: blob.sha256)
    files = [ArtifactFile("file", blob.sha256, "text/plain", blob) for blob in (high, low)]

    def finish() -> str:
        with database.writing() as session:
            return records.finish(session, leased, result={}, files=files).state

    with database.writing() as session:
        remember(session, low)
        with in_background(finish) as finished:
            await_lock_wait(database, finished)
            remember(session, high)
            session.commit()
            assert finished.result() == JobState.SUCCEEDED
    assert count(database, Artifact) == 2


def test_a_transition_waits_for_another_and_then_sees_what_it_did(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    lease = running_job(database)
    with database.writing() as session:
        assert transition(session, lease.job_id, JobState.CANCELLING)
        with in_background(lambda: move(database, lease.job_id, JobState.PAUSING)) as paused:
            await_lock_wait(database, paused)
            session.commit()
            assert paused.result() is None
    assert read_job(database, lease.job_id).state == JobState.CANCELLING


def test_a_job_is_claimed_once_by_many_workers_that_hear_of_it(database: Database) -> None:
    job_id = add_job(database)
    claims = at_once([partial(try_claim, database, job_id, name) for name in "abcdef"])
    assert sum(lease is not None for lease in claims) == 1
    with database.reading() as session:
        assert session.scalars(select(Job.attempt)).one() == 1
