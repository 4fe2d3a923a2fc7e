"""What a client may tell a job to do, and from which states."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from sqlalchemy.orm import Session

from api.conditional import PreconditionFailed
from api.errors import InvalidTransition
from api.jobs import service
from api.tenancy import find, missing
from store.lifecycle import transition
from store.removal import lock_job
from store.states import JobKind, JobState
from store.submit import submit
from store.tables import Dataset, Job, Model

Action = Literal["cancel", "pause", "resume"]

# A job nobody works on goes at once; the supervisor of one that runs sees the wish and stops it.
MOVES: dict[Action, dict[JobState, JobState]] = {
    "cancel": {
        JobState.QUEUED: JobState.CANCELLED,
        JobState.PAUSED: JobState.CANCELLED,
        JobState.RUNNING: JobState.CANCELLING,
        JobState.PAUSING: JobState.CANCELLING,
    },
    "pause": {JobState.QUEUED: JobState.PAUSED, JobState.RUNNING: JobState.PAUSING},
    "resume": {JobState.PAUSED: JobState.QUEUED},
}
RETRIABLE = frozenset({JobState.FAILED, JobState.CANCELLED})


def act(
    session: Session,
    job_id: str,
    action: Action,
    *,
    tenant_id: str,
    versions: Collection[int] | None = None,
) -> Job:
    """Move a job as asked, whatever its state turns out to be, if it is of one of `versions`.

    Raises NotFound, InvalidTransition or PreconditionFailed.
    """
    job = service.get(session, job_id, tenant_id=tenant_id)
    expected = None if versions is None else Job.version.in_(versions)
    for origin, target in MOVES[action].items():
        moved = transition(session, job.id, target, origin=[origin], where=expected)
        if moved is not None:
            return moved
    session.expire(job)
    job = service.get(session, job_id, tenant_id=tenant_id)  # it may have been deleted meanwhile
    if versions is not None and job.version not in versions:
        raise _has_moved(job)
    raise _not_from(JobState(job.state), action)


def retry(session: Session, job_id: str, *, tenant_id: str) -> Job:
    """Queue the same request again as a new job, of the same sweep if it had one.

    Raises InvalidTransition, or NotFound when its model, data set or baseline was deleted.
    """
    asked = service.get(session, job_id, tenant_id=tenant_id)
    job = lock_job(session, asked.id, share=True)
    if job is None:
        raise missing("job", job_id)
    if job.state not in RETRIABLE:
        raise _not_from(JobState(job.state), "retry")
    for entity, identifier in _subjects(job):
        find(session, entity, identifier, tenant_id=tenant_id, lock="share")
    return submit(
        session,
        tenant_id=tenant_id,
        kind=JobKind(job.kind),
        queue=job.queue,
        request=job.request,
        model_id=job.model_id,
        dataset_id=job.dataset_id,
        labels=job.labels,
        priority=job.priority,
        max_runtime_s=job.max_runtime_s,
        retried_from=job.id,
        sweep_id=job.sweep_id,
    )


def _subjects(job: Job) -> Iterator[tuple[type[Model | Dataset], str]]:
    for entity, identifier in (
        (Model, job.model_id),
        (Dataset, job.dataset_id),
        (Model, job.request.get("baseline_model_id")),
    ):
        if identifier is not None:
            yield entity, identifier


def possible(state: JobState) -> list[str]:
    """Return the actions that a job in `state` takes."""
    actions: list[str] = [action for action, moves in MOVES.items() if state in moves]
    return actions + (["retry"] if state in RETRIABLE else [])


def _has_moved(job: Job) -> PreconditionFailed:
    return PreconditionFailed(
        f"The job has moved on since you read it and is {job.state} now; GET it again and decide.",
        members={"state": job.state},
    )


def _not_from(state: JobState, action: str) -> InvalidTransition:
    allowed = possible(state)
    words = ", ".join(allowed) or "nothing"
    return InvalidTransition(
        f"A job that is {state} takes no {action}; possible now: {words}.",
        members={"state": state, "possible": allowed},
    )
