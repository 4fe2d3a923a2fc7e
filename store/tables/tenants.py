"""Who owns things, the keys that open them, and what was done with those."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base


class Tenant(Base):
    """Whoever owns files, models, data sets and jobs.

    `quotas` has the limits that differ from the operator's defaults (`store.quotas`).
    """

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    quotas: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key of a tenant; only its HMAC is kept, and `prefix`, by which people tell keys apart.

    `created_by` is the key it was made with (None: by the operator), `rotated_from` the one it
    takes the place of. `last_used_at` is written now and then, not at every request.
    """

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str | None]  # None: made before prefixes were kept
    scopes: Mapped[list[Any]]
    lifetime_s: Mapped[float | None]  # what was asked for; a rotation may end the key earlier
    created_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    rotated_from: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEvent(Base):
    """Something that was changed, by whom: written in the transaction that changed it.

    `key_id` is None for what the operator did. `object_id` is what the path named or what was
    made; `created` has every row that was made.
    """

    __tablename__ = "audit_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str | None]
    created: Mapped[list[Any]]
    request_id: Mapped[str | None]
    client_address: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (
        Index("ix_audit_events_tenant_id_id", "tenant_id", "id"),
        Index("ix_audit_events_tenant_id_action_id", "tenant_id", "action", "id"),
    )
