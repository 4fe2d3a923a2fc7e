"""`/v1/sweeps`: several compressions of one model in one request."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.idempotency import Created, OnceDep
from api.jobs.endpoints import AT_REST, CREATE_PROBLEMS
from api.pagination import CursorDep, Page, page_bounds
from api.pareto import service as pareto
from api.pareto.schemas import ParetoDocument
from api.pareto.service import AxesQuery
from api.problems import problem_responses
from api.sweeps import service
from api.sweeps.schemas import SweepDocument
from api.waiting import WaitDep
from store.contracts import SweepRequest

router = APIRouter(prefix="/v1/sweeps", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    operation_id="create_sweep",
    response_model=SweepDocument,
    responses=CREATE_PROBLEMS,
)
def create_sweep(
    request: SweepRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Ask for several compressions of one model: a job for each ratio, profile and seed, or none.

    What cannot be met is refused with the ratios at fault and the best that can.
    """

    def create(session: Session) -> Created:
        services.quotas.claim_jobs(session, tenant_id, len(request.jobs()))
        queue = services.settings.job_queue
        sweep = service.create(session, request, tenant_id=tenant_id, queue=queue)
        document = service.document_of(session, sweep)
        return Created(document, document.urls.self)

    return once(create)


@router.get(
    "",
    operation_id="list_sweeps",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_sweeps(
    tenant_id: TenantId, services: ServicesDep, cursor: CursorDep
) -> Page[SweepDocument]:
    """List the sweeps, newest first."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
        data = service.documents(session, found.rows)
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{sweep_id}",
    operation_id="get_sweep",
    responses=problem_responses("unauthenticated", "not_found"),
)
async def get_sweep(
    sweep_id: str, tenant_id: TenantId, services: ServicesDep, wait: WaitDep
) -> SweepDocument:
    """Return a sweep; `Prefer: wait=N` holds the answer until all of its jobs have ended."""

    def read() -> SweepDocument:
        with services.database.reading() as session:
            sweep = service.get(session, sweep_id, tenant_id=tenant_id)
            return service.document_of(session, sweep)

    return await wait.until(read, lambda sweep: AT_REST.issuperset(sweep.counts))


@router.get(
    "/{sweep_id}/pareto",
    operation_id="get_sweep_pareto",
    responses=problem_responses("unauthenticated", "not_found", "invalid_request"),
)
def get_sweep_pareto(
    sweep_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    axes: AxesQuery = pareto.DEFAULT_AXES,
) -> ParetoDocument:
    """Return what the jobs of a sweep that have succeeded came to, beside the model itself."""
    with services.database.reading() as session:
        sweep = service.get(session, sweep_id, tenant_id=tenant_id)
        return pareto.of_sweep(session, sweep, pareto.axes_of(axes))


@router.post(
    "/{sweep_id}/cancel",
    operation_id="cancel_sweep",
    responses=problem_responses("unauthenticated", "not_found", "invalid_transition"),
)
def cancel_sweep(sweep_id: str, tenant_id: TenantId, services: ServicesDep) -> SweepDocument:
    """Cancel every job of a sweep that has not ended, as `cancel_job` does."""
    with services.database.writing() as session:
        sweep = service.cancel(session, sweep_id, tenant_id=tenant_id)
        return service.document_of(session, sweep)


@router.delete(
    "/{sweep_id}",
    status_code=204,
    operation_id="delete_sweep",
    responses=problem_responses("unauthenticated", "not_found", "in_use", "invalid_transition"),
)
def delete_sweep(sweep_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a sweep that has ended, with all of its jobs, or nothing of it."""
    with services.database.writing() as session:
        service.remove(session, sweep_id, tenant_id=tenant_id)
