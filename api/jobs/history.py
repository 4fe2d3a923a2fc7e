"""What a job has left behind so far: events, metrics and the logs of its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.pagination import Slice
from store.tables import JobAttempt, JobEvent, JobMetric


class EventDocument(BaseModel):
    """Something that happened to a job; `seq` counts from 1 without a gap."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    type: str
    attempt: int
    data: dict[str, Any]
    created_at: datetime


class MetricDocument(BaseModel):
    """A measured value; `step` counts the epochs of its phase."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    phase: str
    name: str
    step: int
    value: float
    created_at: datetime


class EventPage(BaseModel):
    """Events in order; pass `last_id` as `after` to go on."""

    data: list[EventDocument]
    first_id: int | None
    last_id: int | None
    has_more: bool


class MetricPage(BaseModel):
    """Metrics in order; pass `last_id` as `after` to go on."""

    data: list[MetricDocument]
    first_id: int | None
    last_id: int | None
    has_more: bool


def events(session: Session, job_id: str, *, after: int, limit: int) -> Slice[JobEvent]:
    """Return the events numbered above `after`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    rows = session.scalars(statement.order_by(JobEvent.seq).limit(limit + 1)).all()
    return Slice(rows[:limit], has_more=len(rows) > limit)


def metrics(
    session: Session,
    job_id: str,
    *,
    after: int,
    limit: int,
    name: str | None,
    phase: str | None,
) -> Slice[JobMetric]:
    """Return the metrics numbered above `after`, oldest first, of one name or phase if given."""
    statement = select(JobMetric).where(JobMetric.job_id == job_id, JobMetric.seq > after)
    if name is not None:
        statement = statement.where(JobMetric.name == name)
    if phase is not None:
        statement = statement.where(JobMetric.phase == phase)
    rows = session.scalars(statement.order_by(JobMetric.seq).limit(limit + 1)).all()
    return Slice(rows[:limit], has_more=len(rows) > limit)


def log(session: Session, job_id: str, *, tail: int | None) -> str:
    """Return the logs of all attempts in order, or the last `tail` lines of them."""
    attempts = session.scalars(
        select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.number)
    )
    lines = [line for attempt in attempts for line in _lines(attempt)]
    kept = lines if tail is None else lines[-tail:]
    return "".join(f"{line}\n" for line in kept)


def _lines(attempt: JobAttempt) -> Iterator[str]:
    outcome = attempt.outcome or "not ended"
    yield f"==> attempt {attempt.number} on {attempt.worker_id}: {outcome}"
    yield from (attempt.log or "").splitlines()
