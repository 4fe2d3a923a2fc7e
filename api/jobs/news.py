"""What is new of some jobs, read with one look at the database, as it is sent to who watches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, load_only

from api.jobs.history import EventDocument, MetricDocument
from store.states import JobState
from store.tables import Job, JobEvent, JobMetric

AT_ONCE = 200  # jobs a statement asks for: SQLite bounds the depth of a condition


class Progress(BaseModel):
    """Where a job is at the moment; `progress` is in 0..1, `eta_s` in seconds."""

    model_config = ConfigDict(from_attributes=True)

    state: JobState
    phase: str | None
    progress: float
    eta_s: float | None
    attempt: int


@dataclass(frozen=True)
class Known:
    """How far a job is known: its version, and the numbers of its last event and metric."""

    version: int
    events: int
    metrics: int


@dataclass(frozen=True)
class Message:
    """An event or a metric as it is sent (https://html.spec.whatwg.org/#server-sent-events)."""

    seq: int
    type: str
    text: bytes


@dataclass(frozen=True)
class News:
    """A job as it is now, and what it has more of than was known."""

    version: int
    progress: Progress
    events: list[Message] = field(default_factory=list)
    metrics: list[Message] = field(default_factory=list)


_COLUMNS = (Job.version, Job.state, Job.phase, Job.progress, Job.eta_s, Job.attempt)


def look(session: Session, known: Mapping[str, Known]) -> dict[str, News]:
    """Return the news of those jobs that there are; unchanged ones have no new messages."""
    found: dict[str, News] = {}
    for batch in _batches(known):
        rows = session.scalars(
            select(Job).where(Job.id.in_(batch)).options(load_only(*_COLUMNS, raiseload=True))
        )
        found |= {job.id: News(job.version, Progress.model_validate(job)) for job in rows}
        changed = {
            i: batch[i] for i in batch if i in found and found[i].version != batch[i].version
        }
        if changed:
            _read_messages(session, changed, found)
    return found


def _read_messages(
    session: Session, changed: Mapping[str, Known], found: Mapping[str, News]
) -> None:
    newer = or_(*(and_(JobEvent.job_id == i, JobEvent.seq > k.events) for i, k in changed.items()))
    for event in session.scalars(select(JobEvent).where(newer).order_by(JobEvent.seq)):
        found[event.job_id].events.append(event_message(event))
    more = or_(
        *(and_(JobMetric.job_id == i, JobMetric.seq > k.metrics) for i, k in changed.items())
    )
    for metric in session.scalars(select(JobMetric).where(more).order_by(JobMetric.seq)):
        found[metric.job_id].metrics.append(metric_message(metric))


def event_message(event: JobEvent) -> Message:
    """Return an event as it is sent; its number is the id that a client comes back with."""
    data = EventDocument.model_validate(event).model_dump_json()
    text = format_sse_event(data_str=data, event=event.type, id=str(event.seq))
    return Message(event.seq, event.type, text)


def metric_message(metric: JobMetric) -> Message:
    """Return a metric as it is sent; without an id, which numbers events."""
    data = MetricDocument.model_validate(metric).model_dump_json()
    return Message(metric.seq, "metric", format_sse_event(data_str=data, event="metric"))


def progress_text(progress: Progress) -> bytes:
    """Return where a job is, as it is sent."""
    return format_sse_event(data_str=progress.model_dump_json(), event="progress")


def _batches(known: Mapping[str, Known]) -> Iterator[dict[str, Known]]:
    rows = list(known.items())
    for start in range(0, len(rows), AT_ONCE):
        yield dict(rows[start : start + AT_ONCE])
