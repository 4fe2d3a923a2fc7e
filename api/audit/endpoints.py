"""`/v1/audit-events`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, cast, or_

from api.auth import TenantId
from api.dependencies import ServicesDep
from api.pagination import CursorDep, Page, Text, keyset, page_bounds
from api.problems import problem_responses
from api.tenancy import owned
from store.tables import AuditEvent

router = APIRouter(prefix="/v1/audit-events", tags=["audit"])


class AuditEventDocument(BaseModel):
    """A change: `action` is the `operationId` of the request, `key_id` null for the operator.

    `object_id` is what the path named or what was made, `created` everything that was made.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["audit_event"] = "audit_event"
    action: str
    key_id: str | None
    object_id: str | None
    created: list[str]
    request_id: str | None
    client_address: str | None
    created_at: datetime


@router.get(
    "",
    operation_id="list_audit_events",
    responses=problem_responses("unauthenticated", "invalid_request"),
)
def list_audit_events(
    *,
    tenant_id: TenantId,
    services: ServicesDep,
    cursor: CursorDep,
    action: Annotated[Text | None, Query(description="Only this operation")] = None,
    object_id: Annotated[Text | None, Query(description="Only what changed or made it")] = None,
    key_id: Annotated[Text | None, Query(description="Only what was done with this key")] = None,
) -> Page[AuditEventDocument]:
    """List what was changed, newest first; requests that were refused changed nothing."""
    statement = owned(AuditEvent, tenant_id)
    if action is not None:
        statement = statement.where(AuditEvent.action == action)
    if key_id is not None:
        statement = statement.where(AuditEvent.key_id == key_id)
    if object_id is not None:
        made = cast(AuditEvent.created, String).contains(f'"{object_id}"', autoescape=True)
        statement = statement.where(or_(AuditEvent.object_id == object_id, made))
    with services.database.reading() as session:
        found = keyset(session, statement, AuditEvent.id, cursor)
    data = [AuditEventDocument.model_validate(row) for row in found.rows]
    return Page(data=data, has_more=found.has_more, **page_bounds(data))
