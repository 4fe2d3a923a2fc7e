"""Who changed what: one row a change, in the transaction that makes it.

Not here: refused requests (`/metrics` counts those), and what the service does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from store.database import database_now
from store.identifiers import new_id
from store.tables import AuditEvent


def record(
    session: Session,
    *,
    tenant_id: str,
    action: str,
    object_id: str | None,
    key_id: str | None = None,
    created: Sequence[str] = (),
    request_id: str | None = None,
    client_address: str | None = None,
) -> None:
    """Add an event to the transaction; without `key_id` it was the operator."""
    session.add(
        AuditEvent(
            id=new_id("aud"),
            tenant_id=tenant_id,
            key_id=key_id,
            action=action,
            object_id=object_id,
            created=list(created),
            request_id=request_id,
            client_address=client_address,
            created_at=database_now(session),
        )
    )
    session.flush()


def forget_old(session: Session, *, older_than_s: float) -> int:
    """Delete events older than that; returns how many there were."""
    limit = database_now(session) - timedelta(seconds=older_than_s)
    statement = delete(AuditEvent).where(AuditEvent.created_at < limit).returning(AuditEvent.id)
    return len(session.scalars(statement).all())
