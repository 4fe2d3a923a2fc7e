"""What was sent to an endpoint: listed, looked at, and sent again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.pagination import CursorDep, Page, page_bounds
from api.problems import problem_responses
from api.waiting import WaitDep
from api.webhooks import service
from api.webhooks.schemas import WebhookDeliveryDocument, delivery_document
from store.states import DeliveryStatus

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.get(
    "/webhook-endpoints/{endpoint_id}/deliveries",
    operation_id="list_webhook_deliveries",
    responses=problem_responses("unauthenticated", "not_found", "invalid_request"),
)
def list_webhook_deliveries(
    *,
    endpoint_id: str,
    tenant_id: TenantId,
    services: ServicesDep,
    cursor: CursorDep,
    status: Annotated[DeliveryStatus | None, Query(description="Only these")] = None,
) -> Page[WebhookDeliveryDocument]:
    """List the deliveries of an endpoint, newest first; they are kept for 30 days."""
    with services.database.reading() as session:
        found = service.page_of_deliveries(
            session, cursor, endpoint_id, tenant_id=tenant_id, status=status
        )
    data = [delivery_document(delivery) for delivery in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))


@router.get(
    "/webhook-deliveries/{delivery_id}",
    operation_id="get_webhook_delivery",
    responses=problem_responses("unauthenticated", "not_found"),
)
async def get_webhook_delivery(
    delivery_id: str, tenant_id: TenantId, services: ServicesDep, wait: WaitDep
) -> WebhookDeliveryDocument:
    """Return a delivery; `Prefer: wait=N` holds the answer while it is pending."""

    def read() -> WebhookDeliveryDocument:
        with services.database.reading() as session:
            delivery = service.get_delivery(session, delivery_id, tenant_id=tenant_id)
            return delivery_document(delivery)

    return await wait.until(read, lambda delivery: delivery.status is not DeliveryStatus.PENDING)


@router.post(
    "/webhook-deliveries/{delivery_id}/redeliver",
    status_code=202,
    operation_id="redeliver_webhook",
    responses=problem_responses("unauthenticated", "not_found", "webhook_endpoint_disabled"),
)
def redeliver_webhook(
    delivery_id: str, response: Response, tenant_id: TenantId, services: ServicesDep
) -> WebhookDeliveryDocument:
    """Send a message again, now and by the whole schedule, under the same `webhook-id`."""
    with services.database.writing() as session:
        delivery = service.redeliver(session, delivery_id, tenant_id=tenant_id)
    response.headers["Location"] = f"/v1/webhook-deliveries/{delivery.id}"
    return delivery_document(delivery)
