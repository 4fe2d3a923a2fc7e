"""Making, changing and finding webhook endpoints, and looking at their deliveries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api.errors import (
    Fault,
    InvalidWebhookUrl,
    RotationUnderWay,
    WebhookEndpointDisabled,
)
from api.pagination import Cursor, Slice, keyset
from api.tenancy import find, owned
from api.webhooks.schemas import WebhookEndpointChanges, WebhookEndpointRequest
from store.database import database_now
from store.identifiers import new_id
from store.states import DeliveryStatus
from store.tables import WebhookDelivery, WebhookEndpoint
from store.webhooks import deliveries, events, signing
from store.webhooks.destinations import ForbiddenDestination, read_url


def create(
    session: Session, request: WebhookEndpointRequest, *, tenant_id: str, allow_private: bool
) -> WebhookEndpoint:
    """Add an endpoint with a fresh secret; raises InvalidWebhookUrl."""
    _check_url(request.url, allow_private=allow_private)
    endpoint = WebhookEndpoint(
        id=new_id("whe"),
        tenant_id=tenant_id,
        url=request.url,
        description=request.description,
        events=_names(request.events),
        enabled=request.enabled,
        secret=signing.new_secret(),
        created_at=database_now(session),
    )
    session.add(endpoint)
    session.flush()
    return endpoint


def change(
    session: Session,
    endpoint_id: str,
    changes: WebhookEndpointChanges,
    *,
    tenant_id: str,
    allow_private: bool,
) -> WebhookEndpoint:
    """Change what is named; raises NotFound, InvalidWebhookUrl."""
    endpoint = find(session, WebhookEndpoint, endpoint_id, tenant_id=tenant_id, lock="change")
    if changes.url is not None:
        _check_url(changes.url, allow_private=allow_private)
        endpoint.url = changes.url
    if changes.description is not None:
        endpoint.description = changes.description
    if changes.events is not None:
        endpoint.events = _names(changes.events)
    if changes.enabled:
        deliveries.enable(endpoint)
    elif changes.enabled is not None:
        endpoint.enabled = False
    session.flush()
    return endpoint


def remove(session: Session, endpoint_id: str, *, tenant_id: str) -> None:
    """Remove an endpoint with all its deliveries; raises NotFound."""
    session.delete(find(session, WebhookEndpoint, endpoint_id, tenant_id=tenant_id, lock="update"))


def rotate(
    session: Session, endpoint_id: str, *, tenant_id: str, overlap_s: int
) -> WebhookEndpoint:
    """Give an endpoint a new secret; the last one signs beside it for `overlap_s` seconds.

    Raises NotFound, or RotationUnderWay where a third secret would be needed.
    """
    endpoint = find(session, WebhookEndpoint, endpoint_id, tenant_id=tenant_id, lock="change")
    now = database_now(session)
    if overlap_s > 0:
        _check_ended(endpoint, now)
    endpoint.previous_secret = endpoint.secret
    endpoint.previous_secret_expires_at = now + timedelta(seconds=overlap_s)
    endpoint.secret = signing.new_secret()
    session.flush()
    return endpoint


def test(session: Session, endpoint_id: str, *, tenant_id: str) -> WebhookDelivery:
    """Add a test delivery, also to an endpoint that is disabled; raises NotFound."""
    endpoint = find(session, WebhookEndpoint, endpoint_id, tenant_id=tenant_id, lock="share")
    return events.add_test(session, endpoint)


def redeliver(session: Session, delivery_id: str, *, tenant_id: str) -> WebhookDelivery:
    """Make a delivery due again; raises NotFound, WebhookEndpointDisabled."""
    of = get_delivery(session, delivery_id, tenant_id=tenant_id).endpoint_id
    endpoint = find(session, WebhookEndpoint, of, tenant_id=tenant_id, lock="share")
    delivery = find(session, WebhookDelivery, delivery_id, tenant_id=tenant_id, lock="update")
    if not endpoint.enabled and delivery.type != events.TEST_EVENT:
        raise WebhookEndpointDisabled(
            f"{endpoint.id} is disabled, so nothing is sent to it. PATCH it with enabled: true."
        )
    deliveries.redeliver(session, delivery)
    return delivery


def get(session: Session, endpoint_id: str, *, tenant_id: str) -> WebhookEndpoint:
    """Return an endpoint; raises NotFound."""
    return find(session, WebhookEndpoint, endpoint_id, tenant_id=tenant_id)


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[WebhookEndpoint]:
    """Return a page of the tenant's endpoints."""
    return keyset(session, owned(WebhookEndpoint, tenant_id), WebhookEndpoint.id, cursor)


def get_delivery(session: Session, delivery_id: str, *, tenant_id: str) -> WebhookDelivery:
    """Return a delivery; raises NotFound."""
    return find(session, WebhookDelivery, delivery_id, tenant_id=tenant_id)


def page_of_deliveries(
    session: Session,
    cursor: Cursor,
    endpoint_id: str,
    *,
    tenant_id: str,
    status: DeliveryStatus | None,
) -> Slice[WebhookDelivery]:
    """Return a page of an endpoint's deliveries; raises NotFound."""
    endpoint = get(session, endpoint_id, tenant_id=tenant_id)
    statement = owned(WebhookDelivery, tenant_id).where(WebhookDelivery.endpoint_id == endpoint.id)
    if status is not None:
        statement = statement.where(WebhookDelivery.status == status)
    return keyset(session, statement, WebhookDelivery.id, cursor)


def _check_ended(endpoint: WebhookEndpoint, now: datetime) -> None:
    until = endpoint.previous_secret_expires_at
    if until is not None and until > now:
        detail = (
            f"The secret before this one signs until {until:%Y-%m-%d %H:%M:%S} UTC: rotate after "
            "that, or with overlap_s 0, which ends both at once."
        )
        raise RotationUnderWay(
            detail, members={"possible_at": until.isoformat().replace("+00:00", "Z")}
        )


def _names(chosen: Iterable[str]) -> list[str]:
    return sorted({str(event) for event in chosen})


def _check_url(url: str, *, allow_private: bool) -> None:
    try:
        read_url(url, allow_private=allow_private)
    except ForbiddenDestination as error:
        raise InvalidWebhookUrl(str(error), faults=[Fault(str(error), pointer="/url")]) from None
