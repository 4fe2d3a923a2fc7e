"""Events as they happen: server-sent events (WHATWG HTML, 9.2) that survive a lost connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from cstar_client import lists
from cstar_client.documents import FINAL, Event, Job, segment
from cstar_client.errors import ApiError, ConnectionFailed
from cstar_client.retrying import Patience
from cstar_client.transport import Transport

EVENT_STREAM = "text/event-stream"
LIST_POLL_S = 2.0


def follow(transport: Transport, job_id: str, *, after: int = 0) -> Iterator[Event]:
    """Yield the events of a job numbered above `after`, as they happen, until it has ended.

    A lost connection is opened again behind the last event (`Last-Event-ID`); a service or proxy
    that does not stream is asked for the list instead.
    """
    patience = transport.patience()
    while True:
        began = time.monotonic()
        try:
            for event in _connected(transport, job_id, after, patience):
                after = event["seq"]
                yield event
            if _has_ended(transport, job_id, wait_s=LIST_POLL_S):
                yield from _listed(transport, job_id, after)
                return
            time.sleep(max(0.0, LIST_POLL_S - (time.monotonic() - began)))  # if it was not held
        except (ApiError, ConnectionFailed) as failure:
            patience.endure(failure)


def _connected(
    transport: Transport, job_id: str, after: int, patience: Patience
) -> Iterator[Event]:
    """Yield what is told until the connection ends; one that says anything is no failure."""
    headers = {"Accept": EVENT_STREAM, "Last-Event-ID": str(after)}
    with transport.stream(f"/v1/jobs/{segment(job_id)}/events", headers=headers) as answer:
        if answer.headers.get("content-type", "").startswith(EVENT_STREAM):
            for message in messages(_renewing(patience, answer.iter_bytes())):
                if message.id:  # what has none is told in passing: progress, metrics
                    yield cast(Event, json.loads(message.data))
            return
    yield from _listed(transport, job_id, after)


def _renewing(patience: Patience, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        patience.renew()
        yield piece


def _listed(transport: Transport, job_id: str, after: int) -> Iterator[Event]:
    return lists.rows(transport, f"/v1/jobs/{segment(job_id)}/events", after=after)


def _has_ended(transport: Transport, job_id: str, *, wait_s: float) -> bool:
    job: Job = transport.get(f"/v1/jobs/{segment(job_id)}", wait_s=wait_s)
    return job["status"] in FINAL


@dataclass(frozen=True)
class Message:
    """A message of an event stream."""

    id: str
    data: str


def messages(pieces: Iterable[bytes]) -> Iterator[Message]:
    """Yield each message of an event stream; comments and other fields are skipped.

    Here an id is that of its own message alone; browsers keep the last one.
    """
    fields: dict[str, str] = {}
    for line in _lines(pieces):
        name, _, value = line.partition(":")
        text = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            fields["data"] += f"\n{text}"
        elif name:
            fields[name] = text
        elif not line:
            if "data" in fields:
                yield Message(fields.get("id", ""), fields["data"])
            fields.clear()


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Split at LF or CR LF alone: JSON may hold what `str.splitlines` takes for the end of one."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
