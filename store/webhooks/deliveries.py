"""When a delivery is due, whose it is, and what its outcome means.

Any number of processes deliver: a claim is one conditional UPDATE that sets a lease, and whoever
writes the outcome must still hold it. So a delivery is sent at least once, never lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    ScalarSelect,
    SQLColumnExpression,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from store.database import database_now
from store.states import DeliveryStatus, DisabledReason
from store.tables import WebhookDelivery, WebhookEndpoint
from store.webhooks.events import TEST_EVENT

LEASE_S = 120.0  # many times what an attempt may take
# After each failure of Standard Webhooks' example schedule; the last is followed by none.
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.2  # a wait is up to this much longer
MAX_RETRY_AFTER_S = 86_400.0
HORIZON_S = 2 * 86_400.0  # due later than this: the clock was set back
FAILING_DAYS = 5  # without a success, until an endpoint is disabled
KEPT_DAYS = 30
FORGET_AT_ONCE = 1000

_HONOURED = frozenset({429, 503})
_GONE = 410


@dataclass(frozen=True)
class Waiting:
    """An endpoint for which something is due."""

    endpoint_id: str
    tenant_id: str


@dataclass(frozen=True)
class Claim:
    """The right to make one attempt; `timestamp` is its time in Unix seconds."""

    id: str
    token: str
    endpoint_id: str
    tenant_id: str
    url: str
    secrets: tuple[str, ...]
    message_id: str
    body: bytes
    timestamp: int


@dataclass(frozen=True)
class Outcome:
    """The status that came back, or the `error` that says why none did."""

    response_status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the endpoint has taken it."""
        return self.response_status is not None and self.response_status // 100 == 2


def waiting(
    session: Session,
    *,
    limit: int,
    busy_endpoints: Collection[str] = (),
    busy_tenants: Collection[str] = (),
) -> list[Waiting]:
    """Return endpoints with something due: those of tests, then the longest overdue first.

    Asks each endpoint for the first of its deliveries, so that what waits behind it costs nothing.
    """
    now = database_now(session)
    first = _first_due()
    free = (
        WebhookEndpoint.id.not_in(busy_endpoints),
        WebhookEndpoint.tenant_id.not_in(busy_tenants),
    )
    names = (WebhookEndpoint.id, WebhookEndpoint.tenant_id)
    tested = (
        select(*names)
        .join(WebhookDelivery, WebhookDelivery.endpoint_id == WebhookEndpoint.id)
        .where(WebhookDelivery.type == TEST_EVENT, _due(now), *free)
        .distinct()
    )
    told = (
        select(*names).where(WebhookEndpoint.enabled, _is_past(first, now), *free).order_by(first)
    )
    rows = [row for query in (tested, told) for row in session.execute(query.limit(limit))]
    return [Waiting(*row) for row in dict.fromkeys(tuple(row) for row in rows)][:limit]


def overdue_since(session: Session) -> datetime | None:
    """Return since when the longest waiting delivery to an enabled endpoint is due."""
    first = select(_first_due().label("first")).where(WebhookEndpoint.enabled).subquery()
    found: datetime | None = session.scalar(
        select(func.min(first.c.first, type_=first.c.first.type))
    )
    return found


def claim(session: Session, endpoint_id: str) -> Claim | None:
    """Take what is due longest for an endpoint, a test before all else; None if another has."""
    now = database_now(session)
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None:
        return None
    found = _longest_due(session, endpoint_id, now, WebhookDelivery.type == TEST_EVENT)
    if found is None and endpoint.enabled:
        found = _longest_due(session, endpoint_id, now)
    if found is None:
        return None
    token = secrets.token_hex(16)
    taken = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == found, _due(now))
        .values(
            lease_token=token,
            next_attempt_at=now + timedelta(seconds=LEASE_S),
            last_attempt_at=now,
            attempts=WebhookDelivery.attempts + 1,
            tries=WebhookDelivery.tries + 1,
        )
        .execution_options(synchronize_session=False)
    )
    if _rows(taken) != 1:
        return None
    delivery = session.get_one(WebhookDelivery, found, populate_existing=True)
    return Claim(
        id=delivery.id,
        token=token,
        endpoint_id=endpoint.id,
        tenant_id=endpoint.tenant_id,
        url=endpoint.url,
        secrets=_signing_secrets(endpoint, now),
        message_id=delivery.message_id,
        body=delivery.body.encode(),
        timestamp=int(now.timestamp()),
    )


def record(session: Session, claimed: Claim, outcome: Outcome, *, jitter: float) -> None:
    """Write the outcome of an attempt, unless its lease is gone; `jitter` is in 0..1."""
    endpoint = session.scalar(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.id == claimed.endpoint_id)
        .with_for_update(key_share=True)  # two failures at once, and announcing goes on
    )
    delivery = session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.id == claimed.id,
            WebhookDelivery.lease_token == claimed.token,
        )
        .with_for_update()
    )
    if endpoint is None or delivery is None:
        return
    now = database_now(session)
    delivery.lease_token = None
    delivery.response_status = outcome.response_status
    delivery.error = outcome.error
    if outcome.delivered:
        _finish(delivery, DeliveryStatus.DELIVERED, now)
        endpoint.failing_since = None
    else:
        _fail(endpoint, delivery, outcome, now=now, jitter=jitter)


def redeliver(session: Session, delivery: WebhookDelivery) -> None:
    """Make a locked delivery due now, with the whole schedule before it; one under way goes on."""
    now = database_now(session)
    under_way = delivery.lease_token is not None and not _overdue(delivery, now)
    if under_way:
        return
    delivery.status = DeliveryStatus.PENDING
    delivery.tries = 0
    delivery.next_attempt_at = now
    delivery.lease_token = None
    delivery.finished_at = None
    session.flush()


def forget(session: Session) -> int:
    """Remove deliveries older than KEPT_DAYS, some at once; returns how many."""
    limit = database_now(session) - timedelta(days=KEPT_DAYS)
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.created_at < limit)
        .order_by(WebhookDelivery.created_at)
        .limit(FORGET_AT_ONCE)
    )
    ids = session.scalars(old).all()
    removed = session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
    return _rows(removed)


def enable(endpoint: WebhookEndpoint) -> None:
    """Let an endpoint be told again, whatever it was disabled for."""
    endpoint.enabled = True
    endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None


def _longest_due(
    session: Session, endpoint_id: str, now: datetime, *more: ColumnElement[bool]
) -> str | None:
    mine = (WebhookDelivery.endpoint_id == endpoint_id, _due(now), *more)
    oldest = (WebhookDelivery.next_attempt_at, WebhookDelivery.id)
    return session.scalar(select(WebhookDelivery.id).where(*mine).order_by(*oldest).limit(1))


def _due(now: datetime) -> ColumnElement[bool]:
    pending = WebhookDelivery.status == DeliveryStatus.PENDING
    return pending & _is_past(WebhookDelivery.next_attempt_at, now)


def _is_past(when: SQLColumnExpression[datetime | None], now: datetime) -> ColumnElement[bool]:
    return or_(when <= now, when > now + timedelta(seconds=HORIZON_S))


def _first_due() -> ScalarSelect[datetime | None]:
    """Return, for the endpoint of the query around it, when the first that waits is due."""
    when = WebhookDelivery.next_attempt_at
    return (
        select(func.min(when, type_=when.type))
        .where(
            WebhookDelivery.endpoint_id == WebhookEndpoint.id,
            WebhookDelivery.status == DeliveryStatus.PENDING,
        )
        .correlate(WebhookEndpoint)
        .scalar_subquery()
    )


def _overdue(delivery: WebhookDelivery, now: datetime) -> bool:
    return delivery.next_attempt_at is None or delivery.next_attempt_at <= now


def _signing_secrets(endpoint: WebhookEndpoint, now: datetime) -> tuple[str, ...]:
    until = endpoint.previous_secret_expires_at
    if endpoint.previous_secret is None or until is None or until <= now:
        return (endpoint.secret,)
    return (endpoint.secret, endpoint.previous_secret)


def _finish(delivery: WebhookDelivery, status: DeliveryStatus, now: datetime) -> None:
    delivery.status = status
    delivery.finished_at = now
    delivery.next_attempt_at = None


def _fail(
    endpoint: WebhookEndpoint,
    delivery: WebhookDelivery,
    outcome: Outcome,
    *,
    now: datetime,
    jitter: float,
) -> None:
    """Have another attempt made later, or give up; a test is made once and blames nobody."""
    if outcome.response_status == _GONE:
        _finish(delivery, DeliveryStatus.FAILED, now)
        _disable(endpoint, DisabledReason.GONE, now)
        return
    if delivery.type == TEST_EVENT:
        _finish(delivery, DeliveryStatus.FAILED, now)
        return
    endpoint.failing_since = endpoint.failing_since or now
    if delivery.tries <= len(SCHEDULE_S):
        delivery.next_attempt_at = now + _wait(delivery.tries, outcome, jitter=jitter)
        return
    _finish(delivery, DeliveryStatus.FAILED, now)
    if now - endpoint.failing_since >= timedelta(days=FAILING_DAYS):
        _disable(endpoint, DisabledReason.FAILING, now)


def _wait(tries: int, outcome: Outcome, *, jitter: float) -> timedelta:
    """Return how long to wait after failure number `tries`; Retry-After can only make it longer."""
    seconds = SCHEDULE_S[tries - 1] * (1.0 + JITTER * jitter)
    if outcome.response_status in _HONOURED and outcome.retry_after_s is not None:
        seconds = max(seconds, min(outcome.retry_after_s, MAX_RETRY_AFTER_S))
    return timedelta(seconds=seconds)


def _disable(endpoint: WebhookEndpoint, reason: DisabledReason, now: datetime) -> None:
    endpoint.enabled = False
    endpoint.disabled_at = now
    endpoint.disabled_reason = reason


def _rows(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount
