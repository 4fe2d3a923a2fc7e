"""A database that is away for a while, and one that stays away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.database import Database
from store.states import JobState
from tests.support import rows
from tests.worker.fake_runner import FOREVER, FakeRunner, say
from tests.worker.shop import UNDER_WAY, Shop
from worker.protocol import Event, Metric, Progress, Result


class Moody(Database):
    """Refuses some of its writing transactions, counted from 1; of the beats, those meanwhile."""

    def __init__(self, database: Database, refused: range) -> None:
        self.engine, self._read_engine = database.engine, database._read_engine
        self.asked = 0
        self._refused = refused

    @contextmanager
    def writing(self) -> Iterator[Session]:
        beat = threading.current_thread() is not threading.main_thread()
        if not beat:
            self.asked += 1
        if self.asked + beat in self._refused:
            raise OperationalError("BEGIN", {}, ConnectionRefusedError())
        with super().writing() as session:
            yield session


def test_what_was_said_while_the_database_was_away_is_written_when_it_is_back(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(
        say(
            Event(name="first", data={}),
            Metric(phase="admm", name="gap", step=1, value=0.5),
            Event(name="second", data={}),
            Progress(phase="admm", progress=0.5),
            Event(name="third", data={}),
            Result(result={}),
        )
    )
    job_id = shop.add_job()
    moody = Moody(shop.database, range(1, 4))
    shop.make(replace(shop.attempt(job_id), database=moody))
    job = shop.job(job_id)

    assert (job.state, job.metric_count) == (JobState.SUCCEEDED, 1)
    told = rows.event_types(shop.database, job_id)
    assert told[:5] == ["job.running", "first", "second", "phase.started", "third"]
    assert told.count("job.succeeded") == 1


def test_nobody_works_on_once_the_lease_has_run_out_without_a_database(
    shop: Shop, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.does(say(UNDER_WAY), FOREVER)
    job_id = shop.add_job()
    moody, clock = Moody(shop.database, range(1, 10**9)), time.monotonic

    def past_the_lease_once_refused() -> float:
        return clock() + shop.settings.lease_s * bool(moody.asked)

    monkeypatch.setattr("worker.heart.time.monotonic", past_the_lease_once_refused)
    shop.make(replace(shop.attempt(job_id), database=moody))

    assert runner.status == -9
    assert rows.event_types(shop.database, job_id) == ["job.running"]
