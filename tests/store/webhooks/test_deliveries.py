"""When a delivery is due, who may make it, and what its outcome means."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from store.database import Database, database_now
from store.states import DeliveryStatus, DisabledReason
from store.tables import WebhookDelivery, WebhookEndpoint
from store.webhooks import deliveries, events
from store.webhooks.deliveries import JITTER, LEASE_S, SCHEDULE_S, Outcome
from tests.support import rows
from tests.support.threads import at_once
from tests.support.webhooks import (
    add_delivery,
    add_endpoint,
    attempt,
    deliveries_of,
    make_due,
    read_delivery,
    read_endpoint,
    record,
    take,
)

OK, FAILED = Outcome(response_status=200), Outcome(response_status=500)
ATTEMPTS = len(SCHEDULE_S) + 1
HOUR_S = 3600.0


@pytest.fixture
def endpoint_id(database: Database) -> str:
    return add_endpoint(database, rows.add_tenant(database))


def waiting(database: Database, **busy: set[str]) -> list[str]:
    with database.reading() as session:
        found = deliveries.waiting(session, limit=10, **busy)
    return [one.endpoint_id for one in found]


def redeliver(database: Database, delivery_id: str) -> WebhookDelivery:
    with database.writing() as session:
        deliveries.redeliver(session, session.get_one(WebhookDelivery, delivery_id))
    return read_delivery(database, delivery_id)


def change(database: Database, endpoint_id: str, **columns: object) -> None:
    with database.writing() as session:
        mine = WebhookEndpoint.id == endpoint_id
        session.execute(update(WebhookEndpoint).where(mine).values(**columns))


def fail_for(
    database: Database,
    endpoint_id: str,
    expected_s: float,
    outcome: Outcome = FAILED,
    *,
    jitter: float = 0.0,
) -> WebhookDelivery:
    """Fail an attempt: however long it takes, the next is due `expected_s` after this failure."""
    wait = timedelta(seconds=expected_s)
    earliest = rows.now(database) + wait
    delivery = attempt(database, endpoint_id, outcome, jitter=jitter)
    latest = rows.now(database) + wait
    assert delivery.next_attempt_at is not None
    assert earliest <= delivery.next_attempt_at <= latest
    return delivery


def exhaust(database: Database, endpoint_id: str) -> Iterator[WebhookDelivery]:
    """Fail the one delivery of an endpoint until there is no other attempt."""
    for _ in range(ATTEMPTS):
        make_due(database)
        yield attempt(database, endpoint_id, FAILED)


def test_a_delivery_is_claimed_with_what_it_takes_to_send_it(
    database: Database, endpoint_id: str
) -> None:
    delivery = read_delivery(database, add_delivery(database, endpoint_id))
    endpoint = read_endpoint(database, endpoint_id)
    claim = take(database, endpoint_id)
    assert claim is not None
    assert (claim.url, claim.secrets) == (endpoint.url, (endpoint.secret,))
    assert (claim.message_id, claim.body.decode()) == (delivery.message_id, delivery.body)
    assert read_delivery(database, delivery.id).attempts == 1


def test_a_test_is_claimed_before_all_that_waits(database: Database, endpoint_id: str) -> None:
    add_delivery(database, endpoint_id)
    with database.writing() as session:
        endpoint = session.get_one(WebhookEndpoint, endpoint_id)
        test_id = events.add_test(session, endpoint).id
    claim = take(database, endpoint_id)
    assert claim is not None
    assert claim.id == test_id


def test_of_two_claims_at_once_exactly_one_gets_the_delivery(
    database: Database, endpoint_id: str
) -> None:
    for _ in range(8):
        delivery_id = add_delivery(database, endpoint_id)
        won = at_once([partial(take, database, endpoint_id)] * 2)
        assert [claim.id for claim in won if claim is not None] == [delivery_id]
        assert read_delivery(database, delivery_id).attempts == 1


def test_what_is_claimed_is_not_due_until_its_lease_has_run_out(
    database: Database, endpoint_id: str
) -> None:
    delivery_id = add_delivery(database, endpoint_id)
    first = take(database, endpoint_id)
    delivery = read_delivery(database, delivery_id)
    assert delivery.last_attempt_at is not None
    assert delivery.next_attempt_at == delivery.last_attempt_at + timedelta(seconds=LEASE_S)
    assert waiting(database) == []
    assert take(database, endpoint_id) is None
    make_due(database)
    second = take(database, endpoint_id)
    assert first is not None
    assert second is not None
    assert first.message_id == second.message_id
    assert first.token != second.token


def test_an_outcome_whose_lease_was_taken_over_is_not_written(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    late = take(database, endpoint_id)
    make_due(database)
    current = take(database, endpoint_id)
    assert late is not None
    assert current is not None
    assert record(database, late, OK).status == DeliveryStatus.PENDING
    assert record(database, current, OK).status == DeliveryStatus.DELIVERED
    assert record(database, late, FAILED).response_status == 200


def test_a_success_ends_a_delivery(database: Database, endpoint_id: str) -> None:
    delivery_id = add_delivery(database, endpoint_id)
    delivery = attempt(database, endpoint_id, Outcome(response_status=204))
    assert delivery.id == delivery_id
    assert (delivery.status, delivery.response_status) == (DeliveryStatus.DELIVERED, 204)
    assert delivery.next_attempt_at is None
    assert delivery.finished_at is not None
    make_due(database)
    assert waiting(database) == []


@pytest.mark.parametrize("status", [100, 301, 302, 308, 400, 401, 404, 500, 502])
def test_nothing_but_2xx_is_a_success(database: Database, endpoint_id: str, status: int) -> None:
    add_delivery(database, endpoint_id)
    delivery = attempt(database, endpoint_id, Outcome(response_status=status))
    assert (delivery.status, delivery.response_status) == (DeliveryStatus.PENDING, status)


def test_failures_are_followed_by_the_waits_of_the_schedule_and_then_by_none(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    for expected_s in SCHEDULE_S:
        delivery = fail_for(database, endpoint_id, expected_s)
        assert delivery.status == DeliveryStatus.PENDING
        make_due(database)
    last = attempt(database, endpoint_id, FAILED)
    assert (last.status, last.attempts) == (DeliveryStatus.FAILED, ATTEMPTS)
    assert last.next_attempt_at is None


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_wait_is_spread_by_its_jitter(
    database: Database, endpoint_id: str, jitter: float
) -> None:
    add_delivery(database, endpoint_id)
    fail_for(database, endpoint_id, SCHEDULE_S[0] * (1 + JITTER * jitter), jitter=jitter)


@pytest.mark.parametrize(
    ("status", "asked_s", "expected_s"),
    [
        (503, HOUR_S, HOUR_S),
        (429, HOUR_S, HOUR_S),
        (429, 0.0, SCHEDULE_S[0]),  # it makes nothing faster
        (503, 1e9, 24 * HOUR_S),  # nor does it wait for ever
        (500, HOUR_S, SCHEDULE_S[0]),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    database: Database, endpoint_id: str, status: int, asked_s: float, expected_s: float
) -> None:
    add_delivery(database, endpoint_id)
    outcome = Outcome(response_status=status, retry_after_s=asked_s)
    fail_for(database, endpoint_id, expected_s, outcome)


def test_410_ends_the_delivery_and_disables_the_endpoint(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    delivery = attempt(database, endpoint_id, Outcome(response_status=410))
    endpoint = read_endpoint(database, endpoint_id)
    assert delivery.status == DeliveryStatus.FAILED
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, DisabledReason.GONE)
    assert endpoint.disabled_at is not None


def test_what_waits_for_a_disabled_endpoint_waits_until_it_is_enabled(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    change(database, endpoint_id, enabled=False)
    assert waiting(database) == []
    assert take(database, endpoint_id) is None
    change(database, endpoint_id, enabled=True)
    assert waiting(database) == [endpoint_id]
    assert take(database, endpoint_id) is not None


def test_an_endpoint_that_took_nothing_for_days_is_disabled_when_a_message_is_given_up(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    *_, last = exhaust(database, endpoint_id)
    endpoint = read_endpoint(database, endpoint_id)
    assert last.status == DeliveryStatus.FAILED
    assert endpoint.enabled
    assert endpoint.failing_since is not None
    change(database, endpoint_id, failing_since=endpoint.failing_since - timedelta(days=6))
    add_delivery(database, endpoint_id)
    *_, last = exhaust(database, endpoint_id)
    endpoint = read_endpoint(database, endpoint_id)
    assert last.status == DeliveryStatus.FAILED
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, DisabledReason.FAILING)


def test_a_success_forgets_that_an_endpoint_was_failing(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    attempt(database, endpoint_id, Outcome(error="timeout"))
    assert read_endpoint(database, endpoint_id).failing_since is not None
    make_due(database)
    attempt(database, endpoint_id, OK)
    assert read_endpoint(database, endpoint_id).failing_since is None


def test_redelivery_is_due_at_once_under_the_same_id_with_the_whole_schedule(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    *_, given_up = exhaust(database, endpoint_id)
    again = redeliver(database, given_up.id)
    assert again.message_id == given_up.message_id
    assert (again.status, again.finished_at) == (DeliveryStatus.PENDING, None)
    assert waiting(database) == [endpoint_id]
    delivery = fail_for(database, endpoint_id, SCHEDULE_S[0])
    assert delivery.attempts == ATTEMPTS + 1


def test_redelivery_of_what_waits_for_its_next_attempt_makes_it_due(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    delivery = attempt(database, endpoint_id, FAILED)
    assert waiting(database) == []
    redeliver(database, delivery.id)
    assert waiting(database) == [endpoint_id]


def test_redelivery_leaves_an_attempt_that_is_under_way_alone(
    database: Database, endpoint_id: str
) -> None:
    delivery_id = add_delivery(database, endpoint_id)
    claim = take(database, endpoint_id)
    assert claim is not None
    redeliver(database, delivery_id)
    assert take(database, endpoint_id) is None
    assert record(database, claim, OK).status == DeliveryStatus.DELIVERED


def test_both_secrets_sign_until_the_old_one_expires(database: Database, endpoint_id: str) -> None:
    with database.reading() as session:
        now = database_now(session)
    for age_s, count in ((-60, 2), (60, 1)):
        old = {"previous_secret_expires_at": now - timedelta(seconds=age_s)}
        change(database, endpoint_id, previous_secret="whsec_b2xk", **old)
        add_delivery(database, endpoint_id)
        claim = take(database, endpoint_id)
        assert claim is not None
        assert len(claim.secrets) == count
        assert claim.secrets[0] == read_endpoint(database, endpoint_id).secret


def test_endpoints_and_tenants_that_are_busy_are_passed_over(database: Database) -> None:
    tenants = [rows.add_tenant(database) for _ in range(2)]
    found = [add_endpoint(database, tenant) for tenant in tenants for _ in range(2)]
    for one in found:
        add_delivery(database, one)
        add_delivery(database, one)
    assert waiting(database) == found
    assert waiting(database, busy_endpoints={found[0]}) == found[1:]
    assert waiting(database, busy_tenants={tenants[0]}) == found[2:]


def test_a_clock_that_was_set_back_delays_nothing_for_long(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    with database.reading() as session:
        late = database_now(session) + timedelta(days=400)
    make_due(database, next_attempt_at=late)
    assert waiting(database) == [endpoint_id]


def test_old_deliveries_are_forgotten_and_young_ones_kept(
    database: Database, endpoint_id: str
) -> None:
    old, young = add_delivery(database, endpoint_id), add_delivery(database, endpoint_id)
    with database.writing() as session:
        then = database_now(session) - timedelta(days=31)
        session.get_one(WebhookDelivery, old).created_at = then
    with database.writing() as session:
        assert deliveries.forget(session) == 1
    assert [delivery.id for delivery in deliveries_of(database, endpoint_id)] == [young]


def test_an_outcome_for_an_endpoint_that_was_deleted_is_dropped(
    database: Database, endpoint_id: str
) -> None:
    add_delivery(database, endpoint_id)
    claim = take(database, endpoint_id)
    assert claim is not None
    with database.writing() as session:
        session.delete(session.get_one(WebhookEndpoint, endpoint_id))
    with database.writing() as session:
        deliveries.record(session, claim, OK, jitter=0.0)
    assert rows.count(database, WebhookDelivery) == 0
