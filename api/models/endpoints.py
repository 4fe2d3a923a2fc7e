"""`/v1/models`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import deletion
from api.auth import TenantId
from api.conditional import NOT_MODIFIED, tagged
from api.dependencies import ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.models import service
from api.models.references import resolve
from api.models.schemas import ModelDocument
from api.pagination import CursorDep, Page, Text, page_bounds
from api.problems import problem_responses
from api.waiting import WaitDep
from store.contracts import ModelRequest
from store.states import Status

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=202,
    operation_id="create_model",
    response_model=ModelDocument,
    responses=problem_responses(
        *IDEMPOTENCY_PROBLEMS,
        "unauthenticated",
        "quota_exceeded",
        "not_found",
        "too_large",
        "unsupported_media_type",
        "invalid_request",
        "wrong_purpose",
        "unknown_architecture",
        "invalid_arguments",
    ),
)
def create_model(
    request: ModelRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Make a model of an uploaded checkpoint; it is `validating` until it is ready or rejected."""

    def create(session: Session) -> Created:
        services.quotas.claim(session, tenant_id, models=1)
        model = service.create(session, request, tenant_id=tenant_id)
        document = service.document_of(session, model)
        return Created(document, f"/v1/models/{model.id}")

    return once(create)


@router.get(
    "",
    operation_id="list_models",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_models(
    *,
    tenant_id: TenantId,
    services: ServicesDep,
    cursor: CursorDep,
    name: Annotated[Text | None, Query(description="Only versions of this name")] = None,
    alias: Annotated[Text | None, Query(description="Only what this alias points to")] = None,
    parent_model_id: Annotated[
        Text | None, Query(description="Only what was compressed from this model")
    ] = None,
) -> Page[ModelDocument]:
    """List the models, newest first."""
    wanted = {"name": name, "alias": alias, "parent_model_id": parent_model_id}
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id, **wanted)
        data = service.documents(session, found.rows)
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{model_id}",
    operation_id="get_model",
    response_model=ModelDocument,
    responses={**NOT_MODIFIED, **problem_responses("unauthenticated", "not_found")},
)
async def get_model(
    *,
    request: Request,
    model_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    wait: WaitDep,
) -> Response:
    """Return a model, by id or as `name@alias`.

    `Prefer: wait=N` holds the answer while it is validating.
    """

    def read() -> ModelDocument:
        with services.database.reading() as session:
            model = resolve(session, model_id, tenant_id=tenant_id)
            return service.document_of(session, model)

    document = await wait.until(read, lambda model: model.status is not Status.VALIDATING)
    return tagged(request, document, wait.applied)


@router.delete(
    "/{model_id}",
    status_code=204,
    operation_id="delete_model",
    responses=problem_responses("unauthenticated", "not_found", "in_use"),
)
def delete_model(model_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Delete a model that no alias and no unfinished job uses; finished jobs keep naming it."""
    with services.database.writing() as session:
        deletion.delete_model(session, model_id, tenant_id=tenant_id)
