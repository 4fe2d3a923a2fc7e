"""Cancel, pause, drain, and losing the lease: the ways in which a runner is stopped."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from store.database import Database
from store.states import JobState
from store.tables import Job
from tests.support import rows
from tests.support.databases import contents
from tests.worker.fake_runner import DEAF, FOREVER, FakeRunner, say
from tests.worker.shop import UNDER_WAY, Shop
from worker.protocol import Failure, Progress, Result, Stopped

AWAIT_SIGTERM = "signal.sigwait({signal.SIGTERM})"
HEED = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})"
SETTLED = {JobState.CANCELLING: JobState.CANCELLED, JobState.PAUSING: JobState.PAUSED}


def hears_sigterm(runner: FakeRunner, *, then: str) -> None:
    runner.does(HEED, say(UNDER_WAY), AWAIT_SIGTERM, then)


def stopped(shop: Shop, asked: JobState) -> Job:
    """Work on a job of which this is asked as soon as its runner is under way."""
    job_id = shop.add_job()
    return shop.work_on(job_id, draining=shop.once_under_way_move(job_id, asked))


def drained(shop: Shop) -> Job:
    """Work on a job whose worker is shut down as soon as its runner is under way."""
    job_id = shop.add_job()
    return shop.work_on(job_id, draining=shop.once_under_way(job_id, lambda: True))


@pytest.mark.parametrize("asked", SETTLED)
def test_a_runner_that_heeds_sigterm_ends_as_asked(
    shop: Shop, runner: FakeRunner, asked: JobState
) -> None:
    hears_sigterm(runner, then=say(Stopped()))
    job = stopped(shop, asked)

    assert (job.state, job.lease_token) == (SETTLED[asked], None)
    assert rows.read_attempt(shop.database, job.id, 1).outcome == SETTLED[asked]


@pytest.mark.parametrize("asked", SETTLED)
def test_a_runner_that_ignores_sigterm_is_killed_after_its_grace(
    shop: Shop, runner: FakeRunner, asked: JobState
) -> None:
    runner.does(DEAF, say(UNDER_WAY), FOREVER)
    job = stopped(shop.with_settings(cancel_grace_s=0.1), asked)

    assert (job.state, runner.status) == (SETTLED[asked], -9)


@pytest.mark.parametrize("asked", SETTLED)
def test_a_runner_that_dies_of_sigterm_ends_as_asked(
    shop: Shop, runner: FakeRunner, asked: JobState
) -> None:
    runner.does(say(UNDER_WAY), FOREVER)
    job = stopped(shop, asked)

    assert (job.state, runner.status) == (SETTLED[asked], -15)


@pytest.mark.parametrize("asked", SETTLED)
def test_a_runner_that_fails_while_it_is_being_stopped_ends_as_asked(
    shop: Shop, runner: FakeRunner, asked: JobState
) -> None:
    """SIGTERM goes to its whole group: a child of the runner may have died of it."""
    hears_sigterm(runner, then=say(Failure(code="internal", message="my child has died")))
    job = stopped(shop, asked)

    assert (job.state, job.error) == (SETTLED[asked], None)


@pytest.mark.parametrize("asked", SETTLED)
def test_a_runner_that_was_about_to_end_has_succeeded(
    shop: Shop, runner: FakeRunner, asked: JobState
) -> None:
    hears_sigterm(runner, then=say(Result(result={"ratio": 4.0})))
    job = stopped(shop, asked)

    assert (job.state, job.result) == (JobState.SUCCEEDED, {"ratio": 4.0})


DEAF_AT_FIRST = """
def first(*_): signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, first)
"""


def test_a_runner_that_did_not_hear_the_first_sigterm_is_asked_again_when_cancelled(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(DEAF_AT_FIRST, say(UNDER_WAY), FOREVER)
    job = stopped(shop, JobState.CANCELLING)

    assert (job.state, runner.status) == (JobState.CANCELLED, -15)


def test_a_runner_that_did_not_hear_the_first_sigterm_is_asked_again_when_drained(
    shop: Shop, runner: FakeRunner
) -> None:
    runner.does(DEAF_AT_FIRST, say(UNDER_WAY), FOREVER)
    job = drained(shop)

    assert (job.state, runner.status) == (JobState.QUEUED, -15)


def test_a_draining_worker_gives_its_job_back_without_counting_the_attempt(
    shop: Shop, runner: FakeRunner
) -> None:
    hears_sigterm(runner, then=say(Stopped()))
    job = drained(shop)

    assert (job.state, job.lost_attempts, job.lease_token) == (JobState.QUEUED, 0, None)
    assert rows.events(shop.database, job.id)[-1].data == {"reason": "worker_drained"}
    assert rows.read_attempt(shop.database, job.id, 1).outcome == "released"


def take_away(database: Database, job_id: str) -> None:
    """Let another attempt hold the job, as after a reap and a claim."""
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_token="another"))


@pytest.mark.parametrize(
    ("heartbeat_s", "then"),
    [
        (0.01, ""),
        (1e9, say(Progress(phase="admm", progress=0.5))),
        (1e9, say(Result(result={}))),
        (1e9, say(Failure(code="diverged", message="NaN"))),
        (1e9, say(Stopped())),
        (1e9, "os.kill(os.getpid(), 9)"),
    ],
    ids=["at a heartbeat", "progress", "result", "failure", "stopped", "death"],
)
def test_an_attempt_whose_lease_is_taken_away_kills_its_runner_and_writes_nothing(
    shop: Shop, runner: FakeRunner, heartbeat_s: float, then: str
) -> None:
    go_on = "open('go').read()"  # when the lease is gone
    runner.does("os.mkfifo('go')", say(UNDER_WAY), go_on, then, FOREVER)
    job_id = shop.add_job()
    left: list[object] = []

    def act() -> bool:
        take_away(shop.database, job_id)
        left.append(contents(shop.database))
        (folder,) = shop.work.iterdir()
        (folder / "go").open("w").close()
        return False

    hook = shop.once_under_way(job_id, act)
    shop.with_settings(heartbeat_s=heartbeat_s).work_on(job_id, draining=hook)

    assert left == [contents(shop.database)]
    assert runner.status == -9
