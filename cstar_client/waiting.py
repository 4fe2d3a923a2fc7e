"""Waiting for what the service does, by long polls (`Prefer: wait`, RFC 7240)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from cstar_client.errors import Timeout
from cstar_client.transport import Transport

LONG_POLL_S = 20.0
WATCHED_POLL_S = 1.0  # a long poll is silent until the end: whoever wants news asks more often
AT_REST_POLL_S = 2.0


def until(
    transport: Transport,
    path: str,
    settled: Collection[str],
    *,
    timeout_s: float | None = None,
    on_update: Callable[[Any], None] | None = None,
) -> Any:
    """Return the document at `path` once its status is among `settled`; raises Timeout.

    `on_update` is called with every version of the document that was seen.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    longest_s = WATCHED_POLL_S if on_update else LONG_POLL_S
    seen = None
    while True:
        asked_at = time.monotonic()
        held_s = longest_s if deadline is None else min(longest_s, deadline - asked_at)
        document = transport.get(path, wait_s=held_s, deadline=deadline)
        if on_update is not None and document != seen:
            on_update(document)
        seen = document
        if document["status"] in settled:
            return document
        if deadline is not None and time.monotonic() >= deadline:
            raise Timeout(f"{document['id']} was still {document['status']} after {timeout_s:g} s")
        unheld_s = held_s - (time.monotonic() - asked_at)
        if unheld_s > held_s / 2:  # a paused job is answered at once
            time.sleep(min(unheld_s, AT_REST_POLL_S))
