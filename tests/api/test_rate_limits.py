"""A key has so many requests a minute, and an address so many without a good key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from sqlalchemy import select

from api import rate_limits
from api.jobs import event_stream
from api.known_keys import KnownKeys
from api.rate_limits import Counts, RateLimits, _address
from store.settings import Settings
from store.tables import Job
from tests.api.conftest import tenant
from tests.api.test_jobs import create
from tests.api.world import World
from tests.support.brokers import broker


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limit_per_minute": 3, "failures_per_minute": 3})


def statuses(client: Any, path: str, times: int) -> list[int]:
    return [client.get(path).status_code for _ in range(times)]


def test_a_key_that_asks_too_often_is_told_when_to_come_back(client: Any) -> None:
    assert statuses(client, "/v1/jobs", 3) == [200] * 3
    refused = client.get("/v1/jobs")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-request-id"] == refused.json()["request_id"]


def test_every_answer_says_what_is_left(client: Any) -> None:
    for left in (2, 1, 0, 0):
        headers = client.get("/v1/models/mdl_none").headers
        assert headers["ratelimit-policy"] == '"requests";q=3;w=60'
        found = re.fullmatch(r'"requests";r=(\d+);t=(\d+)', headers["ratelimit"])
        assert found is not None
        assert int(found[1]) == left
        assert 1 <= int(found[2]) <= 60


def test_another_key_is_not_in_the_way(client: Any, stranger: Any) -> None:
    statuses(client, "/v1/jobs", 4)
    assert stranger.get("/v1/jobs").status_code == 200


def test_a_refused_request_does_nothing(client: Any, world: World) -> None:
    body = world.job_body()
    answers = [client.post("/v1/jobs", json=body).status_code for _ in range(5)]
    assert answers == [202] * 3 + [429] * 2
    with world.database.reading() as session:
        assert len(session.scalars(select(Job)).all()) == 3


def test_health_is_not_counted(client: Any) -> None:
    for path in ("/healthz", "/readyz", "/version"):
        assert statuses(client, path, 5) == [200] * 5
        assert "ratelimit" not in client.get(path).headers


def test_guessing_keys_is_slow_even_when_the_guess_is_right(app: FastAPI, anonymous: Any) -> None:
    guesses = [{"Authorization": f"Bearer cst_{number}"} for number in range(4)]
    answers = [anonymous.get("/v1/jobs", headers=guess) for guess in guesses]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert answers[0].headers["ratelimit"].startswith('"failures";r=2;')
    _, right = tenant(app, "guessed")
    assert anonymous.get("/v1/jobs", headers=right).status_code == 429


def test_requests_without_a_key_are_counted_too(anonymous: Any) -> None:
    assert statuses(anonymous, "/v1/jobs", 4) == [401, 401, 401, 429]


def test_a_key_that_was_good_is_not_shut_out_by_its_neighbours(
    app: FastAPI, client: Any, anonymous: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/v1/jobs")
    statuses(anonymous, "/v1/jobs", 4)
    monkeypatch.setattr(KnownKeys, "principal_of", lambda *_: None)  # it was good some time ago
    assert client.get("/v1/jobs").status_code == 200


async def _counted(keys: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Counts, dict[str, float]]:
    """Count a request of each of so many addresses, at a time that the test can move."""
    clock, counts = {"now": 1000.0}, Counts()
    for module in ("api.rate_limits", "limits.aio.storage.memory"):
        monkeypatch.setattr(f"{module}.time.time", lambda: clock["now"])
    for number in range(keys):
        await counts.incr(f"address {number}", 60)
    return counts, clock


def test_what_is_counted_in_a_process_lasts_a_window_and_is_then_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        counts, clock = await _counted(100, monkeypatch)
        assert await counts.incr("address 7", 60) == 2
        clock["now"] += 59.0
        assert await counts.incr("address 7", 60) == 3
        assert await counts.get_expiry("address 7") == 1060.0
        clock["now"] += 1.0
        assert await counts.incr("address 7", 60) == 1
        assert set(counts.storage) == set(counts.expirations) == {"address 7"}

    asyncio.run(run())


def test_a_request_looks_at_its_own_count_and_at_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        counts, _ = await _counted(100, monkeypatch)
        counts.expirations = watched = Watched(counts.expirations)
        for _ in range(3):
            await counts.incr("mine", 60)
            await asyncio.sleep(0)  # for what the library does beside it
        assert not watched.gone_through

    asyncio.run(run())


class Watched(dict[str, float]):
    """Remembers whether somebody has gone through all of it."""

    gone_through = False

    def keys(self) -> Any:
        self.gone_through = True
        return super().keys()

    def items(self) -> Any:
        self.gone_through = True
        return super().items()


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("testclient", "testclient"),
    ],
)
def test_what_counts_as_an_address(host: str, counted: str) -> None:
    assert _address(Request({"type": "http", "client": (host, 1)})) == counted


def test_a_tenant_holds_so_many_streams(
    app: FastAPI, client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(client, world)
    monkeypatch.setattr(event_stream, "MOST_STREAMS", 0)
    answer = client.get(job["urls"]["events"], headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")


class TestNoLimit:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        none = {"rate_limit_per_minute": 0, "failures_per_minute": 0}
        return settings.model_copy(update=none)

    def test_zero_is_no_limit(self, client: Any, anonymous: Any) -> None:
        assert statuses(client, "/v1/jobs", 5) == [200] * 5
        assert statuses(anonymous, "/v1/jobs", 5) == [401] * 5
        assert "ratelimit" not in client.get("/v1/jobs").headers


class TestRedis:
    @pytest.fixture
    def settings(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Settings]:
        monkeypatch.setattr(rate_limits, "PATIENCE_S", 60.0)
        with broker("redis", tmp_path) as server:
            server.start()
            yield settings.model_copy(update={"rate_limit_url": server.url})

    def test_processes_count_together(self, app: FastAPI, client: Any, settings: Settings) -> None:
        assert statuses(client, "/v1/jobs", 2) == [200] * 2
        services = app.state.services
        object.__setattr__(services, "rate_limits", RateLimits(settings))
        assert statuses(client, "/v1/jobs", 2) == [200, 429]


class TestRedisThatIsAway:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"rate_limit_url": "redis://127.0.0.1:9/0"})

    def test_requests_go_on(
        self, client: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rate_limits, "RECOVER_S", 3600.0)
        assert statuses(client, "/v1/jobs", 5) == [200] * 5
        assert caplog.text.count("requests are not counted") == 1
