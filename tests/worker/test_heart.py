"""The lease of an attempt is kept whatever is slow, and whatever the database does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from store.blobs import BlobStore, StoredBlob
from store.context import ids, working_for
from store.database import Database
from store.lifecycle import LeaseLost
from store.states import JobState
from store.tables import Job
from tests.support import rows
from tests.support.threads import POLL_S
from tests.worker.fake_runner import FakeRunner, say
from tests.worker.shop import PATIENCE_S, UNDER_WAY, Shop
from worker import heart
from worker.protocol import OutputFile, Result

GO = "go"
REPORT = OutputFile(kind="report", filename="report.json", media_type="application/json")
WAIT_FOR_GO = f"""
import time
while not (folder / {GO!r}).exists(): time.sleep(0.01)
"""


def wait_until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / POLL_S)):
        if true():
            return
        pause.wait(POLL_S)
    raise TimeoutError


def lease_end(database: Database, job_id: str) -> datetime:
    end = rows.read_job(database, job_id).lease_expires_at
    assert end is not None
    return end


def await_a_beat(database: Database, job_id: str) -> None:
    """Return once the lease has been renewed since now."""
    now = lease_end(database, job_id)
    wait_until(lambda: lease_end(database, job_id) > now)


class Slow(BlobStore):
    """A blob store that is so slow that a beat falls into every transfer."""

    def __init__(self, store: BlobStore, beat: Callable[[], None]) -> None:
        self._store, self._disk = store._store, store._disk
        self._beat = beat
        self.transfers = 0

    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.transfers += 1
        self._beat()
        return super().read(sha256, start=start, end=end)

    def put_file(self, path: Path) -> StoredBlob:
        self.transfers += 1
        self._beat()
        return super().put_file(path)


def slow_shop(shop: Shop, job_id: str) -> tuple[Shop, Slow]:
    slow = Slow(shop.blobs, lambda: await_a_beat(shop.database, job_id))
    return replace(shop, blobs=slow), slow


def test_the_lease_is_kept_while_inputs_are_fetched_and_artifacts_stored(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does("(output / 'report.json').write_text('{}')", say(Result(result={}, files=[REPORT])))
    job_id = shop.add_job()
    slowly, slow = slow_shop(shop, job_id)
    job = slowly.work_on(job_id)

    assert (job.state, job.attempt, slow.transfers) == (JobState.SUCCEEDED, 1, 3)


def test_a_worker_that_shuts_down_while_it_fetches_gives_its_job_back_at_once(
    shop: Shop, runner: FakeRunner
) -> None:
    job = shop.work_on(shop.add_job(), draining=lambda: True)

    assert (job.state, job.lost_attempts, runner.started) == (JobState.QUEUED, 0, [])
    assert rows.read_attempt(shop.database, job.id, 1).outcome == "released"
    assert list(shop.work.iterdir()) == []


def test_a_job_cancelled_while_its_inputs_are_fetched_has_no_runner(
    shop: Shop, runner: FakeRunner
) -> None:
    job_id = shop.add_job()

    def cancel_and_await_a_beat() -> None:
        if shop.job(job_id).state == JobState.RUNNING:
            assert rows.move(shop.database, job_id, JobState.CANCELLING)
        for _ in range(2):  # the first may have begun before
            await_a_beat(shop.database, job_id)

    slow = Slow(shop.blobs, cancel_and_await_a_beat)
    job = replace(shop, blobs=slow).work_on(job_id)

    assert (job.state, runner.started) == (JobState.CANCELLED, [])


def test_an_attempt_that_lost_its_lease_while_it_fetched_has_no_runner(
    shop: Shop, runner: FakeRunner
) -> None:
    job_id = shop.add_job()

    def lose() -> None:
        rows.expire(shop.database, job_id)
        rows.reap(shop.database)

    attempt = shop.with_settings(heartbeat_s=PATIENCE_S).attempt(job_id)
    lose()
    shop.make(attempt)

    assert (shop.job(job_id).state, runner.started) == (JobState.QUEUED, [])
    assert rows.event_types(shop.database, job_id) == ["job.running", "job.queued"]


def work_through(shop: Shop, runner: FakeRunner, disturb: Callable[[str], None]) -> Job:
    """Disturb the database while a runner works, see the beats go on, let the runner finish."""
    runner.does(say(UNDER_WAY), WAIT_FOR_GO, say(Result(result={})))
    job_id = shop.add_job()

    def act() -> bool:
        disturb(job_id)
        await_a_beat(shop.database, job_id)
        (folder,) = shop.work.iterdir()
        (folder / GO).touch()
        return False

    return shop.work_on(job_id, draining=shop.once_under_way(job_id, act))


def test_a_heartbeat_whose_connection_is_cut_on_its_way_is_repeated(
    shop: Shop, runner: FakeRunner, postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heart, "RETRY_S", 0.01)
    database = postgresql_database
    in_flight = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE 'UPDATE jobs%'"
    )
    cut: list[int] = []

    def beats_in_flight() -> bool:
        with database.reading() as session:
            cut.extend(session.scalars(in_flight))
        return bool(cut)

    def cut_the_connection(job_id: str) -> None:
        with database.writing() as session:
            session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
            wait_until(beats_in_flight)
            with database.reading() as other:
                killed = text("SELECT pg_terminate_backend(:pid)")
                assert other.scalar(killed, {"pid": cut[0]})

    job = work_through(replace(shop, database=database), runner, cut_the_connection)

    assert cut
    assert (job.state, job.attempt, job.lost_attempts) == (JobState.SUCCEEDED, 1, 0)


def test_a_heartbeat_that_finds_the_file_locked_for_too_long_is_repeated(
    shop: Shop,
    runner: FakeRunner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heart, "RETRY_S", 0.01)
    url = shop.database.engine.url.update_query_dict({"timeout": "0.05"})
    impatient = Database(url.render_as_string(hide_password=False))

    def lock_the_file(_job_id: str) -> None:
        with shop.database.writing() as session:
            session.execute(text("SELECT 1"))  # BEGIN IMMEDIATE
            wait_until(lambda: "heartbeat failed" in caplog.text)

    job = work_through(replace(shop, database=impatient), runner, lock_the_file)
    impatient.dispose()

    assert "database is locked" in caplog.text
    assert (job.state, job.attempt, job.lost_attempts) == (JobState.SUCCEEDED, 1, 0)


def test_beats_carry_the_ids_of_their_attempt(shop: Shop) -> None:
    seen: list[dict[str, str]] = []
    beaten = threading.Event()

    def note(_: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            seen.append(ids())
            beaten.set()

    with working_for(job_id="job_1"), heart.Heart(shop.attempt(shop.add_job())) as beating:
        beating.on_renewal(note)
        assert beaten.wait(PATIENCE_S)

    assert seen[0] == {"job_id": "job_1"}


def test_a_lease_counts_from_its_claim(shop: Shop) -> None:
    attempt = shop.attempt(shop.add_job())
    late = replace(attempt, claimed_at=attempt.claimed_at - shop.settings.lease_s)

    with pytest.raises(LeaseLost):
        heart.Heart(late).check()
