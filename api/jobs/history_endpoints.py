"""`/v1/jobs/{id}/events`, `/metrics` and `/logs`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.jobs import history, service
from api.jobs.history import EventDocument, EventPage, MetricDocument, MetricPage
from api.pagination import Text
from api.problems import problem_responses

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

After = Annotated[int, Query(ge=0, le=2**31 - 1, description="Go on behind this number")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of a page")]
Tail = Annotated[int | None, Query(ge=1, le=100_000, description="Only the last lines")]
_PROBLEMS = problem_responses("unauthenticated", "not_found", "invalid_request")


@router.get("/events", operation_id="list_job_events", responses=_PROBLEMS)
def list_job_events(
    job_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    after: After = 0,
    limit: Limit = 100,
) -> EventPage:
    """List what happened to a job, in order."""
    with services.database.reading() as session:
        job = service.get(session, job_id, tenant_id=tenant_id)
        found = history.events(session, job.id, after=after, limit=limit)
    data = [EventDocument.model_validate(event) for event in found.rows]
    return EventPage(data=data, has_more=found.has_more, **_bounds(data))


@router.get("/metrics", operation_id="list_job_metrics", responses=_PROBLEMS)
def list_job_metrics(
    *,
    job_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    after: After = 0,
    limit: Limit = 100,
    name: Annotated[Text | None, Query(description="Only this metric")] = None,
    phase: Annotated[Text | None, Query(description="Only this phase")] = None,
) -> MetricPage:
    """List what was measured, in order."""
    with services.database.reading() as session:
        job = service.get(session, job_id, tenant_id=tenant_id)
        found = history.metrics(session, job.id, after=after, limit=limit, name=name, phase=phase)
    data = [MetricDocument.model_validate(metric) for metric in found.rows]
    return MetricPage(data=data, has_more=found.has_more, **_bounds(data))


@router.get(
    "/logs",
    operation_id="get_job_logs",
    response_class=PlainTextResponse,
    responses=_PROBLEMS,
)
def get_job_logs(
    job_id: str, tenant_id: TenantId, services: ServicesDep, tail: Tail = None
) -> PlainTextResponse:
    """Return the logs of all attempts, in order."""
    with services.database.reading() as session:
        job = service.get(session, job_id, tenant_id=tenant_id)
        return PlainTextResponse(history.log(session, job.id, tail=tail))


def _bounds(data: list[EventDocument] | list[MetricDocument]) -> dict[str, int | None]:
    return {
        "first_id": data[0].seq if data else None,
        "last_id": data[-1].seq if data else None,
    }
