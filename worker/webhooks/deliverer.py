"""Claims what is due and sends each in a thread of its own: nobody waits for a slow endpoint.

An endpoint is sent one message at a time, and a tenant has at most a quarter of the threads: a
peer that answers nothing delays its own messages first, then those of its tenant, and no others.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Collection
from typing import Protocol

from store.context import working_for
from store.database import Database
from store.settings import Settings
from store.webhooks import deliveries, signing
from store.webhooks.deliveries import Claim, Outcome, Waiting
from worker.webhooks import sending

logger = logging.getLogger(__name__)

THREADS = 16
THREADS_OF_A_TENANT = 4
POLL_S = 1.0  # between two looks at whether something is due
FINISH_S = 10.0  # for what is under way when the process is told to stop


class Send(Protocol):
    """What puts a message on the wire: `worker.webhooks.sending.post`."""

    def __call__(
        self, url: str, headers: dict[str, str], body: bytes, *, allow_private: bool
    ) -> Outcome:
        """Return what came of it."""


class Deliverer:
    """`run()` goes on until `stop` is set; any number may run."""

    def __init__(
        self, database: Database, configuration: Settings, *, send: Send = sending.post
    ) -> None:
        self._database = database
        self._allow_private = configuration.webhook_allow_private
        self._send = send
        self._lock = threading.Lock()
        self._at_work: dict[str, tuple[str, threading.Thread]] = {}  # by endpoint: tenant, thread
        self._ended = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Deliver what is due; a database that is away is tried again."""
        while not stop.is_set():
            self._ended.clear()
            try:
                self.start_due()
            except Exception:
                logger.exception("looking for webhooks failed; trying again")
            self._ended.wait(POLL_S)
        self.join(FINISH_S)

    def start_due(self) -> int:
        """Start an attempt for each endpoint that has something due and is not at work."""
        with self._lock:
            tenants = Counter(tenant_id for tenant_id, _ in self._at_work.values())
            endpoints = set(self._at_work)
        started = 0
        while room := THREADS - len(endpoints):  # a tenant that is full hides no other behind it
            claims = self._claims(self._waiting(endpoints, tenants), tenants, room)
            if not claims:
                break
            endpoints |= {claim.endpoint_id for claim in claims}
            started += sum(map(self._start, claims))
        return started

    def _waiting(self, endpoints: Collection[str], tenants: Counter[str]) -> list[Waiting]:
        full = {tenant_id for tenant_id, busy in tenants.items() if busy >= THREADS_OF_A_TENANT}
        with self._database.reading() as session:
            return deliveries.waiting(
                session, limit=THREADS, busy_endpoints=endpoints, busy_tenants=full
            )

    def join(self, timeout_s: float) -> None:
        """Wait for the attempts that are under way."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            threads = [thread for _, thread in self._at_work.values()]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _claims(self, found: list[Waiting], busy: Counter[str], room: int) -> list[Claim]:
        claims: list[Claim] = []
        for waiting in found:
            if len(claims) < room and busy[waiting.tenant_id] < THREADS_OF_A_TENANT:
                with self._database.writing() as session:
                    claim = deliveries.claim(session, waiting.endpoint_id)
                if claim is not None:
                    claims.append(claim)
                    busy[waiting.tenant_id] += 1
        return claims

    def _start(self, claim: Claim) -> bool:
        thread = threading.Thread(target=self._work, args=[claim], daemon=True)
        with self._lock:  # its end waits for this
            thread.start()
            self._at_work[claim.endpoint_id] = (claim.tenant_id, thread)
        return True

    def _work(self, claim: Claim) -> None:
        try:
            with working_for(delivery_id=claim.id):
                self._deliver(claim)
        except Exception:
            logger.exception("a webhook's outcome was not written; its lease will run out")
        finally:
            with self._lock:
                del self._at_work[claim.endpoint_id]
            self._ended.set()

    def _deliver(self, claim: Claim) -> None:
        headers = signing.headers(
            claim.secrets,
            message_id=claim.message_id,
            timestamp=claim.timestamp,
            body=claim.body,
        )
        try:
            outcome = self._send(claim.url, headers, claim.body, allow_private=self._allow_private)
        except Exception:  # a defect of ours must not be repeated at the end of every lease
            logger.exception("a webhook could not be sent")
            outcome = Outcome(error="internal")
        if not outcome.delivered:
            why = outcome.error or outcome.response_status
            logger.warning("webhook endpoint %s did not take it: %s", claim.endpoint_id, why)
        with self._database.writing() as session:
            deliveries.record(session, claim, outcome, jitter=random.random())
