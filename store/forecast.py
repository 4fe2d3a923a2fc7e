"""When a queued job will have ended, guessed from those of its queue that have succeeded.

Its own duration is the median of the last jobs of its kind and profile, the wait that of all of
the queue, for each that comes first, shared by as many workers as are at work there now. Without
such a job nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from store.states import LEASED, JobState
from store.tables import Job

REMEMBERED = 20  # jobs the median is taken of


def eta_s(session: Session, jobs: Sequence[Job], positions: Mapping[str, int]) -> dict[str, float]:
    """Return in how many seconds each queued job will have ended, for those of which it is known.

    `positions` says how many jobs come before each.
    """
    waits = {queue: _wait_s(session, queue) for queue in {job.queue for job in jobs}}
    own = {_sort(job): _duration_s(session, *_alike(job)) for job in jobs}
    found: dict[str, float] = {}
    for job in jobs:
        wait, duration = waits[job.queue], own[_sort(job)]
        if wait is not None and duration is not None:
            first, each = wait
            found[job.id] = first + each * positions[job.id] + duration
    return found


def _wait_s(session: Session, queue: str) -> tuple[float, float] | None:
    """Return the wait for a worker to be free, and that for each job that comes first."""
    typical = _duration_s(session, Job.queue == queue)
    if typical is None:
        return None
    at_work = session.scalars(
        select(func.count()).where(Job.queue == queue, Job.state.in_(LEASED))
    ).one()
    each = typical / max(at_work, 1)
    return (each if at_work else 0.0), each


def _duration_s(session: Session, *alike: ColumnElement[bool]) -> float | None:
    """Return the median time that the last jobs that succeeded were worked on."""
    last = (
        select(Job.running_s)
        .where(Job.state == JobState.SUCCEEDED, *alike)
        .order_by(Job.finished_at.desc())
        .limit(REMEMBERED)
    )
    durations = session.scalars(last).all()
    return median(durations) if durations else None


def _sort(job: Job) -> tuple[str, str, str | None]:
    return job.queue, job.kind, job.request.get("profile")


def _alike(job: Job) -> list[ColumnElement[bool]]:
    alike: list[ColumnElement[bool]] = [Job.queue == job.queue, Job.kind == job.kind]
    if "profile" in job.request:
        alike.append(Job.request["profile"].as_string() == job.request["profile"])
    return alike
