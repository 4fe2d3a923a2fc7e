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

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import database_now
from store.lifecycle import dispatch, hold, transition
from store.states import LEASED, ErrorCode, JobState
from store.tables import Job, JobAttempt, Worker


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
    job.started_at = job.started_at or now
    session.add(JobAttempt(job_id=job_id, number=job.attempt, worker_id=worker_id, started_at=now))
    return Lease(job_id=job_id, token=token, attempt=job.attempt)


def claim_next(session: Session, job_id: str, *, worker_id: str, lease_s: float) -> Lease | None:
    """Take the first job in line of the queue that `job_id` is in; None when none waits there.

    A wake-up call names the job it was sent for, but its receiver serves the line: higher
    priority first, then the older. There is a call for every queued job, so none is left over.
    """
    queue = session.scalar(select(Job.queue).where(Job.id == job_id))
    first = (
        select(Job.id)
        .where(Job.queue == queue, Job.state == JobState.QUEUED)
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
    )
    while (candidate := session.scalar(first)) is not None:
        lease = claim(session, candidate, worker_id=worker_id, lease_s=lease_s)
        if lease is not None:
            return lease
    return None


def heartbeat(session: Session, lease: Lease, *, lease_s: float) -> JobState:
    """Extend a lease and return what the client wants of the job; raises LeaseLost."""
    now = database_now(session)
    expires = now + timedelta(seconds=lease_s)
    job = hold(session, lease.job_id, lease.token, lease_expires_at=expires)
    worker = session.get(Worker, job.worker_id) if job.worker_id else None
    if worker is not None:
        worker.last_seen_at = now
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
    session: Session, lease: Lease, *, code: ErrorCode, message: str, max_attempts: int
) -> Job | None:
    """Account for an attempt that died: queue the job again, or fail it at `max_attempts`."""
    settled = settle(session, lease)
    if settled is not None:
        return settled
    job = session.get_one(Job, lease.job_id)
    if job.lost_attempts + 1 >= max_attempts:
        return fail(session, lease, code=code, message=message, retryable=True)
    return transition(
        session,
        lease.job_id,
        JobState.QUEUED,
        token=lease.token,
        changes={"lost_attempts": Job.lost_attempts + 1},
        event={"reason": code, "message": message},
        outcome=code,
    )


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


def redispatch(session: Session, *, after_s: float) -> list[str]:
    """Wake the workers again for jobs that nobody claimed within `after_s` of their dispatch."""
    limit = database_now(session) - timedelta(seconds=after_s)
    waiting = session.scalars(
        select(Job).where(Job.state == JobState.QUEUED, Job.dispatched_at < limit)
    ).all()
    for job in waiting:
        job.dispatched_at = None
        dispatch(session, job)
    return [job.id for job in waiting]
