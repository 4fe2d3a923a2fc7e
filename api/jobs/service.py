"""Creating jobs, finding them, and where they stand in their queue."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import String, cast, exists, select
from sqlalchemy.orm import Session

from api.jobs.admission import (
    check_baseline,
    check_compressible,
    check_dataset_ready,
    check_fit,
    check_method,
    check_model_ready,
    resolve_evaluation,
)
from api.jobs.schemas import JobDocument, job_document
from api.models.references import resolve
from api.pagination import Cursor, Slice, keyset
from api.tenancy import Lock, find, missing, owned
from store import forecast, line
from store.contracts import JobRequest, RequestedKind, document
from store.states import REQUESTED, JobKind, JobState
from store.submit import queue_of, submit
from store.tables import Dataset, Job, Worker


def create(
    session: Session,
    request: JobRequest,
    *,
    tenant_id: str,
    queue: str,
    sweep_id: str | None = None,
) -> Job:
    """Queue a job that can be carried out; raises one of the errors of `admission`.

    `queue` is the operator's, for jobs that take any device. Models named by an alias are those
    it points to now. What the job refers to is not deleted before it has ended.
    """
    place = {"tenant_id": tenant_id, "pointer": "/model_id"}
    model = resolve(session, request.model_id, lock="share", **place)
    place = {"tenant_id": tenant_id, "pointer": "/dataset_id"}
    dataset = find(session, Dataset, request.dataset_id, lock="share", **place)
    check_model_ready(model)
    check_dataset_ready(dataset)
    check_fit(model, dataset)
    named = {"model_id": model.id}
    if request.kind == "compress":
        check_compressible(model)
        check_method(request.method, request.compression, model)
    if request.baseline_model_id is not None:
        place = {"tenant_id": tenant_id, "pointer": "/baseline_model_id"}
        baseline = resolve(session, request.baseline_model_id, lock="share", **place)
        check_baseline(baseline, model)
        named["baseline_model_id"] = baseline.id
    counts = dataset.num_examples or {}
    evaluation = resolve_evaluation(request.evaluation, test_examples=counts.get("test", 0))
    return submit(
        session,
        tenant_id=tenant_id,
        kind=JobKind(request.kind),
        queue=queue_of(request.device, default=queue),
        request=document(request.model_copy(update={"evaluation": evaluation, **named})),
        model_id=model.id,
        dataset_id=dataset.id,
        labels=request.labels,
        priority=request.priority,
        max_runtime_s=request.max_runtime_s,
        sweep_id=sweep_id,
    )


def get(session: Session, job_id: str, *, tenant_id: str, lock: Lock | None = None) -> Job:
    """Return a job a client asked for; raises NotFound (validations are part of models)."""
    job = find(session, Job, job_id, tenant_id=tenant_id, lock=lock)
    if job.kind not in REQUESTED:
        raise missing("job", job_id)
    return job


def page(
    session: Session,
    cursor: Cursor,
    *,
    tenant_id: str,
    state: JobState | None,
    model_id: str | None,
    kind: RequestedKind | None,
    sweep_id: str | None = None,
) -> Slice[Job]:
    """Return a page of the jobs that the tenant asked for."""
    kinds = REQUESTED if kind is None else {JobKind(kind)}
    statement = owned(Job, tenant_id).where(Job.kind.in_(kinds))
    if state is not None:
        statement = statement.where(Job.state == state)
    if model_id is not None:
        statement = statement.where(Job.model_id == model_id)
    if sweep_id is not None:
        statement = statement.where(Job.sweep_id == sweep_id)
    return keyset(session, statement, Job.id, cursor)


def documents(session: Session, jobs: Sequence[Job]) -> list[JobDocument]:
    """Return the documents of jobs; those that wait know their place and when they may end."""
    queued = [job for job in jobs if job.state == JobState.QUEUED]
    places = line.positions(session, [job.id for job in queued])
    etas = forecast.eta_s(session, queued, places)
    heard_of = {queue: _heard_of(session, queue) for queue in {job.queue for job in queued}}
    return [
        job_document(
            job,
            queue_position=places.get(job.id),
            eta_s=etas.get(job.id, job.eta_s),
            without_worker=not heard_of.get(job.queue, True),
        )
        for job in jobs
    ]


def _heard_of(session: Session, queue: str) -> bool:
    """Say whether a worker has ever come to serve a queue."""
    serves = cast(Worker.queues, String).contains(f'"{queue}"', autoescape=True)
    return bool(session.scalar(select(exists().where(serves))))
