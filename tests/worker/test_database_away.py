"""A database that is away for a while, and one that stays away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

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


def work_on(shop: Shop, job_id: str, refused: range) -> None:
    shop.make(replace(shop.attempt(job_id), database=Moody(shop.database, refused)))


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
    work_on(shop, job_id, range(1, 4))
    job = shop.job(job_id)

    assert (job.state, job.metric_count) == (JobState.SUCCEEDED, 1)
    told = rows.event_types(shop.database, job_id)
    assert told[:5] == ["job.running", "first", "second", "phase.started", "third"]
    assert told.count("job.succeeded") == 1


def test_nobody_works_on_once_the_lease_has_run_out_without_a_database(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(say(UNDER_WAY), FOREVER)
    job_id = shop.add_job()
    work_on(shop.with_settings(lease_s=0.1), job_id, range(1, 10**9))

    assert runner.status == -9
    assert rows.event_types(shop.database, job_id) == ["job.running"]
