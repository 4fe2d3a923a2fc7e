"""Where a job comes from: the request and the trace that made it, kept in its first event."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.context import ids
from store.tables import JobEvent
from store.tracing import HEADER, traceparent

FIRST = 1


def origin() -> dict[str, str]:
    """Return what this thread works for, as the first event of a job tells it."""
    found = {"request_id": ids().get("request_id"), HEADER: traceparent()}
    return {name: value for name, value in found.items() if value is not None}


def origins(session: Session, job_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the origin of each job."""
    rows = session.execute(
        select(JobEvent.job_id, JobEvent.data).where(
            JobEvent.job_id.in_(job_ids), JobEvent.seq == FIRST
        )
    )
    return {job_id: dict(data) for job_id, data in rows}
