"""A runner whose lease is over ends, whatever its supervisor waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy.orm import Session

from store.database import Database
from store.states import JobState
from tests.worker.fake_runner import FOREVER, FakeRunner, say
from tests.worker.shop import PATIENCE_S, UNDER_WAY, Shop
from worker.deadman import Deadman


def test_it_acts_at_its_time_and_once() -> None:
    acted: list[float] = []
    done = threading.Event()
    at = time.monotonic() + 0.05
    deadman = Deadman(lambda: (acted.append(time.monotonic()), done.set())[0], at=at)
    assert done.wait(PATIENCE_S)
    deadman.call_off()

    assert deadman.has_acted
    assert len(acted) == 1
    assert acted[0] >= at


def test_it_waits_as_long_as_it_is_put_off() -> None:
    acted: list[bool] = []
    deadman = Deadman(lambda: acted.append(True), at=time.monotonic() + 3600)
    deadman.put_off(time.monotonic() + 7200)
    deadman.call_off()

    assert (acted, deadman.has_acted) == ([], False)


class Hanging(Database):
    """Hangs with what a runner has said until the runner has ended, one short lease later."""

    def __init__(self, shop: Shop, runner: FakeRunner) -> None:
        self.engine, self._read_engine = shop.database.engine, shop.database._read_engine
        self._settings, self._runner = shop.settings, runner
        self._hangs, self._ended, self._beaten = (threading.Event() for _ in range(3))

    @contextmanager
    def writing(self) -> Iterator[Session]:
        if threading.current_thread() is threading.main_thread():
            self._hang()
        elif self._hangs.is_set():
            if self._beaten.is_set():
                self._ended.wait()
            self._beaten.set()
        with super().writing() as session:
            yield session

    def _hang(self) -> None:
        """Let the beats hang as well, after one that renews the lease for a moment."""
        self._settings.lease_s = 0.2
        self._hangs.set()
        self.status = self._runner.await_end()
        self._ended.set()


def test_a_runner_is_killed_at_the_end_of_its_lease_while_its_supervisor_hangs(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(say(UNDER_WAY), FOREVER)
    job_id = shop.add_job()
    hanging = Hanging(shop, runner)
    shop.make(replace(shop.attempt(job_id), database=hanging))

    assert hanging.status == -9
    assert shop.job(job_id).state == JobState.RUNNING, "it is for the reaper to take it back"
