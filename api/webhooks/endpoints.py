"""`/v1/webhook-endpoints`: who is told when something happens."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.idempotency import IDEMPOTENCY_PROBLEMS, Created, OnceDep
from api.pagination import CursorDep, Page, page_bounds
from api.problems import problem_responses
from api.webhooks import service
from api.webhooks.schemas import (
    SecretRotation,
    WebhookDeliveryDocument,
    WebhookEndpointChanges,
    WebhookEndpointDocument,
    WebhookEndpointRequest,
    WebhookEndpointWithSecret,
    delivery_document,
)
from store.tables import WebhookEndpoint

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])
_BODY = ("too_large", "unsupported_media_type", "invalid_request")
_SECRETS = frozenset({"secret"})


@router.post(
    "",
    status_code=201,
    operation_id="create_webhook_endpoint",
    response_model=WebhookEndpointWithSecret,
    responses=problem_responses(
        *IDEMPOTENCY_PROBLEMS,
        "unauthenticated",
        "quota_exceeded",
        *_BODY,
        "invalid_webhook_url",
    ),
)
def create_webhook_endpoint(
    request: WebhookEndpointRequest, tenant_id: TenantId, services: ServicesDep, once: OnceDep
) -> Response:
    """Have a URL told what happens. The secret that signs is shown here and never again."""
    allow_private = services.settings.webhook_allow_private

    def create(session: Session) -> Created:
        services.quotas.claim(session, tenant_id, webhook_endpoints=1)
        endpoint = service.create(
            session, request, tenant_id=tenant_id, allow_private=allow_private
        )
        return _with_secret(endpoint, status=201)

    return once(create)


@router.get(
    "",
    operation_id="list_webhook_endpoints",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_webhook_endpoints(
    tenant_id: TenantId, services: ServicesDep, cursor: CursorDep
) -> Page[WebhookEndpointDocument]:
    """List the endpoints, newest first."""
    with services.database.reading() as session:
        found = service.page(session, cursor, tenant_id=tenant_id)
    data = [WebhookEndpointDocument.model_validate(endpoint) for endpoint in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/{endpoint_id}",
    operation_id="get_webhook_endpoint",
    responses=problem_responses("unauthenticated", "not_found"),
)
def get_webhook_endpoint(
    endpoint_id: str, tenant_id: TenantId, services: ServicesDep
) -> WebhookEndpointDocument:
    """Return an endpoint."""
    with services.database.reading() as session:
        endpoint = service.get(session, endpoint_id, tenant_id=tenant_id)
    return WebhookEndpointDocument.model_validate(endpoint)


@router.patch(
    "/{endpoint_id}",
    operation_id="update_webhook_endpoint",
    responses=problem_responses("unauthenticated", "not_found", *_BODY, "invalid_webhook_url"),
)
def update_webhook_endpoint(
    endpoint_id: str, changes: WebhookEndpointChanges, tenant_id: TenantId, services: ServicesDep
) -> WebhookEndpointDocument:
    """Change an endpoint; while it is disabled nothing is written for it, and nothing sent."""
    allow_private = services.settings.webhook_allow_private
    with services.database.writing() as session:
        endpoint = service.change(
            session, endpoint_id, changes, tenant_id=tenant_id, allow_private=allow_private
        )
    return WebhookEndpointDocument.model_validate(endpoint)


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    operation_id="delete_webhook_endpoint",
    responses=problem_responses("unauthenticated", "not_found"),
)
def delete_webhook_endpoint(endpoint_id: str, tenant_id: TenantId, services: ServicesDep) -> None:
    """Remove an endpoint and its deliveries; what is under way may still arrive."""
    with services.database.writing() as session:
        service.remove(session, endpoint_id, tenant_id=tenant_id)


@router.post(
    "/{endpoint_id}/rotate-secret",
    operation_id="rotate_webhook_secret",
    response_model=WebhookEndpointWithSecret,
    responses=problem_responses(
        *IDEMPOTENCY_PROBLEMS, "unauthenticated", "not_found", "rotation_under_way", *_BODY
    ),
)
def rotate_webhook_secret(
    endpoint_id: str,
    tenant_id: TenantId,
    once: OnceDep,
    rotation: SecretRotation | None = None,
) -> Response:
    """Make a new secret; the last one signs beside it for a while, so that nothing is missed.

    One rotation at a time, but for `overlap_s` 0, which ends every older secret at once.
    """
    overlap_s = (rotation or SecretRotation()).overlap_s

    def create(session: Session) -> Created:
        endpoint = service.rotate(session, endpoint_id, tenant_id=tenant_id, overlap_s=overlap_s)
        return _with_secret(endpoint, status=200)

    return once(create)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    operation_id="send_webhook_test",
    response_model=WebhookDeliveryDocument,
    responses=problem_responses(*IDEMPOTENCY_PROBLEMS, "unauthenticated", "not_found"),
)
def send_webhook_test(endpoint_id: str, tenant_id: TenantId, once: OnceDep) -> Response:
    """Send `webhook.test`, once and at once; `GET` its delivery with `Prefer: wait=N`."""

    def create(session: Session) -> Created:
        delivery = service.test(session, endpoint_id, tenant_id=tenant_id)
        document = delivery_document(delivery)
        return Created(document, f"/v1/webhook-deliveries/{delivery.id}")

    return once(create)


def _with_secret(endpoint: WebhookEndpoint, *, status: int) -> Created:
    document = WebhookEndpointWithSecret.model_validate(endpoint)
    place = f"/v1/webhook-endpoints/{endpoint.id}"
    return Created(document, place, status=status, secrets=_SECRETS)
