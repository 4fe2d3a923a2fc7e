"""The events of a job as a stream: all of them, once, as they happen, and cheap to watch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import delete, event

from api.jobs import event_stream, feeds
from api.jobs.event_stream import EventStream
from api.jobs.feeds import Feeds
from benchmarks.load.streams import Told, told
from stack.children import Child
from store.database import Database
from store.keys import create_key
from store.leases import Lease
from store.records import MetricPoint, finish, record_event, record_metrics, record_progress
from store.tables import Job
from tests.api.test_jobs import create, running
from tests.api.world import World
from tests.support import rows
from tests.support.server import SECRET, serving

STREAM = {"Accept": "text/event-stream"}
STREAMS = 50


def messages(text: str) -> list[Told]:
    return list(told(text.split("\n")))


def events(found: list[Told]) -> list[Told]:
    """Return those that are numbered."""
    return [message for message in found if message.seq is not None]


@pytest.fixture
def job_id(client: Any, world: World) -> str:
    return str(create(client, world)["id"])


@pytest.fixture
def ended(world: World, job_id: str) -> str:
    """A job that succeeded, with five events."""
    lease = running(world, job_id)
    for number in range(2):
        note(world.database, lease, number)
    world.finish(lease)
    return job_id


def note(database: Database, lease: Lease, number: int) -> None:
    with database.writing() as session:
        record_event(session, lease, "note", {"number": number})


def test_the_stream_of_a_job_that_has_ended_tells_its_events_and_closes(
    client: Any, ended: str
) -> None:
    answer = client.get(f"/v1/jobs/{ended}/events", headers=STREAM)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    found = messages(answer.text)
    assert [message.data for message in found] == client.get(f"/v1/jobs/{ended}/events").json()[
        "data"
    ]
    assert [message.seq for message in found] == [1, 2, 3, 4, 5]
    assert [message.type for message in found] == [message.data["type"] for message in found]
    assert found[-1].type == "job.succeeded"


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"Last-Event-ID": "3"}, ""), ({}, "?after=3"), ({"Last-Event-ID": "3"}, "?after=1")],
    ids=["header", "query", "header before query"],
)
def test_a_stream_goes_on_behind_the_last_event_that_was_seen(
    client: Any, ended: str, headers: dict[str, str], query: str
) -> None:
    answer = client.get(f"/v1/jobs/{ended}/events{query}", headers=STREAM | headers)
    assert [message.seq for message in messages(answer.text)] == [4, 5]


def test_behind_the_final_event_there_is_nothing_to_come_back_for(client: Any, ended: str) -> None:
    headers = STREAM | {"Last-Event-ID": "5"}
    answer = client.get(f"/v1/jobs/{ended}/events", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("given", ["x", "-1", "1.5", str(2**31)])
def test_a_last_event_id_that_is_none_is_pointed_at(client: Any, ended: str, given: str) -> None:
    headers = STREAM | {"Last-Event-ID": given}
    problem = client.get(f"/v1/jobs/{ended}/events", headers=headers).json()
    assert problem["code"] == "invalid_request"
    assert problem["errors"][0]["parameter"] == "Last-Event-ID"


@pytest.mark.parametrize(
    ("accept", "stream"),
    [
        ("*/*", False),
        ("application/json", False),
        ("text/event-stream", True),
        ("application/json;q=0.5, Text/Event-Stream;q=0.9", True),
    ],
)
def test_a_list_or_a_stream_as_the_client_accepts(
    client: Any, ended: str, accept: str, stream: bool
) -> None:
    answer = client.get(f"/v1/jobs/{ended}/events", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/event-stream") == stream
    assert answer.headers["vary"] == "Accept"


def test_another_tenants_job_cannot_be_watched(stranger: Any, job_id: str) -> None:
    answer = stranger.get(f"/v1/jobs/{job_id}/events", headers=STREAM)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# What cannot be seen through a test client, which reads an answer to its end: the response itself.


class Watcher:
    """Takes what a response sends; `block()` is a client that reads no further."""

    def __init__(self) -> None:
        self.text = ""
        self.gone = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()

    async def send(self, message: Any) -> None:
        self.text += message.get("body", b"").decode()
        await self._reading.wait()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def block(self) -> None:
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    async def sees(self, text: str) -> None:
        """Return once a text has been sent."""
        async with asyncio.timeout(30):
            while text not in self.text:
                await asyncio.sleep(0.005)

    @property
    def seqs(self) -> list[int | None]:
        return [message.seq for message in events(messages(self.text))]


class Bench:
    """A job that an attempt works on, and streams of it within one event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lease = rows.running_job(database)
        self.feeds = Feeds(database)

    def job(self) -> Job:
        return rows.read_job(self.database, self.lease.job_id)

    def watch(self, *, after: int = 0) -> tuple[Watcher, asyncio.Task[None]]:
        watcher = Watcher()
        stream = EventStream(self.feeds, self.database, self.job(), after=after)
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        return watcher, asyncio.create_task(stream(scope, watcher.receive, watcher.send))

    async def note(self, *numbers: int) -> None:
        for number in numbers:
            await asyncio.to_thread(note, self.database, self.lease, number)

    async def finish(self) -> None:
        def write() -> None:
            with self.database.writing() as session:
                finish(session, self.lease, result={}, files=[])

        await asyncio.to_thread(write)


@pytest.fixture
def bench(database: Database, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(feeds, "LOOK_S", 0.01)
    return Bench(database)


def test_events_metrics_and_progress_are_told_as_they_come(bench: Bench) -> None:
    async def scenario() -> None:
        watcher, stream = bench.watch()
        await watcher.sees("progress")

        def work() -> None:
            with bench.database.writing() as session:
                record_progress(session, bench.lease, phase="admm", progress=0.25, eta_s=9.0)
                record_metrics(session, bench.lease, [MetricPoint("admm", "loss", 1, 0.5)])

        await asyncio.to_thread(work)
        await watcher.sees("0.25")
        await bench.finish()
        await asyncio.wait_for(stream, 30)
        found = messages(watcher.text)
        assert [m.data["value"] for m in found if m.type == "metric"] == [0.5]
        progress = [m.data for m in found if m.type == "progress"]
        assert {"state": "running", "phase": "admm", "progress": 0.25}.items() <= progress[
            1
        ].items()
        kinds = [message.type for message in events(found)]
        assert kinds[-3:] == ["phase.started", "phase.finished", "job.succeeded"]
        assert watcher.seqs == list(range(1, len(kinds) + 1))
        assert watcher.text.startswith("retry: ")

    asyncio.run(scenario())


def test_a_slow_client_holds_nobody_up_and_misses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "KEPT", 3)
    monkeypatch.setattr(event_stream, "PAGE", 4)

    async def scenario() -> None:
        slow, slow_stream = bench.watch()
        fast, fast_stream = bench.watch()
        await slow.sees("progress")
        slow.block()
        for number in range(12):
            await bench.note(number)
            await fast.sees(f'"number":{number}')
        await bench.finish()
        await asyncio.wait_for(fast_stream, 30)
        assert not slow_stream.done()
        slow.read_on()
        await asyncio.wait_for(slow_stream, 30)
        assert slow.seqs == fast.seqs == list(range(1, len(fast.seqs) + 1))

    asyncio.run(scenario())


def test_a_late_stream_of_a_watched_job_gets_its_whole_past(bench: Bench) -> None:
    async def scenario() -> None:
        first, first_stream = bench.watch()
        await bench.note(1, 2)
        await first.sees('"number":2')
        late, late_stream = bench.watch()
        await bench.finish()
        await asyncio.wait_for(asyncio.gather(first_stream, late_stream), 30)
        assert late.seqs == first.seqs == list(range(1, len(first.seqs) + 1))

    asyncio.run(scenario())


def test_a_client_that_goes_is_forgotten_at_once(bench: Bench) -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        watcher, stream = bench.watch()
        tenant_id = bench.job().tenant_id
        await watcher.sees("progress")
        assert bench.feeds.streams_of(tenant_id) == 1
        watcher.gone.set()
        await asyncio.wait_for(stream, 30)
        assert bench.feeds.streams_of(tenant_id) == 0
        while asyncio.all_tasks() != before:  # the task that looks has nobody to look for
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_an_idle_stream_is_kept_alive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.01)

    async def scenario() -> None:
        watcher, stream = bench.watch()
        await watcher.sees(": ping")
        stream.cancel()

    asyncio.run(scenario())


def test_a_stream_that_has_lasted_long_is_ended_for_its_client_to_come_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LONGEST_S", 0.05)
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.01)

    async def scenario() -> None:
        _, stream = bench.watch()
        await asyncio.wait_for(stream, 30)

    asyncio.run(scenario())


def test_streams_of_a_job_that_is_deleted_end(bench: Bench) -> None:
    def forget() -> None:
        with bench.database.writing() as session:
            for table in (rows.JobEvent, rows.JobAttempt):
                session.execute(delete(table))
            session.execute(delete(Job))

    async def scenario() -> None:
        watcher, stream = bench.watch()
        await watcher.sees("progress")
        await asyncio.to_thread(forget)
        await asyncio.wait_for(stream, 30)

    asyncio.run(scenario())


def test_a_look_that_fails_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeds, "RECOVER_S", 0.01)
    real, fails = feeds.look, iter([True, True])

    def shaky(*arguments: Any) -> Any:
        if next(fails, False):
            raise RuntimeError("no database")
        return real(*arguments)

    monkeypatch.setattr(feeds, "look", shaky)

    async def scenario() -> None:
        watcher, stream = bench.watch()
        await watcher.sees("progress")
        await bench.finish()
        await asyncio.wait_for(stream, 30)

    asyncio.run(scenario())
    assert "trying again" in caplog.text


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    found: list[str] = []

    def add(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(database.engine, "before_cursor_execute", add)
    yield found
    event.remove(database.engine, "before_cursor_execute", add)


def test_fifty_streams_cost_one_look_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> list[str]:
        tasks = []
        for _ in range(STREAMS):
            watcher, stream = bench.watch(after=100)
            tasks.append(stream)
        await watcher.sees("progress")
        looks = 0

        def counted(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            return real(*arguments)

        real = feeds.look
        monkeypatch.setattr(feeds, "look", counted)
        with statements(bench.database) as found:
            while looks < 3:
                await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        return [statement for statement in found if "FROM jobs" in statement]

    assert len(asyncio.run(scenario())) <= 4


def test_a_server_that_stops_ends_its_streams(bench: Bench) -> None:
    async def scenario() -> None:
        watcher, stream = bench.watch()
        await watcher.sees("progress")
        bench.feeds.close()
        await asyncio.wait_for(stream, 30)
        _, late = bench.watch()
        await asyncio.wait_for(late, 30)

    asyncio.run(scenario())


# A process, as it is run.


@pytest.fixture
def lease(database: Database) -> Lease:
    return rows.running_job(database)


@pytest.fixture
def server(
    database: Database, lease: Lease, tmp_path: Path
) -> Iterator[tuple[httpx.Client, Child]]:
    """A running API with a client of the tenant whose job it is."""
    tenant_id = rows.read_job(database, lease.job_id).tenant_id
    with database.writing() as session:
        key = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    with serving(database, tmp_path) as (address, child):
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=address, headers=headers, timeout=60, limits=limits) as client:
            yield client, child


def follow(client: httpx.Client, job_id: str, *, after: int = 0) -> Iterator[Told]:
    headers = STREAM | {"Last-Event-ID": str(after)}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        yield from told(answer.iter_lines())


def test_a_cut_stream_is_gone_on_with(
    server: tuple[httpx.Client, Child], database: Database, lease: Lease
) -> None:
    client, _ = server
    stream = follow(client, lease.job_id)
    seen = next(stream)
    stream.close()
    note(database, lease, 1)
    rest = follow(client, lease.job_id, after=seen.seq or 0)
    assert next(rest).data["data"] == {"number": 1}
    with database.writing() as session:
        finish(session, lease, result={}, files=[])
    assert [message.seq for message in events(list(rest))][-1] == 3
    kinds = [message.type for message in follow(client, lease.job_id)]
    assert kinds == ["job.running", "note", "job.succeeded"]


def test_fifty_clients_are_told_the_end_without_a_thread_each(
    server: tuple[httpx.Client, Child], database: Database, lease: Lease
) -> None:
    client, child = server
    assert child.process is not None
    process = psutil.Process(child.process.pid)

    def last(stream: Iterator[Told]) -> Told:
        return list(stream)[-1]

    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [follow(client, lease.job_id) for _ in range(STREAMS)]
        assert {found.type for found in pool.map(next, streams)} == {"job.running"}
        opened = process.num_threads()
        ends = [pool.submit(last, stream) for stream in streams]
        with database.writing() as session:
            finish(session, lease, result={}, files=[])
        assert {end.result().type for end in ends} == {"job.succeeded"}
    assert opened < STREAMS


def test_an_api_with_open_streams_stops_soon(
    server: tuple[httpx.Client, Child], lease: Lease
) -> None:
    client, child = server
    assert child.process is not None
    stream = follow(client, lease.job_id)
    next(stream)
    child.process.terminate()
    assert list(events(list(stream))) == []  # it ends, and without an error
    child.process.wait(timeout=60)
    assert "graceful shutdown exceeded" not in child.log.read_text()
