"""Any order of what workers, clients, the scheduler and the clock do keeps what is promised.

The clock of the database is the test's: it runs, leaps forward and is set back. Run on SQLite and,
more briefly, on PostgreSQL.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import database as database_module
from store import leases, line, outbox, records
from store.database import Database
from store.leases import Lease
from store.lifecycle import LeaseLost
from store.line import LONGEST_WAIT_S
from store.states import FINAL, LEASED, ErrorCode, JobKind, JobState, WebhookEvent
from store.submit import submit
from store.tables import Job, JobAttempt, JobEvent, OutboxMessage, WebhookDelivery
from tests.support.databases import empty
from tests.support.rows import LEASE_S, add_tenant, move
from tests.support.webhooks import add_endpoint, deliveries_of

MAX_ATTEMPTS = 3
MAX_JOBS = 5
REDISPATCH_S = 60.0
QUEUE = "cpu.default"
WAITING = frozenset({JobState.QUEUED, JobState.PAUSED})
STOPPED = {JobState.PAUSING: JobState.PAUSED, JobState.CANCELLING: JobState.CANCELLED}
MIDNIGHT = datetime(2026, 7, 1, tzinfo=UTC)

which_job = st.integers(0, MAX_JOBS - 1)
which_worker = st.sampled_from(["worker-1", "worker-2", "worker-3"])


class Clock:
    """The clock of the database, set by hand."""

    def __init__(self) -> None:
        self.now = MIDNIGHT

    def __call__(self, _session: Session) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)


@dataclass
class Expected:
    """What the model knows of a job: the database must agree."""

    tenant_id: str
    state: JobState = JobState.QUEUED
    lost: int = 0
    storage_failures: int = 0
    lease: Lease | None = None
    lease_end: datetime | None = None
    available_at: datetime | None = None
    transitions: list[str] = field(default_factory=lambda: ["job.queued"])
    calls: int = 1

    def to(self, state: JobState) -> Lease | None:
        """Follow a transition; returns the lease that it ended."""
        self.state = state
        self.transitions.append(f"job.{state}")
        self.available_at = None
        self.calls += state is JobState.QUEUED
        ended = None
        if state not in LEASED:
            ended, self.lease, self.lease_end = self.lease, None, None
        return ended


class Jobs(RuleBasedStateMachine):
    """A few jobs of two tenants, three workers, a scheduler, and a clock nobody can trust."""

    database: ClassVar[Database]
    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        empty(self.database)
        self.clock.now = MIDNIGHT
        self.tenants = [add_tenant(self.database) for _ in range(2)]
        self.endpoints = [add_endpoint(self.database, tenant) for tenant in self.tenants]
        self.jobs: dict[str, Expected] = {}
        self.dead: list[Lease] = []
        self.published: dict[str, int] = defaultdict(int)

    @initialize()
    def begin(self) -> None:
        for tenant_id in self.tenants:
            self.submit(tenant_id)

    def submit(self, tenant_id: str, **columns: Any) -> None:
        with self.database.writing() as session:
            job = submit(
                session,
                tenant_id=tenant_id,
                kind=JobKind.COMPRESS,
                queue=QUEUE,
                request={},
                **columns,
            )
        self.jobs[job.id] = Expected(tenant_id)

    def pick(self, number: int) -> tuple[str, Expected]:
        names = list(self.jobs)
        name = names[number % len(names)]
        return name, self.jobs[name]

    def settle(self, job: Expected, state: JobState) -> None:
        ended = job.to(state)
        if ended is not None:
            self.dead.append(ended)

    def waits(self, when: datetime | None) -> bool:
        return when is not None and self.clock.now < when <= self.clock.after(LONGEST_WAIT_S)

    def live(self) -> list[Expected]:
        return [job for job in self.jobs.values() if job.lease is not None]

    # What the clock does.

    @rule(seconds=st.sampled_from([1, 20, 70, 700]))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule(hours=st.sampled_from([-26, -2, 3, 24 * 365]))
    def the_clock_jumps(self, hours: int) -> None:
        self.clock.move(3600 * hours)

    # What workers do.

    def claimed(self, job: Expected, lease: Lease) -> None:
        job.to(JobState.RUNNING)
        job.lease, job.lease_end = lease, self.clock.after(LEASE_S)

    @rule(number=which_job, worker=which_worker)
    def claim(self, number: int, worker: str) -> None:
        name, job = self.pick(number)
        with self.database.writing() as session:
            lease = leases.claim(session, name, worker_id=worker, lease_s=LEASE_S)
        assert (lease is not None) == (job.state is JobState.QUEUED)
        if lease is not None:
            self.claimed(job, lease)

    @rule(number=which_job, worker=which_worker)
    def serve_the_line(self, number: int, worker: str) -> None:
        name, _ = self.pick(number)
        ready = [
            name
            for name, job in self.jobs.items()
            if job.state is JobState.QUEUED and not self.waits(job.available_at)
        ]
        with self.database.writing() as session:
            expected = line.first(session, QUEUE)
            lease = leases.claim_next(session, name, worker_id=worker, lease_s=LEASE_S)
        assert (lease is None) == (ready == [])
        if lease is not None:
            assert lease.job_id in ready
            assert [lease.job_id] == expected
            self.claimed(self.jobs[lease.job_id], lease)

    @precondition(lambda self: self.live())
    @rule(number=which_job)
    def heartbeat(self, number: int) -> None:
        _, job = self.pick(number)
        if job.lease is not None:
            with self.database.writing() as session:
                wanted = leases.heartbeat(session, job.lease, lease_s=LEASE_S)
            assert wanted is job.state
            job.lease_end = self.clock.after(LEASE_S)

    @precondition(lambda self: self.live())
    @rule(number=which_job)
    def write(self, number: int) -> None:
        _, job = self.pick(number)
        if job.lease is not None:
            with self.database.writing() as session:
                records.record_event(session, job.lease, "note", {})

    @precondition(lambda self: self.dead)
    @rule()
    def the_dead_write(self) -> None:
        """Most telling while another attempt is at the same job."""
        by_telling = sorted(self.dead, key=lambda dead: self.jobs[dead.job_id].lease is not None)
        for lease in by_telling[-2:]:
            for refused in DEAD_WRITES:
                with pytest.raises(LeaseLost), self.database.writing() as session:
                    refused(session, lease)
            with self.database.writing() as session:
                assert not leases.give_back(session, lease)

    @precondition(lambda self: self.live())
    @rule(number=which_job)
    def drain(self, number: int) -> None:
        _, job = self.pick(number)
        if job.lease is not None:
            with self.database.writing() as session:
                assert leases.give_back(session, job.lease)
            self.settle(job, STOPPED.get(job.state, JobState.QUEUED))

    @precondition(lambda self: self.live())
    @rule(number=which_job)
    def finish(self, number: int) -> None:
        _, job = self.pick(number)
        if job.lease is not None:
            with self.database.writing() as session:
                records.finish(session, job.lease, result={}, files=[])
            self.settle(job, JobState.SUCCEEDED)

    @precondition(lambda self: self.live())
    @rule(number=which_job)
    def fail(self, number: int) -> None:
        _, job = self.pick(number)
        if job.lease is not None:
            code = ErrorCode.DIVERGED
            with self.database.writing() as session:
                assert leases.fail(session, job.lease, code=code, message="no", retryable=False)
            self.settle(job, JobState.FAILED)

    @precondition(lambda self: self.live())
    @rule(number=which_job, full=st.booleans())
    def find_no_storage(self, number: int, full: bool) -> None:
        _, job = self.pick(number)
        if job.lease is None:
            return
        with self.database.writing() as session:
            code = ErrorCode.STORAGE_ERROR
            why = {"code": code, "message": "no room", "full": full}
            assert leases.lose(session, job.lease, max_attempts=MAX_ATTEMPTS, **why)
        stopped = job.state in STOPPED
        self.lose(job, counts=not full)
        if not stopped and job.state is JobState.QUEUED:
            wait = leases.STORAGE_RETRY_S * 2**job.storage_failures
            job.available_at = self.clock.after(min(wait, LONGEST_WAIT_S))
            job.storage_failures += 1

    def lose(self, job: Expected, *, counts: bool = True) -> None:
        stopped = STOPPED.get(job.state)
        if stopped is None:
            job.lost += counts
        again = JobState.FAILED if job.lost >= MAX_ATTEMPTS else JobState.QUEUED
        self.settle(job, stopped or again)

    # What the scheduler does.

    @rule()
    def reap(self) -> None:
        latest, prolonged = self.clock.after(LEASE_S), self.clock.after(2 * LEASE_S)
        expired = set()
        for name, job in self.jobs.items():
            if job.lease_end is not None:
                job.lease_end = latest if job.lease_end > prolonged else job.lease_end
                if job.lease_end < self.clock.now:
                    expired.add(name)
        with self.database.writing() as session:
            leases.shorten_leases(session, lease_s=LEASE_S)
            assert set(leases.reap(session, max_attempts=MAX_ATTEMPTS)) == expired
        for name in expired:
            self.lose(self.jobs[name])

    @rule()
    def publish(self) -> None:
        with self.database.reading() as session:
            calls = outbox.pending(session)
            due = [session.get_one(OutboxMessage, call.id).due_at for call in calls]
        assert not any(self.waits(when) for when in due)
        for call in calls:
            self.published[call.job_id] += 1
        with self.database.writing() as session:
            outbox.published(session, calls)

    @rule(lost=st.booleans())
    def call_again(self, lost: bool) -> None:
        in_broker = 0 if lost else 10 * MAX_JOBS
        with self.database.writing() as session:
            called = leases.redispatch(session, after_s=REDISPATCH_S, published={QUEUE: in_broker})
        assert lost or called == []
        for name in called:
            assert self.jobs[name].state is JobState.QUEUED
            self.jobs[name].calls += 1

    # What clients do.

    @rule(number=which_job)
    def cancel(self, number: int) -> None:
        name, job = self.pick(number)
        now = move(self.database, name, JobState.CANCELLED, origin=WAITING)
        asked = move(self.database, name, JobState.CANCELLING)
        self.expect(job, now, dict.fromkeys(WAITING, JobState.CANCELLED))
        self.expect(job, asked, dict.fromkeys(LEASED - {JobState.CANCELLING}, JobState.CANCELLING))

    @rule(number=which_job)
    def pause(self, number: int) -> None:
        name, job = self.pick(number)
        now = move(self.database, name, JobState.PAUSED, origin=[JobState.QUEUED])
        asked = move(self.database, name, JobState.PAUSING)
        self.expect(job, now, {JobState.QUEUED: JobState.PAUSED})
        self.expect(job, asked, {JobState.RUNNING: JobState.PAUSING})

    @rule(number=which_job)
    def resume(self, number: int) -> None:
        name, job = self.pick(number)
        resumed = move(self.database, name, JobState.QUEUED, origin=[JobState.PAUSED])
        self.expect(job, resumed, {JobState.PAUSED: JobState.QUEUED})

    @precondition(lambda self: len(self.jobs) < MAX_JOBS)
    @rule(number=which_job)
    def retry(self, number: int) -> None:
        name, job = self.pick(number)
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            self.submit(job.tenant_id, retried_from=name)

    def expect(self, job: Expected, moved: object, moves: dict[JobState, JobState]) -> None:
        """Follow a request of the client: it was granted exactly in the states of `moves`."""
        target = moves.get(job.state)
        assert (moved is not None) == (target is not None)
        if target is not None:
            self.settle(job, target)

    # What is promised.

    @invariant()
    def the_database_keeps_its_promises(self) -> None:
        with self.database.reading() as session:
            rows = {job.id: job for job in session.scalars(select(Job))}
            attempts = by_job(session.scalars(select(JobAttempt).order_by(JobAttempt.number)))
            events = by_job(session.scalars(select(JobEvent).order_by(JobEvent.seq)))
            calls = by_job(session.scalars(select(OutboxMessage)))
        told = [told_of(delivery) for delivery in self.deliveries()]
        assert rows.keys() == self.jobs.keys()
        for name, job in self.jobs.items():
            agrees(rows[name], job)
            attempts_are_in_order(attempts[name], job)
            every_transition_has_one_event(events[name], rows[name], job)
            announced = [kind for about, kind in told if about == name]
            assert announced == [kind for kind in job.transitions if kind in set(WebhookEvent)]
            # a call each time it was queued; another only when the broker has lost calls
            assert len(calls[name]) + self.published[name] == job.calls

    def deliveries(self) -> list[WebhookDelivery]:
        return [one for found in self.endpoints for one in deliveries_of(self.database, found)]


def told_of(delivery: WebhookDelivery) -> tuple[str, str]:
    """Return the job that a delivery is about, and what it says of it."""
    message = json.loads(delivery.body)
    assert message["type"] == delivery.type
    return message["data"]["id"], delivery.type


def by_job(rows: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.job_id].append(row)
    return found


def agrees(row: Job, job: Expected) -> None:
    """One live token or none, and only a final state has an end."""
    assert (row.state, row.lost_attempts) == (job.state, job.lost)
    assert row.lease_token == (job.lease.token if job.lease else None)
    assert (row.lease_expires_at, row.available_at) == (job.lease_end, job.available_at)
    assert (job.lease is not None) == (row.state in LEASED)
    assert (row.finished_at is not None) == (row.state in FINAL)
    assert row.running_s >= 0


def attempts_are_in_order(attempts: list[JobAttempt], job: Expected) -> None:
    """They are numbered, and only the live one is open."""
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    open_attempts = [attempt.number for attempt in attempts if attempt.ended_at is None]
    assert open_attempts == ([job.lease.attempt] if job.lease else [])


def every_transition_has_one_event(events: list[JobEvent], row: Job, job: Expected) -> None:
    """And their numbers have no gap."""
    assert [event.seq for event in events] == list(range(1, row.event_count + 1))
    assert [event.type for event in events if event.type.startswith("job.")] == job.transitions


DEAD_WRITES: list[Callable[..., object]] = [
    lambda session, lease: leases.heartbeat(session, lease, lease_s=LEASE_S),
    lambda session, lease: records.record_event(session, lease, "note", {}),
    lambda session, lease: records.finish(session, lease, result={}, files=[]),
]


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 15), ("postgresql", 4)])
def test_any_order_of_events_keeps_the_promises(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, examples: int
) -> None:
    class JobsOfThisTest(Jobs):
        database = request.getfixturevalue(f"{kind}_database")
        clock = Clock()

    monkeypatch.setattr(database_module, "_clock", JobsOfThisTest.clock)
    run_state_machine_as_test(
        JobsOfThisTest,
        settings=settings(
            deadline=None,
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
