"""What is due is sent, signed, once at a time to each endpoint, and again after a failure."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks.webhooks import Webhook

from stack.children import Child
from store.database import Database
from store.keys import create_key, create_tenant
from store.settings import Settings
from store.states import DeliveryStatus, JobState
from store.tables import WebhookDelivery, WebhookEndpoint
from tests.e2e.watching import until
from tests.support import rows
from tests.support.server import SECRET, serving
from tests.support.threads import PATIENCE_S, at_once
from tests.support.webhooks import (
    Answer,
    Received,
    Receiver,
    add_delivery,
    add_endpoint,
    deliveries_of,
    make_due,
    read_delivery,
    read_endpoint,
)
from worker.webhooks import deliverer as deliverer_module
from worker.webhooks.deliverer import THREADS, THREADS_OF_A_TENANT, Deliverer


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer_module, "POLL_S", 0.01)


def make_deliverer(database: Database) -> Deliverer:
    return Deliverer(database, Settings(webhook_allow_private=True))


def deliver(database: Database) -> None:
    """Make the attempts that are due and wait for their ends."""
    deliverer = make_deliverer(database)
    deliverer.start_due()
    deliverer.join(PATIENCE_S)


@contextmanager
def delivering(*deliverers: Deliverer) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=[stop]) for one in deliverers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


class Gate:
    """Holds requests to `/slow` until it is opened; tells when there are as many as expected."""

    def __init__(self, expected: int) -> None:
        self.opened = threading.Event()
        self.all_in = threading.Event()
        self.arrived = threading.Event()
        self.waiting = 0
        self._expected = expected
        self._lock = threading.Lock()

    def __call__(self, request: Received) -> Answer:
        if request.path != "/slow":
            self.arrived.set()
            return 204, {}, b""
        with self._lock:
            self.waiting += 1
            if self.waiting == self._expected:
                self.all_in.set()
        assert self.opened.wait(PATIENCE_S)
        return 204, {}, b""


def slow_url(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/slow"


def test_a_finished_job_is_told_with_a_signature_that_others_verify(
    database: Database, receiver: Receiver
) -> None:
    job_id = rows.add_job(database)
    tenant_id = rows.read_job(database, job_id).tenant_id
    endpoint_id = add_endpoint(database, tenant_id, url=receiver.url)
    rows.move(database, job_id, JobState.CANCELLED)
    deliver(database)
    [request] = receiver.requests
    told = Webhook(read_endpoint(database, endpoint_id).secret).verify(
        request.body, request.headers
    )
    assert (told["type"], told["data"]["id"]) == ("job.cancelled", job_id)
    [delivery] = deliveries_of(database, endpoint_id)
    assert request.headers["webhook-id"] == delivery.message_id
    assert (delivery.status, delivery.response_status) == (DeliveryStatus.DELIVERED, 204)


def test_while_a_secret_is_rotated_old_and_new_both_verify(
    sqlite_database: Database, receiver: Receiver
) -> None:
    endpoint_id = add_endpoint(
        sqlite_database,
        rows.add_tenant(sqlite_database),
        url=receiver.url,
        previous_secret="whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk",
    )
    endpoint = read_endpoint(sqlite_database, endpoint_id)
    with sqlite_database.writing() as session:
        never = endpoint.created_at.replace(year=2999)
        session.execute(update(WebhookEndpoint).values(previous_secret_expires_at=never))
    add_delivery(sqlite_database, endpoint_id)
    deliver(sqlite_database)
    [request] = receiver.requests
    assert endpoint.previous_secret is not None
    for secret in (endpoint.secret, endpoint.previous_secret):
        Webhook(secret).verify(request.body, request.headers)


def test_what_failed_is_sent_again_under_its_id_with_a_signature_of_its_own(
    sqlite_database: Database, receiver: Receiver
) -> None:
    endpoint_id = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    delivery_id = add_delivery(sqlite_database, endpoint_id)
    receiver.answers(500)
    deliver(sqlite_database)
    failed = read_delivery(sqlite_database, delivery_id)
    assert (failed.status, failed.response_status) == (DeliveryStatus.PENDING, 500)
    deliver(sqlite_database)
    assert len(receiver.requests) == 1  # it is not due yet
    make_due(sqlite_database)
    receiver.answers(200)
    deliver(sqlite_database)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    Webhook(read_endpoint(sqlite_database, endpoint_id).secret).verify(second.body, second.headers)
    assert read_delivery(sqlite_database, delivery_id).status == DeliveryStatus.DELIVERED


def test_a_private_address_is_not_sent_to_unless_the_operator_says_so(
    sqlite_database: Database, receiver: Receiver
) -> None:
    endpoint_id = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    delivery_id = add_delivery(sqlite_database, endpoint_id)
    deliverer = Deliverer(sqlite_database, Settings())
    deliverer.start_due()
    deliverer.join(PATIENCE_S)
    assert receiver.requests == []
    assert read_delivery(sqlite_database, delivery_id).error == "forbidden_address"


def test_a_slow_endpoint_keeps_nobody_waiting_and_gets_one_message_at_a_time(
    sqlite_database: Database, receiver: Receiver
) -> None:
    receiver.answer = gate = Gate(expected=1)
    tenant_id = rows.add_tenant(sqlite_database)
    slow = add_endpoint(sqlite_database, tenant_id, url=slow_url(receiver))
    add_delivery(sqlite_database, slow)
    add_delivery(sqlite_database, slow)
    deliverer = make_deliverer(sqlite_database)
    assert deliverer.start_due() == 1
    assert gate.all_in.wait(PATIENCE_S)
    assert deliverer.start_due() == 0
    add_delivery(sqlite_database, add_endpoint(sqlite_database, tenant_id, url=receiver.url))
    assert deliverer.start_due() == 1
    assert gate.arrived.wait(PATIENCE_S)
    gate.opened.set()
    deliverer.join(PATIENCE_S)
    assert deliverer.start_due() == 1
    deliverer.join(PATIENCE_S)


def test_a_tenant_whose_endpoints_are_all_slow_keeps_no_other_waiting(
    sqlite_database: Database, receiver: Receiver
) -> None:
    receiver.answer = gate = Gate(expected=THREADS_OF_A_TENANT)
    tenant_id = rows.add_tenant(sqlite_database)
    for _ in range(THREADS + THREADS_OF_A_TENANT):
        add_delivery(
            sqlite_database, add_endpoint(sqlite_database, tenant_id, url=slow_url(receiver))
        )
    other = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    deliverer = make_deliverer(sqlite_database)
    assert deliverer.start_due() == THREADS_OF_A_TENANT
    assert gate.all_in.wait(PATIENCE_S)
    add_delivery(sqlite_database, other)
    assert deliverer.start_due() == 1
    assert gate.arrived.wait(PATIENCE_S)
    gate.opened.set()
    deliverer.join(PATIENCE_S)


def test_a_tenant_with_more_overdue_than_there_are_threads_holds_no_other_up(
    sqlite_database: Database, receiver: Receiver
) -> None:
    tenant_id = rows.add_tenant(sqlite_database)
    for _ in range(THREADS + 1):
        add_delivery(sqlite_database, add_endpoint(sqlite_database, tenant_id, url=receiver.url))
    other = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    add_delivery(sqlite_database, other)
    deliver(sqlite_database)
    [delivery] = deliveries_of(sqlite_database, other)
    assert delivery.status == DeliveryStatus.DELIVERED
    assert len(receiver.requests) == THREADS_OF_A_TENANT + 1


def test_two_deliverers_send_each_message_once(database: Database, receiver: Receiver) -> None:
    tenants = [rows.add_tenant(database) for _ in range(3)]
    endpoints = [add_endpoint(database, tenant, url=receiver.url) for tenant in tenants]
    sent = {add_delivery(database, one) for one in endpoints for _ in range(5)}
    done = threading.Event()

    def answer(_request: Received) -> Answer:
        if len(receiver.requests) >= len(sent):
            done.set()
        return 204, {}, b""

    receiver.answer = answer
    with delivering(make_deliverer(database), make_deliverer(database)):
        assert done.wait(PATIENCE_S)
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(ids) == len(set(ids)) == len(sent)
    for endpoint_id in endpoints:
        for delivery in deliveries_of(database, endpoint_id):
            assert (delivery.status, delivery.attempts) == (DeliveryStatus.DELIVERED, 1)


def test_two_passes_at_once_claim_nothing_twice(database: Database, receiver: Receiver) -> None:
    endpoint_id = add_endpoint(database, rows.add_tenant(database), url=receiver.url)
    for _ in range(5):
        add_delivery(database, endpoint_id)
        pair = [make_deliverer(database), make_deliverer(database)]
        assert sum(at_once([one.start_due for one in pair])) == 1
        for one in pair:
            one.join(PATIENCE_S)
    assert len(receiver.requests) == 5


def test_a_defect_in_sending_is_a_failure_like_any_other(
    sqlite_database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint_id = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    delivery_id = add_delivery(sqlite_database, endpoint_id)

    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a defect")

    deliverer = Deliverer(sqlite_database, Settings(), send=broken)  # type: ignore[arg-type]
    deliverer.start_due()
    deliverer.join(PATIENCE_S)
    assert "a defect" in caplog.text
    left = read_delivery(sqlite_database, delivery_id)
    assert (left.status, left.error) == (DeliveryStatus.PENDING, "internal")
    deliver(sqlite_database)
    assert receiver.requests == []
    make_due(sqlite_database)
    deliver(sqlite_database)
    assert len(receiver.requests) == 1


def test_an_outcome_that_cannot_be_written_is_told_again_when_the_lease_has_run_out(
    sqlite_database: Database,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint_id = add_endpoint(sqlite_database, rows.add_tenant(sqlite_database), url=receiver.url)
    delivery_id = add_delivery(sqlite_database, endpoint_id)

    def away(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(deliverer_module.deliveries, "record", away)
        deliver(sqlite_database)
    assert "the database is away" in caplog.text
    deliver(sqlite_database)
    assert len(receiver.requests) == 1
    make_due(sqlite_database)
    deliver(sqlite_database)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert read_delivery(sqlite_database, delivery_id).status == DeliveryStatus.DELIVERED


@contextmanager
def running_scheduler(database: Database, tmp_path: Path) -> Iterator[Child]:
    """Yield the scheduler's process, which is not started yet; its broker is away."""
    environment = {
        "CSTAR_DATA_DIR": str(tmp_path),
        "CSTAR_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "CSTAR_BLOB_URL": (tmp_path / "blobs").as_uri(),
        "CSTAR_BROKER_URL": "redis+socket:///nowhere/broker.sock",
        "CSTAR_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    command = [sys.executable, "-m", "worker.scheduler"]
    child = Child("scheduler", command, tmp_path / "scheduler.log", environment)
    try:
        yield child
    finally:
        child.stop(grace_s=PATIENCE_S)


@pytest.fixture
def scheduler(database: Database, tmp_path: Path) -> Iterator[Child]:
    with running_scheduler(database, tmp_path) as child:
        yield child


def test_a_process_that_is_killed_after_sending_sends_again_under_the_same_id(
    database: Database, receiver: Receiver, scheduler: Child
) -> None:
    endpoint_id = add_endpoint(database, rows.add_tenant(database), url=receiver.url)
    delivery_id = add_delivery(database, endpoint_id)
    killed, arrived = threading.Event(), threading.Event()

    def kill(_request: Received) -> Answer:
        assert scheduler.process is not None
        os.kill(scheduler.process.pid, signal.SIGKILL)
        scheduler.process.wait(PATIENCE_S)
        killed.set()
        return 204, {}, b""

    def take(_request: Received) -> Answer:
        arrived.set()
        return 204, {}, b""

    receiver.answer = kill
    scheduler.start()
    assert killed.wait(PATIENCE_S), scheduler.last_words()
    left = read_delivery(database, delivery_id)
    assert (left.status, left.attempts, left.response_status) == (DeliveryStatus.PENDING, 1, None)
    receiver.answer = take
    make_due(database)
    scheduler.start()
    assert arrived.wait(PATIENCE_S), scheduler.last_words()
    scheduler.stop(grace_s=PATIENCE_S)  # it writes what is under way before it ends
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    delivered = read_delivery(database, delivery_id)
    assert (delivered.status, delivered.attempts) == (DeliveryStatus.DELIVERED, 2)
    assert rows.count(database, WebhookDelivery) == 1


def test_from_a_request_to_a_message_that_the_secret_verifies(
    sqlite_database: Database, receiver: Receiver, tmp_path: Path
) -> None:
    with sqlite_database.writing() as session:
        tenant_id = create_tenant(session, "owner").id
        created = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    headers = {"Authorization": f"Bearer {created}"}
    with (
        serving(sqlite_database, tmp_path, webhook_allow_private=True) as (address, _),
        running_scheduler(sqlite_database, tmp_path) as scheduler,
        httpx.Client(base_url=address, headers=headers, timeout=60.0) as client,
    ):
        scheduler.start()
        made = client.post("/v1/webhook-endpoints", json={"url": receiver.url}).json()
        sent = client.post(f"/v1/webhook-endpoints/{made['id']}/test")
        url = sent.headers["Location"]
        until(lambda: client.get(url).json()["status"] == "delivered", "the delivery")
    [request] = receiver.requests
    told = Webhook(made["secret"]).verify(request.body, request.headers)
    assert (told["type"], told["data"]["id"]) == ("webhook.test", made["id"])
