"""`/v1/jobs`: ask for a compression or an evaluation, look at it, tell it to stop."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session

from api import deletion
from api.auth import TenantId
from api.conditional import none_match, versions
from api.dependencies import Services, ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.jobs import actions, service
from api.jobs.schemas import JobDocument
from api.pagination import CursorDep, Page, Text, page_bounds
from api.problems import problem_responses
from api.waiting import WaitDep
from store.contracts import JobRequest, RequestedKind
from store.states import FINAL, JobState
from store.tables import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
AT_REST = FINAL | {JobState.PAUSED}  # nothing more happens by itself

CREATE_PROBLEMS = problem_responses(
    *IDEMPOTENCY_PROBLEMS,
    "unauthenticated",
    "quota_exceeded",
    "not_found",
    "model_not_ready",
    "dataset_not_ready",
    "too_large",
    "unsupported_media_type",
    "invalid_request",
    "model_rejected",
    "dataset_rejected",
    "shape_mismatch",
    "labels_outside_classes",
    "not_compressible",
    "target_infeasible",
    "too_few_examples",
)
_ACTION_PROBLEMS = problem_responses(
    "unauthenticated", "not_found", "invalid_transition", "precondition_failed"
)
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The job's ETag: only if it has not changed since then"),
]
_RETRY_PROBLEMS = problem_responses(
    "unauthenticated",
    "quota_exceeded",
    "not_found",
    "invalid_transition",
    *IDEMPOTENCY_PROBLEMS,
)


@router.post(
    "",
    status_code=202,
    operation_id="create_job",
    response_model=JobDocument,
    responses=CREATE_PROBLEMS,
)
def create_job(
    request: JobRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Ask for a compression, or for an evaluation of a model as it is (`kind`).

    What cannot be met is refused with the best that can.
    """

    def create(session: Session) -> Created:
        services.quotas.claim_jobs(session, tenant_id)
        queue = services.settings.job_queue
        return _created(session, service.create(session, request, tenant_id=tenant_id, queue=queue))

    return once(create)


@router.get(
    "",
    operation_id="list_jobs",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_jobs(
    *,
    tenant_id: TenantId,
    services: ServicesDep,
    cursor: CursorDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state")] = None,
    model_id: Annotated[Text | None, Query(description="Only jobs of this model")] = None,
    kind: Annotated[RequestedKind | None, Query(description="Only jobs of this kind")] = None,
    sweep_id: Annotated[Text | None, Query(description="Only jobs of this sweep")] = None,
) -> Page[JobDocument]:
    """List the jobs, newest first."""
    with services.database.reading() as session:
        found = service.page(
            session,
            cursor,
            tenant_id=tenant_id,
            state=state,
            model_id=model_id,
            kind=kind,
            sweep_id=sweep_id,
        )
        data = service.documents(session, found.rows)
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{job_id}",
    operation_id="get_job",
    response_model=JobDocument,
    responses={
        304: {"description": "The job is as it was at If-None-Match"},
        **problem_responses("unauthenticated", "not_found"),
    },
)
async def get_job(
    *,
    job_id: str,
    request: Request,
    tenant_id: TenantId,
    services: ServicesDep,
    wait: WaitDep,
) -> Response:
    """Return a job; `Prefer: wait=N` holds the answer until the job has ended."""

    def read() -> tuple[JobDocument, str]:
        with services.database.reading() as session:
            job = service.get(session, job_id, tenant_id=tenant_id)
            document = service.documents(session, [job])[0]
            return document, etag(job.version, document)

    document, tag = await wait.until(read, lambda read: read[0].state in AT_REST)
    headers = {"ETag": tag, **wait.applied}
    if none_match(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    # made here: FastAPI would check the document once more, which takes longer than reading it
    return Response(document.model_dump_json(), media_type="application/json", headers=headers)


@router.post("/{job_id}/cancel", operation_id="cancel_job", responses=_ACTION_PROBLEMS)
def cancel_job(
    job_id: str, tenant_id: TenantId, services: ServicesDep, if_match: IfMatch = None
) -> JobDocument:
    """Cancel a job: at once if it waits, else it is `cancelling` until its worker has stopped."""
    return _act(services, job_id, "cancel", tenant_id, if_match)


@router.post("/{job_id}/pause", operation_id="pause_job", responses=_ACTION_PROBLEMS)
def pause_job(
    job_id: str, tenant_id: TenantId, services: ServicesDep, if_match: IfMatch = None
) -> JobDocument:
    """Pause a job; a running one is `pausing` until it has saved where it is."""
    return _act(services, job_id, "pause", tenant_id, if_match)


@router.post("/{job_id}/resume", operation_id="resume_job", responses=_ACTION_PROBLEMS)
def resume_job(
    job_id: str, tenant_id: TenantId, services: ServicesDep, if_match: IfMatch = None
) -> JobDocument:
    """Queue a paused job again; it goes on from where it was."""
    return _act(services, job_id, "resume", tenant_id, if_match)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    operation_id="retry_job",
    response_model=JobDocument,
    responses=_RETRY_PROBLEMS,
)
def retry_job(job_id: str, tenant_id: TenantId, services: ServicesDep, once: OnceDep) -> Response:
    """Make a new job of one that failed or was cancelled."""

    def create(session: Session) -> Created:
        services.quotas.claim_jobs(session, tenant_id)
        return _created(session, actions.retry(session, job_id, tenant_id=tenant_id))

    return once(create)


@router.delete(
    "/{job_id}",
    status_code=204,
    operation_id="delete_job",
    responses=problem_responses("unauthenticated", "not_found", "in_use", "invalid_transition"),
)
def delete_job(job_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a job that has ended, with its events, metrics, logs and artifacts."""
    with services.database.writing() as session:
        deletion.delete_job(session, job_id, tenant_id=tenant_id)


def etag(version: int, document: JobDocument) -> str:
    """Return the tag of a job's document: what a queued job waits for changes without a version."""
    if document.queue_position is None:
        return f'"{version}"'
    waiting = (document.eta_s, document.notice)
    digest = hashlib.sha256(repr(waiting).encode()).hexdigest()[:12]
    return f'"{version}-{document.queue_position}-{digest}"'


def _created(session: Session, job: Job) -> Created:
    document = service.documents(session, [job])[0]
    return Created(document, document.urls.self)


def _act(
    services: Services, job_id: str, action: actions.Action, tenant_id: str, if_match: str | None
) -> JobDocument:
    expected = versions(if_match)
    with services.database.writing() as session:
        job = actions.act(session, job_id, action, tenant_id=tenant_id, versions=expected)
        return service.documents(session, [job])[0]
