"""Versions of models: registering what a job left, and the aliases that point to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response
from sqlalchemy.orm import Session

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.models import aliases, lineage, service
from api.models.aliases import AliasDocument, AliasName
from api.models.schemas import ModelDocument
from api.problems import problem_responses
from store.contracts import RegistrationRequest

router = APIRouter(prefix="/v1", tags=["models"])
_UNDER_THE_PARENTS_NAME = RegistrationRequest()


@router.post(
    "/jobs/{job_id}/model",
    status_code=201,
    operation_id="register_model",
    response_model=ModelDocument,
    responses={
        200: {"model": ModelDocument, "description": "The job was registered under it before"},
        **problem_responses(
            *IDEMPOTENCY_PROBLEMS,
            "unauthenticated",
            "quota_exceeded",
            "not_found",
            "invalid_transition",
            "too_large",
            "unsupported_media_type",
            "invalid_request",
        ),
    },
)
def register_model(
    job_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    once: OnceDep,
    request: Annotated[RegistrationRequest, Body()] = _UNDER_THE_PARENTS_NAME,
) -> Response:
    """Make a model of what a compression left: the next version of its name.

    It can be evaluated at once, for instance with its parent as the baseline.
    """

    def create(session: Session) -> Created:
        if not lineage.is_registered(session, job_id, request, tenant_id=tenant_id):
            services.quotas.claim(session, tenant_id, models=1)
        model, new = lineage.register(session, job_id, request, tenant_id=tenant_id)
        document = service.document_of(session, model)
        return Created(document, f"/v1/models/{model.id}", status=201 if new else 200)

    return once(create)


@router.put(
    "/models/{model_id}/aliases/{alias}",
    operation_id="set_model_alias",
    responses=problem_responses(
        "unauthenticated", "not_found", "model_not_ready", "invalid_request", "model_rejected"
    ),
)
def set_model_alias(
    model_id: str, alias: AliasName, tenant_id: TenantId, services: ServicesDep
) -> AliasDocument:
    """Let an alias of the model's name point to this version; it leaves the one it pointed to."""
    with services.database.writing() as session:
        return aliases.point(session, model_id, alias, tenant_id=tenant_id)


@router.delete(
    "/models/{model_id}/aliases/{alias}",
    status_code=204,
    operation_id="delete_model_alias",
    responses=problem_responses("unauthenticated", "not_found", "invalid_request"),
)
def delete_model_alias(
    model_id: str, alias: AliasName, tenant_id: TenantId, services: ServicesDep
) -> None:
    """Remove an alias from the model it points to."""
    with services.database.writing() as session:
        aliases.remove(session, model_id, alias, tenant_id=tenant_id)
