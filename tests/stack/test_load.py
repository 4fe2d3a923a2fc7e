"""A small load on a service of its own: nothing is lost, nothing is locked, no broker is missed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from benchmarks.load.away import without_broker
from benchmarks.load.crowd import serve_crowd
from benchmarks.load.polls import Poller, poll_for, summary
from benchmarks.load.service import Service, service
from store.tables import JobAttempt


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two workers whose runners do little."""
    with service(tmp_path_factory.mktemp("load"), None, workers=2) as found:
        yield found


def attempts(running: Service) -> int:
    with running.database.reading() as session:
        return session.scalars(select(func.count()).select_from(JobAttempt)).one()


def test_every_job_succeeds_once_while_many_look_on(running: Service) -> None:
    crowd = serve_crowd(running, jobs=12, streams=4, pollers=2)

    assert list(crowd.states.values()) == ["succeeded"] * 12
    assert attempts(running) == 12
    assert set(crowd.statuses) == {200, 202}
    assert crowd.events > 0
    assert crowd.gaps == 0
    assert "database is locked" not in running.logs()


def test_without_a_broker_requests_are_taken_and_their_jobs_run_later(running: Service) -> None:
    before = attempts(running)
    away = without_broker(running, jobs=3)

    assert away.all_ran
    assert attempts(running) == before + 6
    assert away.down_ms > 0


def test_the_poller_counts_answers_and_refuses_failures(running: Service) -> None:
    times = poll_for(f"{running.url}/healthz", {}, seconds=0.1, connections=2)
    found = summary([times], seconds=0.1, cpu_s=0.1)
    assert found.per_second == pytest.approx(len(times) / 0.1)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    with pytest.raises(RuntimeError, match="401"):
        Poller(f"{running.url}/v1/jobs/job_1", {}).poll()
