"""Claiming a job, keeping it, giving it back, and taking it from those who died.

A claim sets a fresh token; every later write of that attempt carries it, so an attempt that was
declared lost can never write again (fencing). The database's clock decides when a lease ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from store import line
from store.database import database_now
from store.lifecycle import dispatch, hold, transition
from store.states import LEASED, ErrorCode, JobState
from store.tables import Job, JobAttempt, OutboxMessage

STORAGE_RETRY_S = 15.0  # doubled at every failure of a job, up to line.LONGEST_WAIT_S
STORAGE_FAILURES = 100  # and then it ends: some 16 hours without room


@dataclass(frozen=True)
class Lease:
    """The right of one attempt to work on one job; `token` fences its writes."""

    job_id: str
    token: str
    attempt: int


def claim(session: Session, job_id: str, *, worker_id: str, lease_s: float) -> Lease | None:
    """Take a queued job; None when it is not there to be taken any more."""
    now = database_now(session)
    token = secrets.token_hex(16)
    job = transition(
        session,
        job_id,
        JobState.RUNNING,
        changes={
            "attempt": Job.attempt + 1,
            "lease_token": token,
            "lease_expires_at": now + timedelta(seconds=lease_s),
            "worker_id": worker_id,
        },
        event={"worker_id": worker_id},
    )
    if job is None:
        return None
    line.take_turn(session, queue=job.queue, tenant_id=job.tenant_id)
    job.started_at = job.started_at or now
    session.add(JobAttempt(job_id=job_id, number=job.attempt, worker_id=worker_id, started_at=now))
    return Lease(job_id=job_id, token=token, attempt=job.attempt)


def claim_next(session: Session, job_id: str, *, worker_id: str, lease_s: float) -> Lease | None:
    """Take the first job in line of the queue that `job_id` is in; None when none waits there.

    A wake-up call names the job it was sent for, but its receiver serves the line (`store.line`
    has its order). There is a call for every queued job, so none is left over.
    """
    queue = session.scalar(select(Job.queue).where(Job.id == job_id))
    while queue is not None and (candidates := line.first(session, queue)):
        lease = claim(session, candidates[0], worker_id=worker_id, lease_s=lease_s)
        if lease is not None:
            return lease
    return None


def heartbeat(session: Session, lease: Lease, *, lease_s: float) -> JobState:
    """Extend a lease and return what the client wants of the job; raises LeaseLost."""
    expires = database_now(session) + timedelta(seconds=lease_s)
    job = hold(session, lease.job_id, lease.token, lease_expires_at=expires)
    return JobState(job.state)


def give_back(session: Session, lease: Lease) -> bool:
    """Return a running job to the queue without counting the attempt against it (drain)."""
    job = transition(
        session,
        lease.job_id,
        JobState.QUEUED,
        token=lease.token,
        event={"reason": "worker_drained"},
        outcome="released",
    )
    return job is not None or settle(session, lease) is not None


def settle(session: Session, lease: Lease) -> Job | None:
    """End an attempt the client asked to stop: pausing becomes paused, cancelling cancelled."""
    for origin, target in _SETTLED.items():
        job = transition(
            session,
            lease.job_id,
            target,
            origin=[origin],
            token=lease.token,
            outcome=target,
        )
        if job is not None:
            return job
    return None


_SETTLED = {JobState.PAUSING: JobState.PAUSED, JobState.CANCELLING: JobState.CANCELLED}


def lose(
    session: Session,
    lease: Lease,
    *,
    code: ErrorCode,
    message: str,
    max_attempts: int,
    full: bool = False,
) -> Job | None:
    """Account for an attempt that died: queue the job again, or fail it at `max_attempts`.

    After a storage error the job waits, longer each time. `full`: the disk had no room, which is
    no fault of the job and does not count; only STORAGE_FAILURES of them end it.
    """
    settled = settle(session, lease)
    if settled is not None:
        return settled
    job = session.get_one(Job, lease.job_id)
    failures = _storage_failures(session, job) if code is ErrorCode.STORAGE_ERROR else 0
    lost = job.lost_attempts + (0 if full else 1)
    if lost >= max_attempts or failures + 1 >= STORAGE_FAILURES:
        return fail(session, lease, code=code, message=message, retryable=True)
    wait = _wait_for_storage(failures) if code is ErrorCode.STORAGE_ERROR else None
    return transition(
        session,
        lease.job_id,
        JobState.QUEUED,
        token=lease.token,
        changes={
            "lost_attempts": lost,
            "available_at": wait and database_now(session) + wait,
        },
        event={"reason": code, "message": message},
        outcome=code,
    )


def _storage_failures(session: Session, job: Job) -> int:
    statement = select(func.count()).where(
        JobAttempt.job_id == job.id, JobAttempt.outcome == ErrorCode.STORAGE_ERROR
    )
    return session.scalars(statement).one()


def _wait_for_storage(failures: int) -> timedelta:
    doubled = STORAGE_RETRY_S * 2.0 ** min(failures, 30)
    return timedelta(seconds=min(doubled, line.LONGEST_WAIT_S))


def fail(
    session: Session,
    lease: Lease,
    *,
    code: ErrorCode,
    message: str,
    retryable: bool,
    details: Mapping[str, Any] | None = None,
) -> Job | None:
    """End a job with an error; None when the lease is gone."""
    phase = session.get_one(Job, lease.job_id).phase
    error = {
        **(details or {}),
        "code": code,
        "message": message,
        "retryable": retryable,
        "phase": phase,
        "attempt": lease.attempt,
    }
    return transition(
        session,
        lease.job_id,
        JobState.FAILED,
        token=lease.token,
        changes={"error": error},
        event=error,
        outcome=JobState.FAILED,
    )


def reap(session: Session, *, max_attempts: int) -> list[str]:
    """Take back every job whose lease has run out; returns their ids."""
    expired = session.scalars(
        select(Job)
        .where(Job.state.in_(LEASED), Job.lease_expires_at < database_now(session))
        .with_for_update(skip_locked=True)  # a heartbeat in flight keeps its job
    ).all()
    for job in expired:
        lease = Lease(job_id=job.id, token=str(job.lease_token), attempt=job.attempt)
        message = f"worker {job.worker_id} was not heard of until its lease ended"
        lose(
            session,
            lease,
            code=ErrorCode.WORKER_LOST,
            message=message,
            max_attempts=max_attempts,
        )
    return [job.id for job in expired]


def shorten_leases(session: Session, *, lease_s: float) -> int:
    """Cut leases that end after two of `lease_s`: a clock that was set back has prolonged them.

    What is left is one `lease_s`, after which its worker has stopped by its own clock. The second
    one leaves room for a worker with a longer lease (CSTAR_LEASE_S should be the same everywhere).
    """
    latest = database_now(session) + timedelta(seconds=lease_s)
    prolonged = latest + timedelta(seconds=lease_s)
    result = session.execute(
        update(Job)
        .where(Job.state.in_(LEASED), Job.lease_expires_at > prolonged)
        .values(lease_expires_at=latest)
        .execution_options(synchronize_session=False)
    )
    return _rows(result)


def unanswered(session: Session, *, after_s: float) -> dict[str, int]:
    """Return, by queue, how many jobs nobody claimed within `after_s` of their dispatch."""
    statement = select(Job.queue, func.count()).where(*_unanswered(session, after_s))
    return dict(session.execute(statement.group_by(Job.queue)).all())


def redispatch(
    session: Session, *, after_s: float, published: Mapping[str, int] | None = None
) -> list[str]:
    """Wake the workers again for jobs that nobody claimed within `after_s` of their dispatch.

    `published` says, by queue, how many calls still wait in the broker. They wake workers just as
    well, so only what is missing for one call a job is added (a queue it does not name: none).
    """
    called: list[str] = []
    for queue, count in unanswered(session, after_s=after_s).items():
        known = _known_calls(session, queue, published or {})
        missing = min(count, _queued(session, queue) - known)
        called += _call_again(session, queue, after_s=after_s, limit=missing)
    return called


def _unanswered(session: Session, after_s: float) -> list[ColumnElement[bool]]:
    now = database_now(session)
    limit = now - timedelta(seconds=after_s)
    late = or_(Job.dispatched_at < limit, Job.dispatched_at > now)  # or the clock was set back
    return [Job.state == JobState.QUEUED, late, line.available(session)]


def _queued(session: Session, queue: str) -> int:
    statement = select(func.count()).where(Job.state == JobState.QUEUED, Job.queue == queue)
    return session.scalars(statement).one()


def _known_calls(session: Session, queue: str, published: Mapping[str, int]) -> int:
    in_outbox = select(func.count()).select_from(OutboxMessage).where(OutboxMessage.queue == queue)
    return published.get(queue, 0) + session.scalars(in_outbox).one()


def _call_again(session: Session, queue: str, *, after_s: float, limit: int) -> list[str]:
    jobs = session.scalars(
        select(Job)
        .where(Job.queue == queue, *_unanswered(session, after_s))
        .order_by(Job.priority.desc(), Job.id)
        .limit(max(limit, 0))
    ).all()
    for job in jobs:
        job.dispatched_at = None
        dispatch(session, job)
    return [job.id for job in jobs]


def _rows(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount
