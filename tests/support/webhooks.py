"""Endpoints in the database, their deliveries, and a server that receives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from sqlalchemy import select, update

from store.database import Database, database_now
from store.identifiers import new_id
from store.tables import WebhookDelivery, WebhookEndpoint
from store.webhooks import deliveries, events, signing
from store.webhooks.deliveries import Claim, Outcome

URL = "https://hooks.example.com/cstar"


def add_endpoint(database: Database, tenant_id: str, **columns: Any) -> str:
    """Add an enabled endpoint that wants everything; `columns` departs from that."""
    with database.writing() as session:
        values = {
            "id": new_id("whe"),
            "tenant_id": tenant_id,
            "url": URL,
            "description": "",
            "events": ["*"],
            "enabled": True,
            "secret": signing.new_secret(),
            "created_at": database_now(session),
        }
        endpoint = WebhookEndpoint(**(values | columns))
        session.add(endpoint)
    return endpoint.id


def add_delivery(database: Database, endpoint_id: str) -> str:
    """Add a delivery of an event, due now."""
    with database.writing() as session:
        endpoint = session.get_one(WebhookEndpoint, endpoint_id)
        delivery = events.add_test(session, endpoint)
        delivery.type = "job.succeeded"
    return delivery.id


def make_due(database: Database, **columns: Any) -> None:
    """Let the waits, and the leases, of everything pending have ended a second ago."""
    with database.writing() as session:
        past = database_now(session) - timedelta(seconds=1)
        pending = WebhookDelivery.status == "pending"
        values = {"next_attempt_at": past, **columns}
        session.execute(update(WebhookDelivery).where(pending).values(**values))


def take(database: Database, endpoint_id: str) -> Claim | None:
    with database.writing() as session:
        return deliveries.claim(session, endpoint_id)


def record(
    database: Database, claim: Claim, outcome: Outcome, *, jitter: float = 0.0
) -> WebhookDelivery:
    with database.writing() as session:
        deliveries.record(session, claim, outcome, jitter=jitter)
    return read_delivery(database, claim.id)


def attempt(
    database: Database, endpoint_id: str, outcome: Outcome, *, jitter: float = 0.0
) -> WebhookDelivery:
    """Make the next attempt that is due for an endpoint."""
    claim = take(database, endpoint_id)
    assert claim is not None
    return record(database, claim, outcome, jitter=jitter)


def read_endpoint(database: Database, endpoint_id: str) -> WebhookEndpoint:
    with database.reading() as session:
        return session.get_one(WebhookEndpoint, endpoint_id)


def read_delivery(database: Database, delivery_id: str) -> WebhookDelivery:
    with database.reading() as session:
        return session.get_one(WebhookDelivery, delivery_id)


def deliveries_of(database: Database, endpoint_id: str) -> list[WebhookDelivery]:
    """Return the deliveries of an endpoint in the order in which they were written."""
    with database.reading() as session:
        mine = WebhookDelivery.endpoint_id == endpoint_id
        return list(
            session.scalars(select(WebhookDelivery).where(mine).order_by(WebhookDelivery.id))
        )


@dataclass
class Received:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Receiver:
    """Keeps what it is sent; `answer` decides what to say, 204 unless a test says otherwise."""

    requests: list[Received] = field(default_factory=list)
    answer: Callable[[Received], Answer] = lambda _request: (204, {}, b"")
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def answers(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Say the same to everybody from now on."""
        self.answer = lambda _request: (status, headers or {}, body)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on 127.0.0.1."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            receiver.requests.append(received)
            status, headers, content = receiver.answer(received)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield receiver
        server.shutdown()
