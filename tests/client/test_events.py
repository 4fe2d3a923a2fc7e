"""Event streams, as bytes arrive."""

from __future__ import annotations

import json

import pytest

from cstar_client import Client
from cstar_client.events import Message, messages
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import QUICKLY
from tests.support.scripted import Answer, scripted

STREAM = {"Content-Type": "text/event-stream"}


def message(seq: int, kind: str = "phase.started") -> bytes:
    event = {"seq": seq, "type": kind, "attempt": 1, "data": {}, "created_at": "now"}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode()


def test_messages_are_put_together_wherever_the_bytes_are_cut() -> None:
    whole = ': hello\r\ndata: {"a":\r\ndata: "\u2028"}\r\n\r\nid: 3\n\nid:4\ndata:2\n\n'
    text = f"{whole}data: cut".encode()
    found = list(messages(bytes([byte]) for byte in text))

    assert found == [Message("", '{"a":\n"\u2028"}'), Message("4", "2")]


def test_a_stream_that_breaks_is_opened_again_behind_the_last_event() -> None:
    passing = b'event: metric\ndata: {"seq": 17, "name": "loss"}\n\n: still here\n\n'
    first = Answer(body=message(1) + passing + message(2) + b"data: half", headers=STREAM)
    running = Answer(body=b'{"id": "job_1", "status": "running"}')
    second = Answer(body=message(3, "job.succeeded"), headers=STREAM)
    ended = Answer(body=b'{"id": "job_1", "status": "succeeded"}')
    nothing = Answer(body=b'{"data": [], "has_more": false, "last_id": null}')
    with (
        scripted(first, running, second, ended, nothing) as script,
        Client(script.url, "cst_key", retries=QUICKLY) as client,
    ):
        found = [event["seq"] for event in client.jobs.events("job_1")]

    assert found == [1, 2, 3]
    streams = [asked for asked in script.asked if asked.headers["Accept"] == "text/event-stream"]
    assert [asked.headers["Last-Event-ID"] for asked in streams] == ["0", "2"]


@pytest.mark.parametrize("live", [True, False])
def test_the_events_of_a_job_that_has_ended_are_all_there(
    client: Client, world: World, live: bool
) -> None:
    job = client.jobs.create(world.job_body())
    world.bring(job["id"], JobState.SUCCEEDED)

    found = list(client.jobs.events(job, live=live))
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    assert found[-1]["type"] == "job.succeeded"
    assert list(client.jobs.events(job, after=len(found) - 1, live=live)) == found[-1:]
