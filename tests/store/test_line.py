"""The order in which a queue is served: tenants take turns, and every job knows its place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import leases, line
from store.database import Database, database_now
from store.states import JobState
from store.tables import Job
from tests.support.databases import empty
from tests.support.rows import LEASE_S, WORKER, add_job, add_tenant, claim, job_row, move

QUEUE = "gpu.default"


def serve(database: Database, *, queue: str = QUEUE) -> str | None:
    """Claim what a wake-up call of the queue gets."""
    with database.writing() as session:
        first = line.first(session, queue)
        if not first:
            return None
        lease = leases.claim_next(session, first[0], worker_id=WORKER, lease_s=LEASE_S)
    return lease and lease.job_id


def serve_all(database: Database) -> list[str]:
    served = []
    while (job_id := serve(database)) is not None:
        served.append(job_id)
    return served


def add_jobs(database: Database, tenant_id: str, number: int, *, priority: int = 0) -> list[str]:
    columns = {"tenant_id": tenant_id, "priority": priority}
    return sorted(add_job(database, **columns) for _ in range(number))


def positions(database: Database, jobs: Sequence[str]) -> dict[str, int]:
    with database.reading() as session:
        return line.positions(session, jobs)


def test_a_tenant_with_a_thousand_jobs_delays_another_by_one(database: Database) -> None:
    many, few = add_tenant(database), add_tenant(database)
    with database.writing() as session:
        session.add_all(job_row(session, tenant_id=many) for _ in range(1000))
    mine = add_jobs(database, few, 2)

    assert [positions(database, mine)[job] for job in mine] == [1, 3]
    served = [serve(database) for _ in range(4)]
    assert [served[1], served[3]] == mine


def test_tenants_take_turns_each_with_its_oldest_job(database: Database) -> None:
    a, b = add_tenant(database), add_tenant(database)
    first, second, third = add_jobs(database, a, 3)
    (other,) = add_jobs(database, b, 1)

    assert serve_all(database) == [first, other, second, third]


def test_priority_goes_before_turns(database: Database) -> None:
    a, b = add_tenant(database), add_tenant(database)
    urgent = add_jobs(database, a, 2, priority=5)
    (other,) = add_jobs(database, b, 1)

    assert serve_all(database) == [*urgent, other]


def test_whoever_was_served_longest_ago_is_next(database: Database) -> None:
    a, b = add_tenant(database), add_tenant(database)
    claim(database, add_job(database, tenant_id=a))
    claim(database, add_job(database, tenant_id=b))
    of_b, of_a = add_jobs(database, b, 1), add_jobs(database, a, 1)

    assert serve_all(database) == of_a + of_b


def test_turns_of_one_queue_are_not_those_of_another(database: Database) -> None:
    a, b = add_tenant(database), add_tenant(database)
    claim(database, add_job(database, tenant_id=a, queue="io"))
    of_a, of_b = add_jobs(database, a, 1), add_jobs(database, b, 1)

    assert serve_all(database) == of_a + of_b


def test_a_job_that_has_to_wait_is_passed_over_until_it_need_not(database: Database) -> None:
    with database.writing() as session:
        later = database_now(session) + timedelta(seconds=300)
    waiting = add_job(database, available_at=later)
    ready = add_job(database)

    assert serve_all(database) == [ready]
    with database.writing() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.get_one(Job, waiting).available_at = past
    assert serve_all(database) == [waiting]


def test_a_clock_that_was_set_back_keeps_nobody_waiting(database: Database) -> None:
    with database.writing() as session:
        next_year = database_now(session) + timedelta(days=365)
    job_id = add_job(database, available_at=next_year)

    assert serve_all(database) == [job_id]


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLED])
def test_a_job_that_left_the_line_has_no_place_in_it(database: Database, state: JobState) -> None:
    gone, stays = add_job(database), add_job(database)
    move(database, gone, state)

    assert positions(database, [gone, stays]) == {stays: 0}


def test_nobody_asks_for_no_place(database: Database) -> None:
    assert positions(database, []) == {}


LINES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 1), st.booleans()), min_size=1, max_size=12
)


def assert_places_are_true(database: Database, jobs: Sequence[tuple[int, int, bool]]) -> None:
    """`jobs`: tenant, priority, and whether it was served before the places were told."""
    empty(database)
    tenants = [add_tenant(database) for _ in range(3)]
    queued = []
    for tenant, priority, served_before in jobs:
        job_id = add_job(database, tenant_id=tenants[tenant], priority=priority)
        if served_before:
            claim(database, job_id)
        else:
            queued.append(job_id)
    told = positions(database, queued)
    assert sorted(told, key=lambda job: told[job]) == serve_all(database)
    assert sorted(told.values()) == list(range(len(queued)))


@settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(jobs=LINES)
def test_places_are_the_order_in_which_jobs_are_claimed(
    sqlite_database: Database, jobs: list[tuple[int, int, bool]]
) -> None:
    assert_places_are_true(sqlite_database, jobs)


def test_places_are_the_order_in_which_jobs_are_claimed_on_postgresql(
    postgresql_database: Database,
) -> None:
    jobs = [(0, 1, True), (0, 0, False), (1, 1, False), (0, 1, False), (2, 0, False), (1, 0, False)]
    assert_places_are_true(postgresql_database, jobs * 2)
