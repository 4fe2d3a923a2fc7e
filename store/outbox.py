"""Wake-up calls waiting to be published; the scheduler process is their only reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from store.database import database_now
from store.line import LONGEST_WAIT_S
from store.states import JobState
from store.tables import Job, OutboxMessage


@dataclass(frozen=True)
class WakeUp:
    """Tells a worker of `queue` that a job is there to be claimed."""

    id: int
    job_id: str
    queue: str
    priority: int


def pending(session: Session, *, limit: int = 100) -> list[WakeUp]:
    """Return the oldest unpublished calls that are due."""
    now = database_now(session)
    horizon = now + timedelta(seconds=LONGEST_WAIT_S)
    when = OutboxMessage.due_at
    due = or_(when.is_(None), when <= now, when > horizon)
    statement = select(OutboxMessage).where(due).order_by(OutboxMessage.id).limit(limit)
    rows = session.scalars(statement)
    return [WakeUp(row.id, row.job_id, row.queue, row.priority) for row in rows]


def published(session: Session, calls: Sequence[WakeUp]) -> None:
    """Forget calls the broker has accepted; from now on redispatch watches their jobs."""
    session.execute(delete(OutboxMessage).where(OutboxMessage.id.in_([c.id for c in calls])))
    session.execute(
        update(Job)
        .where(Job.id.in_([c.job_id for c in calls]), Job.state == JobState.QUEUED)
        .values(dispatched_at=database_now(session))
    )
