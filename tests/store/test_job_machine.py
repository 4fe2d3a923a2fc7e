"""Any order of what workers, clients and the reaper do to jobs keeps what the service promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from store import leases, records
from store.database import Database
from store.leases import Lease
from store.lifecycle import LeaseLost
from store.states import FINAL, LEASED, ErrorCode, JobState
from store.tables import JobAttempt
from tests.support.databases import empty
from tests.support.rows import LEASE_S, add_job, add_tenant, events, expire, move, read_job, reap

MAX_ATTEMPTS = 3
WAITING = frozenset({JobState.QUEUED, JobState.PAUSED})
STOPPED = {JobState.PAUSING: JobState.PAUSED, JobState.CANCELLING: JobState.CANCELLED}

which_job = st.integers(0, 1)
which_worker = st.sampled_from(["worker-1", "worker-2", "worker-3"])


class Jobs(RuleBasedStateMachine):
    """Two jobs and three workers; `state` is what this model expects, the database must agree."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        empty(self.database)
        tenant_id = add_tenant(self.database)
        self.jobs = [add_job(self.database, tenant_id=tenant_id) for _ in range(2)]
        self.state = dict.fromkeys(self.jobs, JobState.QUEUED)
        self.lost = dict.fromkeys(self.jobs, 0)
        self.live: dict[str, Lease] = {}
        self.dead: list[Lease] = []

    def settle(self, job_id: str, state: JobState) -> None:
        """Expect a job in `state`, its lease over unless that state has one."""
        self.state[job_id] = state
        if state not in LEASED and job_id in self.live:
            self.dead.append(self.live.pop(job_id))

    def lease_of(self, job: int) -> Lease | None:
        return self.live.get(self.jobs[job])

    @rule(job=which_job, worker=which_worker)
    def claim(self, job: int, worker: str) -> None:
        job_id = self.jobs[job]
        with self.database.writing() as session:
            lease = leases.claim(session, job_id, worker_id=worker, lease_s=LEASE_S)
        assert (lease is not None) == (self.state[job_id] is JobState.QUEUED)
        if lease is not None:
            self.live[job_id] = lease
            self.state[job_id] = JobState.RUNNING

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def heartbeat(self, job: int) -> None:
        if lease := self.lease_of(job):
            with self.database.writing() as session:
                wanted = leases.heartbeat(session, lease, lease_s=LEASE_S)
            assert wanted is self.state[lease.job_id]

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def write(self, job: int) -> None:
        if lease := self.lease_of(job):
            with self.database.writing() as session:
                records.record_event(session, lease, "note", {})

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def write_with_a_dead_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.dead))
        for refused in DEAD_WRITES:
            with pytest.raises(LeaseLost), self.database.writing() as session:
                refused(session, lease)
        with self.database.writing() as session:
            assert not leases.give_back(session, lease)

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def lose_the_worker(self, job: int) -> None:
        lease = self.lease_of(job)
        if lease is None:
            return
        expire(self.database, lease.job_id)
        assert reap(self.database, max_attempts=MAX_ATTEMPTS) == [lease.job_id]
        stopped = STOPPED.get(self.state[lease.job_id])
        if stopped is None:
            self.lost[lease.job_id] += 1
        gone = self.lost[lease.job_id] >= MAX_ATTEMPTS
        again = JobState.FAILED if gone else JobState.QUEUED
        self.settle(lease.job_id, stopped or again)

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def give_back(self, job: int) -> None:
        if lease := self.lease_of(job):
            with self.database.writing() as session:
                assert leases.give_back(session, lease)
            self.settle(lease.job_id, STOPPED.get(self.state[lease.job_id], JobState.QUEUED))

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def finish(self, job: int) -> None:
        if lease := self.lease_of(job):
            with self.database.writing() as session:
                records.finish(session, lease, result={}, files=[])
            self.settle(lease.job_id, JobState.SUCCEEDED)

    @precondition(lambda self: self.live)
    @rule(job=which_job)
    def fail(self, job: int) -> None:
        if lease := self.lease_of(job):
            code = ErrorCode.DIVERGED
            with self.database.writing() as session:
                assert leases.fail(session, lease, code=code, message="no", retryable=False)
            self.settle(lease.job_id, JobState.FAILED)

    @rule(job=which_job)
    def cancel(self, job: int) -> None:
        job_id = self.jobs[job]
        now = move(self.database, job_id, JobState.CANCELLED, origin=WAITING)
        asked = move(self.database, job_id, JobState.CANCELLING)
        self.expect(job_id, now, dict.fromkeys(WAITING, JobState.CANCELLED))
        self.expect(
            job_id, asked, dict.fromkeys(LEASED - {JobState.CANCELLING}, JobState.CANCELLING)
        )

    @rule(job=which_job)
    def pause(self, job: int) -> None:
        job_id = self.jobs[job]
        now = move(self.database, job_id, JobState.PAUSED, origin=[JobState.QUEUED])
        asked = move(self.database, job_id, JobState.PAUSING)
        self.expect(job_id, now, {JobState.QUEUED: JobState.PAUSED})
        self.expect(job_id, asked, {JobState.RUNNING: JobState.PAUSING})

    @rule(job=which_job)
    def resume(self, job: int) -> None:
        job_id = self.jobs[job]
        resumed = move(self.database, job_id, JobState.QUEUED, origin=[JobState.PAUSED])
        self.expect(job_id, resumed, {JobState.PAUSED: JobState.QUEUED})

    def expect(self, job_id: str, moved: object, moves: dict[JobState, JobState]) -> None:
        """Follow a request of the client: it was granted exactly in the states of `moves`."""
        target = moves.get(self.state[job_id])
        assert (moved is not None) == (target is not None)
        if target is not None:
            self.settle(job_id, target)

    @invariant()
    def the_database_agrees_and_final_states_stay(self) -> None:
        for job_id in self.jobs:
            job = read_job(self.database, job_id)
            assert job.state == self.state[job_id]
            assert (job.finished_at is not None) == (job.state in FINAL)

    @invariant()
    def a_job_has_one_live_token_or_none(self) -> None:
        for job_id in self.jobs:
            lease = self.live.get(job_id)
            job = read_job(self.database, job_id)
            assert job.lease_token == (lease.token if lease else None)
            assert (lease is not None) == (job.state in LEASED)

    @invariant()
    def attempts_are_numbered_and_only_the_live_one_is_open(self) -> None:
        for job_id in self.jobs:
            query = select(JobAttempt).where(JobAttempt.job_id == job_id)
            with self.database.reading() as session:
                attempts = session.scalars(query.order_by(JobAttempt.number)).all()
            assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
            open_attempts = [attempt.number for attempt in attempts if attempt.ended_at is None]
            lease = self.live.get(job_id)
            assert open_attempts == ([lease.attempt] if lease else [])

    @invariant()
    def events_have_no_gap(self) -> None:
        for job_id in self.jobs:
            numbers = [event.seq for event in events(self.database, job_id)]
            assert numbers == list(range(1, read_job(self.database, job_id).event_count + 1))


DEAD_WRITES: list[Callable[..., object]] = [
    lambda session, lease: leases.heartbeat(session, lease, lease_s=LEASE_S),
    lambda session, lease: records.record_event(session, lease, "note", {}),
    lambda session, lease: records.finish(session, lease, result={}, files=[]),
]


def test_any_order_of_requests_losses_and_writes_keeps_the_promises(
    sqlite_database: Database,
) -> None:
    class JobsOfThisTest(Jobs):
        database = sqlite_database

    run_state_machine_as_test(
        JobsOfThisTest,
        settings=settings(
            deadline=None,
            max_examples=20,
            stateful_step_count=25,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
