"""Announcing what happened, in the transaction in which it happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import database_now
from store.identifiers import new_id
from store.states import REQUESTED, DeliveryStatus, WebhookEvent
from store.tables import Dataset, Job, Model, WebhookDelivery, WebhookEndpoint

ALL_EVENTS = "*"
TEST_EVENT = "webhook.test"
MAX_LABELS_BYTES = 8192  # the specification asks for messages below 20 kB


def announce_job(session: Session, job: Job) -> None:
    """Tell that a job a client asked for is in another state; states between say nothing."""
    event = f"job.{job.state}"
    if job.kind in REQUESTED and event in set(WebhookEvent):
        _announce(session, job.tenant_id, WebhookEvent(event), _job_data(job))


def announce_subject(session: Session, subject: Model | Dataset) -> None:
    """Tell that a model or data set is ready or was rejected."""
    noun = "model" if isinstance(subject, Model) else "dataset"
    data = {
        "object": noun,
        "id": subject.id,
        "name": subject.name,
        "status": subject.status,
        "reasons": [reason["code"] for reason in subject.reasons],
        "url": f"/v1/{noun}s/{subject.id}",
    }
    _announce(session, subject.tenant_id, WebhookEvent(f"{noun}.{subject.status}"), data)


def add_test(session: Session, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Add a delivery that tells nothing but that deliveries arrive."""
    now = database_now(session)
    data = {"object": "webhook_endpoint", "id": endpoint.id}
    message = _Message(new_id("msg"), endpoint.tenant_id, TEST_EVENT, _body(TEST_EVENT, data, now))
    delivery = _delivery(message, endpoint.id, now)
    session.add(delivery)
    session.flush()
    return delivery


@dataclass(frozen=True)
class _Message:
    """What is told to every endpoint that wants it; `id` is the `webhook-id`."""

    id: str
    tenant_id: str
    type: str
    body: str


def _announce(
    session: Session, tenant_id: str, event: WebhookEvent, data: Mapping[str, Any]
) -> None:
    endpoint_ids = _wanting(session, tenant_id, event)
    if not endpoint_ids:
        return
    now = database_now(session)
    message = _Message(new_id("msg"), tenant_id, event, _body(event, data, now))
    session.add_all(_delivery(message, endpoint_id, now) for endpoint_id in endpoint_ids)
    session.flush()


def _wanting(session: Session, tenant_id: str, event: WebhookEvent) -> list[str]:
    """Return the endpoints that want an event; none of them is deleted in this transaction.

    Else a transition would fail, because an endpoint that it writes for has just gone.
    """
    rows = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.events)
        .where(WebhookEndpoint.tenant_id == tenant_id, WebhookEndpoint.enabled)
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True, key_share=True)
    )
    return [found for found, events in rows if event in events or ALL_EVENTS in events]


def _body(event: str, data: Mapping[str, Any], now: datetime) -> str:
    message = {"type": event, "timestamp": now.isoformat().replace("+00:00", "Z"), "data": data}
    return json.dumps(message, separators=(",", ":"))  # ASCII: a NUL in a label is escaped too


def _delivery(message: _Message, endpoint_id: str, now: datetime) -> WebhookDelivery:
    return WebhookDelivery(
        id=new_id("whd"),
        tenant_id=message.tenant_id,
        endpoint_id=endpoint_id,
        message_id=message.id,
        type=message.type,
        body=message.body,
        status=DeliveryStatus.PENDING,
        attempts=0,
        tries=0,
        next_attempt_at=now,
        created_at=now,
    )


def _job_data(job: Job) -> dict[str, Any]:
    error = {name: job.error[name] for name in ("code", "retryable")} if job.error else None
    large = len(json.dumps(job.labels)) > MAX_LABELS_BYTES
    return {
        "object": "job",
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "attempt": job.attempt,
        "model_id": job.model_id,
        "dataset_id": job.dataset_id,
        "labels": None if large else job.labels,
        "error": error,
        "url": f"/v1/jobs/{job.id}",
    }
