"""`/v1/jobs/{id}/events`, `/metrics` and `/logs`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from api.auth import TenantId
from api.dependencies import Services, ServicesDep
from api.jobs import event_stream, history, service
from api.jobs.event_stream import EventStream, too_many_streams
from api.jobs.history import EventDocument, EventPage, MetricDocument, MetricPage
from api.pagination import Text
from api.problems import problem_responses
from store.tables import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

After = Annotated[int, Query(ge=0, le=2**31 - 1, description="Go on behind this number")]
LastEventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=2**31 - 1, description="Go on a stream behind this id"),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of a page")]
Tail = Annotated[int | None, Query(ge=1, le=100_000, description="Only the last lines")]
_PROBLEMS = problem_responses("unauthenticated", "not_found", "invalid_request")


@router.get(
    "/events",
    operation_id="list_job_events",
    response_model=EventPage,
    responses={
        200: {
            "description": "A page of events, or a stream of them",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The stream is over: nothing comes behind Last-Event-ID"},
        **_PROBLEMS,
    },
)
async def list_job_events(
    *,
    request: Request,
    response: Response,
    job_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    after: After = 0,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> EventPage | Response:
    """List what happened to a job, in order; as a stream with `Accept: text/event-stream`.

    A stream begins behind `Last-Event-ID` (or `after`), tells each event as it happens, also
    `metric` and `progress`, and ends with the job: its last event is `job.succeeded`, `job.failed`
    or `job.cancelled`.
    """
    if not event_stream.asked_for(request.headers.get("accept")):
        response.headers["Vary"] = "Accept"
        return await run_in_threadpool(
            _events, services, job_id, tenant_id=tenant_id, after=after, limit=limit
        )
    job = await run_in_threadpool(_job, services, job_id, tenant_id)
    place = after if last_event_id is None else last_event_id
    if event_stream.is_over(job, place):
        return Response(status_code=204)
    if services.feeds.streams_of(tenant_id) >= event_stream.MOST_STREAMS:
        raise too_many_streams()
    return EventStream(services.feeds, services.database, job, after=place)


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


def _job(services: Services, job_id: str, tenant_id: str) -> Job:
    with services.database.reading() as session:
        return service.get(session, job_id, tenant_id=tenant_id)


def _events(
    services: Services, job_id: str, *, tenant_id: str, after: int, limit: int
) -> EventPage:
    with services.database.reading() as session:
        job = service.get(session, job_id, tenant_id=tenant_id)
        found = history.events(session, job.id, after=after, limit=limit)
    data = [EventDocument.model_validate(event) for event in found.rows]
    return EventPage(data=data, has_more=found.has_more, **_bounds(data))


def _bounds(data: list[EventDocument] | list[MetricDocument]) -> dict[str, int | None]:
    return {
        "first_id": data[0].seq if data else None,
        "last_id": data[-1].seq if data else None,
    }
