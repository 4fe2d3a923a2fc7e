"""`/v1/plans`: what a job would choose among, in seconds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import deletion
from api.auth import TenantId
from api.conditional import NOT_MODIFIED, tagged
from api.dependencies import Services, ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.pagination import CursorDep, Page, Text, page_bounds
from api.plans import service
from api.plans.schemas import PlanDocument, PlanSummary
from api.problems import problem_responses
from api.waiting import WaitDep
from store.contracts import PlanRequest
from store.states import PlanStatus

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post(
    "",
    status_code=202,
    operation_id="create_plan",
    responses={
        200: {"model": PlanDocument, "description": "The plan was there before"},
        201: {"model": PlanDocument, "description": "The plan was made while the client waited"},
        **problem_responses(
            *IDEMPOTENCY_PROBLEMS,
            "unauthenticated",
            "quota_exceeded",
            "not_found",
            "model_not_ready",
            "too_large",
            "unsupported_media_type",
            "invalid_request",
            "model_rejected",
            "not_compressible",
            "target_infeasible",
        ),
    },
)
async def create_plan(
    *,
    request: PlanRequest,
    response: Response,
    tenant_id: TenantId,
    services: ServicesDep,
    wait: WaitDep,
    once: OnceDep,
) -> PlanDocument:
    """Ask for the ranks that a job would choose among; nothing is trained.

    `Prefer: wait=N` holds the answer while it is planning. The same question again is answered at
    once, unless the plan failed.
    """

    def create(session: Session) -> Created:
        plan = service.create(session, request, tenant_id=tenant_id, quotas=services.quotas)
        document = service.get(session, plan.id, tenant_id=tenant_id)
        document.cached = document.status is PlanStatus.READY
        return Created(document, f"/v1/plans/{document.id}")

    answer, headers = await run_in_threadpool(once.answer, create)
    document = PlanDocument.model_validate_json(answer.body)
    if document.status is PlanStatus.PLANNING:
        document = await _settled(services, wait, document.id, tenant_id)
    response.headers.update({"Location": f"/v1/plans/{document.id}", **headers})
    response.status_code = _status_code(document)
    return document


@router.get(
    "",
    operation_id="list_plans",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_plans(
    tenant_id: TenantId,
    services: ServicesDep,
    cursor: CursorDep,
    model_id: Annotated[Text | None, Query(description="Only plans of this model")] = None,
) -> Page[PlanSummary]:
    """List the plans, newest first; `GET` one of them for its ranks."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id, model_id=model_id)
    return Page(data=list(found.rows), has_more=found.has_more, **page_bounds(found.rows))


@router.get(
    "/{plan_id}",
    operation_id="get_plan",
    response_model=PlanDocument,
    responses={**NOT_MODIFIED, **problem_responses("unauthenticated", "not_found")},
)
async def get_plan(
    *,
    request: Request,
    plan_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    wait: WaitDep,
) -> Response:
    """Return a plan; `Prefer: wait=N` holds the answer while it is planning."""
    document = await _settled(services, wait, plan_id, tenant_id)
    return tagged(request, document, wait.applied)


@router.delete(
    "/{plan_id}",
    status_code=204,
    operation_id="delete_plan",
    responses=problem_responses("unauthenticated", "not_found", "in_use"),
)
def delete_plan(plan_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a plan that is no longer being made."""
    with services.database.writing() as session:
        deletion.delete_plan(session, plan_id, tenant_id=tenant_id)


async def _settled(services: Services, wait: WaitDep, plan_id: str, tenant_id: str) -> PlanDocument:
    def read() -> PlanDocument:
        with services.database.reading() as session:
            return service.get(session, plan_id, tenant_id=tenant_id)

    return await wait.until(read, lambda plan: plan.status is not PlanStatus.PLANNING)


def _status_code(document: PlanDocument) -> int:
    if document.cached:
        return 200
    return 202 if document.status is PlanStatus.PLANNING else 201
