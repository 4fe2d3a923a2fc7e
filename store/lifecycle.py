"""The one function that moves a job between states, and the events it leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete, select, update
from sqlalchemy.orm import Session

from store.database import database_now
from store.states import FINAL, LEASED, JobState, sources
from store.tables import Checkpoint, Job, JobAttempt, JobEvent, OutboxMessage
from store.webhooks.events import announce_job


class LeaseLost(Exception):
    """The attempt no longer holds its job: stop the work and write nothing."""


def transition(
    session: Session,
    job_id: str,
    target: JobState,
    *,
    origin: Collection[JobState] | None = None,
    token: str | None = None,
    where: ColumnElement[bool] | None = None,
    changes: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    outcome: str | None = None,
) -> Job | None:
    """Move a job to `target` if it may go there, with its event, outbox and webhook rows.

    `origin` narrows the states it may come from, `token` demands the lease, `where` adds a
    condition. `outcome` closes the running attempt. Returns the job as it now is, or None when
    no row matched (somebody else moved it first); nothing is written then.
    """
    allowed = sources(target) & frozenset(origin if origin is not None else JobState)
    statement = update(Job).where(Job.id == job_id, Job.state.in_(allowed))
    if token is not None:
        statement = statement.where(Job.lease_token == token)
    if where is not None:
        statement = statement.where(where)
    implied = {"available_at": None, **_implied(session, target)}
    values = {**implied, **(changes or {}), "state": target}
    lease_end = session.scalar(select(Job.lease_expires_at).where(Job.id == job_id))
    result = session.execute(statement.values(version=Job.version + 1, **values))
    if _rows(result) != 1:
        return None
    job = session.scalars(
        select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    ).one()
    if outcome is not None:
        _close_attempt(session, job, outcome, lease_end)
    add_event(session, job, f"job.{target}", event or {})
    announce_job(session, job)
    if target is JobState.QUEUED:
        dispatch(session, job)
    if target in FINAL:  # nothing resumes from here
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))
    return job


def add_event(session: Session, job: Job, kind: str, data: Mapping[str, Any]) -> None:
    """Append the next event of a job whose row this transaction has already locked."""
    job.event_count += 1
    session.add(
        JobEvent(
            job_id=job.id,
            seq=job.event_count,
            type=kind,
            attempt=job.attempt,
            data=dict(data),
            created_at=database_now(session),
        )
    )
    session.flush()


def dispatch(session: Session, job: Job) -> None:
    """Put a wake-up call for a queued job into the outbox, due when the job may be claimed."""
    session.add(
        OutboxMessage(
            job_id=job.id,
            queue=job.queue,
            priority=job.priority,
            created_at=database_now(session),
            due_at=job.available_at,
        )
    )
    session.flush()


def hold(session: Session, job_id: str, token: str, **changes: Any) -> Job:
    """Lock the job's row for a write of the attempt that holds `token`; raises LeaseLost."""
    result = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_token == token, Job.state.in_(LEASED))
        .values(version=Job.version + 1, **changes)
    )
    if _rows(result) != 1:
        raise LeaseLost(job_id)
    return session.scalars(
        select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    ).one()


def _implied(session: Session, target: JobState) -> dict[str, Any]:
    now = database_now(session)
    if target in FINAL:
        return {"finished_at": now, "eta_s": None, "lease_token": None, "lease_expires_at": None}
    if target in (JobState.QUEUED, JobState.PAUSED):
        released = {"lease_token": None, "lease_expires_at": None, "worker_id": None}
        return {**released, "eta_s": None, "dispatched_at": None}
    return {}


def _close_attempt(session: Session, job: Job, outcome: str, lease_end: datetime | None) -> None:
    """End the attempt now, or when its lease did: nobody worked while everything was off."""
    attempt = session.get_one(JobAttempt, (job.id, job.attempt))
    now = database_now(session)
    ended_at = min(now, lease_end or now)
    attempt.ended_at = max(ended_at, attempt.started_at)  # a clock may have been set back
    attempt.outcome = outcome
    job.running_s += (attempt.ended_at - attempt.started_at).total_seconds()


def _rows(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount
