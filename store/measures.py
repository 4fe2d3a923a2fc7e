"""What an operator watches, read from the database at the moment of asking.

Every figure comes from indexes, or from the newest `RECENT_JOBS` jobs alone, so that asking stays
cheap with a hundred thousand jobs behind (docs/operations.md has the times).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.database import database_now
from store.states import LEASED, JobState
from store.tables import (
    Blob,
    Job,
    JobAttempt,
    JobEvent,
    OutboxMessage,
    WebhookDelivery,
    Worker,
)
from store.webhooks import deliveries

RECENT_JOBS = 100
WORKER_SILENT_S = 90.0  # three beats of an idle worker (worker.identity)


@dataclass(frozen=True)
class JobCount:
    """How many jobs of a kind are in a state, in one queue."""

    queue: str
    kind: str
    state: str
    jobs: int


@dataclass(frozen=True)
class RecentJob:
    """Times of a job that ended, in seconds; `phases` pairs the start and end of each phase."""

    kind: str
    waited_s: float
    ran_s: float
    phases: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Measures:
    """The state of the service; times are in seconds, sizes in bytes."""

    jobs: tuple[JobCount, ...]
    oldest_wait_s: dict[str, float]
    errors: dict[str, int]
    attempts: dict[str, int]
    expired_leases: int
    outbox_messages: int
    outbox_lag_s: float
    workers: dict[str, int]
    blobs: int
    blob_bytes: int
    damaged_blobs: int
    webhook_deliveries: dict[str, int]
    webhook_lag_s: float
    recent: tuple[RecentJob, ...]


def measure(session: Session) -> Measures:
    """Read all of it in the caller's snapshot."""
    now = database_now(session)
    outbox_messages, late_since = _outbox(session)
    totals = (func.count(), func.coalesce(func.sum(Blob.bytes), 0), func.count(Blob.damage))
    blobs, blob_bytes, damaged_blobs = session.execute(select(*totals).select_from(Blob)).one()
    return Measures(
        jobs=_jobs(session),
        oldest_wait_s=_oldest_waits(session, now),
        errors=_errors(session),
        attempts=_attempts(session),
        expired_leases=_expired_leases(session, now),
        outbox_messages=outbox_messages,
        outbox_lag_s=_age(late_since, now),
        workers=_workers(session, now),
        blobs=blobs,
        blob_bytes=int(blob_bytes),
        damaged_blobs=damaged_blobs,
        webhook_deliveries=_deliveries(session),
        webhook_lag_s=_age(deliveries.overdue_since(session), now),
        recent=_recent(session),
    )


def _jobs(session: Session) -> tuple[JobCount, ...]:
    columns = (Job.queue, Job.kind, Job.state)
    rows = session.execute(select(*columns, func.count()).group_by(*columns))
    return tuple(JobCount(*row) for row in rows)


def _oldest_waits(session: Session, now: datetime) -> dict[str, float]:
    """Return since when the oldest queued job of each queue waits.

    A job's last event is that it was queued, so one that came back waits since it came back.
    """
    queued_at = func.min(JobEvent.created_at, type_=JobEvent.created_at.type)
    last = (JobEvent.job_id == Job.id) & (JobEvent.seq == Job.event_count)
    rows = session.execute(
        select(Job.queue, queued_at)
        .join(JobEvent, last)
        .where(Job.state == JobState.QUEUED)
        .group_by(Job.queue)
    )
    return {queue: _age(since, now) for queue, since in rows}


def _errors(session: Session) -> dict[str, int]:
    code = Job.error["code"].as_string()
    rows = session.execute(
        select(code, func.count()).where(Job.state == JobState.FAILED).group_by(code)
    )
    return {str(name): count for name, count in rows}


def _attempts(session: Session) -> dict[str, int]:
    rows = session.execute(select(JobAttempt.outcome, func.count()).group_by(JobAttempt.outcome))
    return {outcome or "running": count for outcome, count in rows}


def _expired_leases(session: Session, now: datetime) -> int:
    expired = Job.state.in_(LEASED) & (Job.lease_expires_at < now)
    return session.scalars(select(func.count()).select_from(Job).where(expired)).one()


def _outbox(session: Session) -> tuple[int, datetime | None]:
    """Return how many calls there are, and since when the oldest could have been published."""
    due_at = func.coalesce(OutboxMessage.due_at, OutboxMessage.created_at)
    oldest = func.min(due_at, type_=OutboxMessage.created_at.type)
    count, since = session.execute(select(func.count(), oldest).select_from(OutboxMessage)).one()
    return count, since


def _deliveries(session: Session) -> dict[str, int]:
    rows = session.execute(
        select(WebhookDelivery.status, func.count()).group_by(WebhookDelivery.status)
    )
    return {str(status): count for status, count in rows}


def _workers(session: Session, now: datetime) -> dict[str, int]:
    """Return how many workers that were heard of lately serve each queue."""
    limit = now - timedelta(seconds=WORKER_SILENT_S)
    lists = session.scalars(select(Worker.queues).where(Worker.last_seen_at >= limit))
    return dict(Counter(queue for queues in lists for queue in queues))


def _recent(session: Session) -> tuple[RecentJob, ...]:
    jobs = session.execute(
        select(Job.id, Job.kind, Job.created_at, Job.started_at, Job.running_s)
        .where(Job.finished_at.is_not(None), Job.started_at.is_not(None))
        .order_by(Job.finished_at.desc())
        .limit(RECENT_JOBS)
    ).all()
    phases = _phases(session, [job.id for job in jobs])
    return tuple(
        RecentJob(
            kind=job.kind,
            waited_s=_age(job.created_at, job.started_at),
            ran_s=job.running_s,
            phases=tuple(phases.get(job.id, ())),
        )
        for job in jobs
    )


def _phases(session: Session, job_ids: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    rows = session.execute(
        select(JobEvent.job_id, JobEvent.type, JobEvent.data, JobEvent.created_at)
        .where(JobEvent.job_id.in_(job_ids), JobEvent.type.in_(["phase.started", "phase.finished"]))
        .order_by(JobEvent.job_id, JobEvent.seq)
    )
    return _paired(rows)


def _paired(rows: Iterable[Any]) -> dict[str, list[tuple[str, float]]]:
    """Pair each end of a phase with the last start of it: what an attempt lost is left out."""
    started: dict[tuple[str, str], datetime] = {}
    found: dict[str, list[tuple[str, float]]] = {}
    for job_id, kind, data, at in rows:
        phase = str(data.get("phase"))
        if kind == "phase.started":
            started[job_id, phase] = at
        elif (since := started.pop((job_id, phase), None)) is not None:
            found.setdefault(job_id, []).append((phase, _age(since, at)))
    return found


def _age(since: datetime | None, now: datetime) -> float:
    """Return seconds from `since` to `now`; 0 when there is no `since` or clocks disagree."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
