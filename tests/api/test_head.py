"""HEAD: there wherever GET is, with its headers and without its body."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from api.main import app as described
from api.methods import HeadLikeGet
from store.database import Database
from tests.api.test_jobs import create, running
from tests.api.world import World
from tests.security.objects import PLAIN, make_things
from tests.support.server import serving

OF_THE_REQUEST = {"x-request-id", "ratelimit", "ratelimit-policy"}
READ = sorted(path for path, there in described.openapi()["paths"].items() if "get" in there)


def lasting(answer: Any) -> Mapping[str, str]:
    return {name: text for name, text in answer.headers.items() if name not in OF_THE_REQUEST}


def filled(path: str, things: Mapping[str, str]) -> str:
    values = {**PLAIN, **things, "code": "not_found"}
    return re.sub(r"{([a-z_]+)}", lambda found: values[found.group(1)], path)


def test_every_path_that_can_be_read_answers_head_as_get(client: Any, world: World) -> None:
    things = make_things(client, world)
    for path in READ:
        url = filled(path, things)
        got, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        if path != "/metrics":  # a request is counted there
            assert lasting(head) == lasting(got), path


def test_head_tells_whether_a_document_is_known(client: Any, world: World) -> None:
    url = f"/v1/models/{world.model()}"
    tag = client.head(url).headers["etag"]
    assert client.head(url, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/nothing", 404), ("/v1/jobs/job_none", 404), ("/v1/jobs?limit=0", 422)],
)
def test_head_is_refused_as_get_is(client: Any, path: str, status: int) -> None:
    assert client.head(path).status_code == status


def test_head_needs_a_key_where_get_does(anonymous: Any) -> None:
    assert anonymous.head("/v1/jobs").status_code == 401


def test_where_nothing_can_be_read_there_is_no_head(client: Any) -> None:
    answer = client.head("/v1/jobs/job_1/cancel")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_head_of_a_stream_that_goes_on_is_over_at_once(
    client: Any, app: FastAPI, world: World
) -> None:
    job_id = create(client, world)["id"]
    running(world, job_id)
    answer = client.head(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert app.state.services.feeds.streams_of(world.tenant_id) == 0


def test_nothing_is_sent_behind_the_head_and_what_would_send_it_is_stopped() -> None:
    sent: list[Message] = []
    ended = []

    async def endless(scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0)
        finally:
            ended.append(scope["method"])

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "HEAD", "path": "/", "app": FastAPI()}
    asyncio.run(HeadLikeGet(endless)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not sent[1].get("body")
    assert not sent[1].get("more_body")
    assert ended == ["GET"]


def test_a_connection_goes_on_after_head(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path) as (url, _), httpx.Client(base_url=url) as client:
        head, got = client.head("/version"), client.get("/version")
        assert head.headers["content-length"] == got.headers["content-length"]
        assert got.json()["api"] == "v1"
