"""Event streams, as bytes arrive."""

from __future__ import annotations

import json

import pytest

from cstar_client import Client, events
from cstar_client.events import Message, messages
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import ATTEMPTS, QUICKLY
from tests.support.scripted import Answer, scripted

STREAM = {"Content-Type": "text/event-stream"}


PAUSED = Answer(body=b'{"id": "job_1", "status": "paused"}')
ENDED = Answer(body=b'{"id": "job_1", "status": "succeeded"}')
NOTHING = Answer(body=b'{"data": [], "has_more": false, "last_id": null}')


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIST_POLL_S", 0.01)


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
    second = Answer(body=message(3, "job.succeeded"), headers=STREAM)
    with (
        scripted(first, PAUSED, second, ENDED, NOTHING) as script,
        Client(script.url, "cst_key", retries=QUICKLY) as client,
    ):
        found = [event["seq"] for event in client.jobs.events("job_1")]

    assert found == [1, 2, 3]
    streams = [asked for asked in script.asked if asked.headers["Accept"] == "text/event-stream"]
    assert [asked.headers["Last-Event-ID"] for asked in streams] == ["0", "2"]


def test_a_quiet_stream_may_break_as_often_as_it_likes() -> None:
    cut = Answer(body=b": still here\n\n", headers={**STREAM, "Content-Length": "1000"})
    cuts = [cut] * (ATTEMPTS + 1)
    with (
        scripted(*cuts, Answer(body=message(1), headers=STREAM), ENDED, NOTHING) as script,
        Client(script.url, "cst_key", retries=QUICKLY) as client,
    ):
        assert [event["seq"] for event in client.jobs.events("job_1")] == [1]


def test_a_job_at_rest_behind_what_does_not_stream_is_not_asked_about_without_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(events.time, "sleep", paused.append)
    monkeypatch.setattr(events, "LIST_POLL_S", 60.0)
    with (
        scripted(NOTHING, NOTHING, PAUSED, NOTHING, NOTHING, ENDED, NOTHING) as script,
        Client(script.url, "cst_key", retries=QUICKLY) as client,
    ):
        assert not list(client.jobs.events("job_1"))

    assert [round(one, -1) for one in paused if one] == [60.0]


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
