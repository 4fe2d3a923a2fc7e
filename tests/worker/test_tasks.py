"""The one Celery task: whom a wake-up call makes work, and on what."""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from store.database import database_now
from store.states import JobState
from store.tables import Worker
from tests.support import rows
from tests.worker.shop import Shop
from worker.attempt import Attempt
from worker.identity import WORKER_ID, keep_present, register


@pytest.fixture
def app_module(broker_is_set: None) -> Iterator[Any]:
    module = importlib.import_module("worker.app")
    yield module
    module._drain[0] = 0


@pytest.fixture
def attempts(shop: Shop, app_module: Any, monkeypatch: pytest.MonkeyPatch) -> list[Attempt]:
    """The attempts that the task hands to a supervisor, of which there is none here."""
    tasks = importlib.import_module("worker.tasks")
    made: list[Attempt] = []

    def take(attempt: Attempt, *, draining: Callable[[], bool]) -> None:
        assert draining is app_module.draining
        made.append(attempt)

    monkeypatch.setattr(tasks, "run_attempt", take)
    monkeypatch.setattr(tasks, "_database", lambda: shop.database)
    monkeypatch.setattr(tasks, "_blobs", lambda: shop.blobs)
    monkeypatch.setattr(tasks, "settings", lambda: shop.settings)
    return made


def call(job_id: str) -> None:
    """Run the task as a worker does that got this message."""
    importlib.import_module("worker.tasks").run_job(job_id)


def test_a_call_claims_a_job_in_the_name_of_its_worker(shop: Shop, attempts: list[Attempt]) -> None:
    job_id = rows.add_job(shop.database)
    call(job_id)
    job = shop.job(job_id)

    assert [attempt.lease.job_id for attempt in attempts] == [job_id]
    assert (job.state, job.worker_id) == (JobState.RUNNING, WORKER_ID)
    assert job.lease_token == attempts[0].lease.token


def test_a_second_call_for_the_same_job_does_nothing(shop: Shop, attempts: list[Attempt]) -> None:
    job_id = rows.add_job(shop.database)
    call(job_id)
    call(job_id)

    assert len(attempts) == 1
    assert shop.job(job_id).attempt == 1


def test_a_claim_whose_job_cannot_be_traced_is_none(
    shop: Shop, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr("worker.tasks.origins", away)
    job_id = rows.add_job(shop.database)
    with pytest.raises(OperationalError):
        call(job_id)

    assert (attempts, shop.job(job_id).state) == ([], JobState.QUEUED)


def test_a_call_serves_the_line_of_its_queue(shop: Shop, attempts: list[Attempt]) -> None:
    called = rows.add_job(shop.database, queue="io")
    urgent = rows.add_job(shop.database, queue="io", priority=5)
    rows.add_job(shop.database, queue="gpu.default", priority=9)
    call(called)

    assert [attempt.lease.job_id for attempt in attempts] == [urgent]


def test_a_call_for_a_job_that_is_not_there_does_nothing(attempts: list[Attempt]) -> None:
    call("job_00000000000000000000000000")

    assert attempts == []


def test_a_worker_that_is_shutting_down_claims_nothing(
    shop: Shop, attempts: list[Attempt], app_module: Any
) -> None:
    job_id = rows.add_job(shop.database)
    app_module._start_draining()
    call(job_id)

    assert attempts == []
    assert shop.job(job_id).state == JobState.QUEUED


def test_pool_processes_see_that_their_worker_is_shutting_down(app_module: Any) -> None:
    """The pool process was forked before; what it shares with its worker is a page of memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(7 if app_module.draining() else 0)
    assert not app_module.draining()
    app_module._start_draining()
    os.close(writing)
    os.close(reading)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_worker_hides_its_environment_from_other_processes_of_its_user(app_module: Any) -> None:
    """The kernel then gives /proc/PID/environ to root alone."""
    get_dumpable = 3
    child = os.fork()
    if child == 0:
        app_module._hide_credentials()
        os._exit(ctypes.CDLL(None).prctl(get_dumpable))

    assert ctypes.CDLL(None).prctl(get_dumpable) == 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_worker_that_is_ready_has_its_row(shop: Shop) -> None:
    register(shop.database, queues=["cpu.default"])
    with shop.database.reading() as session:
        worker = session.scalars(select(Worker)).one()

    assert (worker.id, worker.pid, worker.queues) == (WORKER_ID, os.getpid(), ["cpu.default"])
    assert worker.facts["sandbox"] in ("bubblewrap", "rlimits")


def test_a_worker_that_found_its_broker_again_is_still_one(shop: Shop) -> None:
    register(shop.database, queues=["cpu.default"])
    register(shop.database, queues=["cpu.default"])

    assert rows.count(shop.database, Worker) == 1


def test_a_worker_that_could_not_write_its_row_at_its_start_does_so_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.identity.PRESENCE_S", 0.001)
    stop = threading.Event()
    beating = threading.Thread(target=keep_present, args=(shop.database, ["io"], stop))
    beating.start()
    while rows.count(shop.database, Worker) == 0:  # the test's own time limit ends this
        pass
    stop.set()
    beating.join()

    with shop.database.reading() as session:
        assert session.get_one(Worker, WORKER_ID).queues == ["io"]


def test_a_worker_without_a_job_shows_that_it_lives(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(shop.database, queues=["io"])
    with shop.database.writing() as session:
        worker = session.get_one(Worker, WORKER_ID)
        worker.last_seen_at = long_ago = database_now(session) - timedelta(days=1)
    monkeypatch.setattr("worker.identity.PRESENCE_S", 0.001)
    stop = threading.Event()
    beating = threading.Thread(target=keep_present, args=(shop.database, ["io"], stop))
    beating.start()
    seen_at = long_ago
    while seen_at == long_ago:  # the test's own time limit ends this
        with shop.database.reading() as session:
            seen_at = session.get_one(Worker, WORKER_ID).last_seen_at
    stop.set()
    beating.join()

    assert seen_at > long_ago
