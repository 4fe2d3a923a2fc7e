"""Whom to tell what happened, and each time somebody is told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from store.states import DeliveryStatus, DisabledReason
from store.tables.base import Base, one_of


class WebhookEndpoint(Base):
    """A URL of a tenant. Its secret signs, so it is kept as it is (SECURITY.md says why).

    `previous_secret` signs as well until `previous_secret_expires_at`. `failing_since` is when
    the first attempt failed after the last that succeeded.
    """

    __tablename__ = "webhook_endpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    url: Mapped[str] = mapped_column(String(2048))
    description: Mapped[str]
    events: Mapped[list[Any]]
    enabled: Mapped[bool]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_secret_expires_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    created_at: Mapped[datetime]
    __table_args__ = (one_of("disabled_reason", DisabledReason),)


class WebhookDelivery(Base):
    """One message to one endpoint. `message_id` is the `webhook-id`, the same at every attempt.

    While it is pending, `next_attempt_at` is when it may be claimed; a claim sets it to the end
    of its lease and `lease_token` to what fences the write of the outcome. `attempts` counts all
    claims, `tries` those since it was created or last redelivered.
    """

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    message_id: Mapped[str]
    type: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    status: Mapped[str]
    attempts: Mapped[int]
    tries: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    lease_token: Mapped[str | None]
    response_status: Mapped[int | None]
    error: Mapped[str | None]
    last_attempt_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (
        one_of("status", DeliveryStatus),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_endpoint_id_status_next_attempt_at",
            "endpoint_id",
            "status",
            "next_attempt_at",
        ),
        Index("ix_webhook_deliveries_status_type", "status", "type"),
    )
