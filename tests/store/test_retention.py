"""What goes because it is old, and what protects it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from store.database import Database, database_now
from store.removal import remove_job
from store.retention import Retention, remove_expired
from store.states import JobKind, JobState
from store.tables import Dataset, File, Job, JobEvent, Model, ModelLineage, Plan, Sweep
from tests.support.rows import (
    add_dataset,
    add_file,
    add_job,
    add_model,
    add_plan,
    add_tenant,
    count,
    events,
    job_in,
    move,
    read_job,
)
from tests.support.threads import in_background

KEEP_30 = Retention(jobs_days=30, plans_days=30, files_days=30)


def age(database: Database, *, days: float = 31) -> None:
    """Let everything have been made, and have ended if it did, days ago."""
    with database.writing() as session:
        then = database_now(session) - timedelta(days=days)
        for table in (Job, Plan, File):
            session.execute(update(table).values(created_at=then))
        session.execute(update(Job).where(Job.finished_at.is_not(None)).values(finished_at=then))


def label(database: Database, job_id: str, **labels: str) -> None:
    with database.writing() as session:
        session.get_one(Job, job_id).labels = labels


def registered(database: Database, job_id: str) -> None:
    """Let a model have been registered from a job."""
    with database.writing() as session:
        tenant_id = session.get_one(Job, job_id).tenant_id
        made = {"model_id": add_model(session, tenant_id), "job_id": job_id}
        session.add(ModelLineage(parent_model_id=add_model(session, tenant_id), **made))


def test_an_old_job_that_has_ended_goes_with_what_it_left(database: Database) -> None:
    job_in(database, JobState.SUCCEEDED)
    age(database)
    assert remove_expired(database, KEEP_30) == {"jobs": 1}
    assert (count(database, Job), count(database, JobEvent)) == (0, 0)


def test_everything_is_kept_unless_the_operator_says_otherwise(database: Database) -> None:
    job_in(database, JobState.SUCCEEDED)
    age(database, days=10_000)
    assert remove_expired(database, Retention()) == {}
    assert count(database, Job) == 1


@pytest.mark.parametrize("state", sorted(set(JobState) - {"succeeded", "failed", "cancelled"}))
def test_a_job_that_has_not_ended_is_kept_however_old(database: Database, state: JobState) -> None:
    job_in(database, state)
    age(database)
    assert remove_expired(database, KEEP_30) == {}


def test_the_age_of_a_job_counts_from_its_end(database: Database) -> None:
    job_id = job_in(database, JobState.SUCCEEDED).job_id
    age(database)
    with database.writing() as session:
        session.get_one(Job, job_id).finished_at = database_now(session)
    assert remove_expired(database, KEEP_30) == {}


@pytest.mark.parametrize(
    "protect",
    [
        lambda database, job_id: label(database, job_id, keep=""),
        lambda database, job_id: label(database, job_id, team="vision", keep="yes"),
        registered,
    ],
)
def test_what_is_protected_is_kept(
    database: Database, protect: Callable[[Database, str], None]
) -> None:
    protected = job_in(database, JobState.SUCCEEDED).job_id
    other = job_in(database, JobState.SUCCEEDED).job_id
    label(database, other, team="keep")
    protect(database, protected)
    age(database)
    assert remove_expired(database, Retention(jobs_days=30)) == {"jobs": 1}
    assert read_job(database, protected).id == protected


def test_a_job_that_somebody_works_with_is_left_for_the_next_pass(
    postgresql_database: Database,
) -> None:
    job_id = job_in(postgresql_database, JobState.SUCCEEDED).job_id
    age(postgresql_database)
    with postgresql_database.writing() as session:
        session.get_one(Job, job_id, with_for_update={"read": True})
        with in_background(lambda: remove_expired(postgresql_database, KEEP_30)) as future:
            assert future.result(30) == {}
    assert remove_expired(postgresql_database, KEEP_30) == {"jobs": 1}


def test_an_old_plan_goes_with_its_job(database: Database) -> None:
    job_id = add_plan(database)
    age(database)
    assert remove_expired(database, Retention(plans_days=30)) == {}
    move(database, job_id, JobState.CANCELLED)
    age(database)
    assert remove_expired(database, Retention(plans_days=30)) == {"plans": 1}
    assert (count(database, Plan), count(database, Job)) == (0, 0)


def test_an_old_file_goes_when_nothing_is_made_of_it(database: Database) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        add_model(session, tenant_id)
        add_dataset(session, tenant_id)
        add_file(session, tenant_id, b"nothing")
    assert remove_expired(database, Retention(files_days=30)) == {}
    age(database)
    assert remove_expired(database, Retention(files_days=30)) == {"files": 1}
    assert count(database, File) == 2


def test_validations_stay_with_what_they_validated(database: Database) -> None:
    job_id = add_job(database, kind=JobKind.VALIDATE_MODEL)
    move(database, job_id, JobState.CANCELLED)
    age(database)
    assert remove_expired(database, KEEP_30) == {}


@pytest.mark.parametrize(("table", "column"), [(Model, "model_id"), (Dataset, "dataset_id")])
def test_the_row_of_a_deleted_subject_goes_when_no_job_names_it(
    database: Database, table: Any, column: str
) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        add = add_model if table is Model else add_dataset
        deleted, named, _alive = (add(session, tenant_id) for _ in range(3))
        session.execute(
            update(table)
            .where(table.id.in_([deleted, named]))
            .values(deleted_at=database_now(session))
        )
    job_id = add_job(database, tenant_id=tenant_id, **{column: named})
    assert remove_expired(database, Retention()) == {f"{table.__tablename__}": 1}
    with database.writing() as session:
        session.delete(session.get_one(Job, job_id))
    assert remove_expired(database, Retention()) == {f"{table.__tablename__}": 1}
    assert count(database, table) == 1


def test_a_sweep_goes_with_the_last_of_its_jobs(database: Database) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        subject = {"model_id": add_model(session, tenant_id)}
        subject["dataset_id"] = add_dataset(session, tenant_id)
        values = {"id": "swp_1", "tenant_id": tenant_id, "request": {}, **subject}
        session.add(Sweep(created_at=database_now(session), **values))
    jobs = [add_job(database, tenant_id=tenant_id, sweep_id="swp_1") for _ in range(2)]
    for job_id, left in zip(jobs, (1, 0), strict=True):
        assert count(database, Sweep) == 1
        move(database, job_id, JobState.CANCELLED)
        age(database)
        assert remove_expired(database, KEEP_30) == {"jobs": 1}
        assert count(database, Job) == left
    assert count(database, Sweep) == 0


def test_a_pass_that_breaks_off_has_removed_whole_jobs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job_in(database, JobState.SUCCEEDED).job_id for _ in range(2)]
    age(database)

    def remove(session: Session, job: Job) -> None:
        remove_job(session, job)
        if job.id == jobs[1]:
            raise RuntimeError("the power is cut")

    monkeypatch.setattr("store.retention.remove_job", remove)
    with pytest.raises(RuntimeError):
        remove_expired(database, KEEP_30)
    assert [event.job_id for event in events(database, jobs[1])] != []
    assert events(database, jobs[0]) == []
    monkeypatch.undo()
    assert remove_expired(database, KEEP_30) == {"jobs": 1}
