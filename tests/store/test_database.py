"""Transactions, times and constraints, the same on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from store.database import Database, database_now, waiting
from store.tables import Job, Tenant
from tests.support.databases import interrupted
from tests.support.rows import add_job, add_tenant, count, read_job


def add(database: Database, created_at: datetime) -> None:
    with database.writing() as session:
        session.add(Tenant(id="tnt_1", name="a tenant", created_at=created_at))


def created_at(database: Database) -> datetime:
    with database.reading() as session:
        return session.scalars(select(Tenant.created_at)).one()


def test_a_transaction_is_kept_when_its_block_ends(database: Database) -> None:
    add_tenant(database)
    assert count(database, Tenant) == 1


def test_a_transaction_is_undone_when_its_block_raises(database: Database) -> None:
    with interrupted(database) as session:
        session.add(Tenant(id="tnt_1", name="a tenant", created_at=database_now(session)))
    assert count(database, Tenant) == 0


def test_what_was_read_can_be_used_after_the_transaction(database: Database) -> None:
    job_id = add_job(database)
    assert read_job(database, job_id).id == job_id


def test_a_time_comes_back_as_it_was_in_utc(database: Database) -> None:
    noon = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    add(database, noon)
    assert created_at(database) == noon
    assert created_at(database).tzinfo is UTC


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="zone"):
        add(database, datetime(2026, 7, 1, 12))


def test_times_are_compared_as_times(database: Database) -> None:
    second = datetime(2026, 7, 1, 12, 0, 1, tzinfo=UTC)
    add(database, second)
    with database.reading() as session:
        earlier = select(Tenant.id).where(Tenant.created_at > second - timedelta(microseconds=1))
        assert session.scalars(earlier).all() == ["tnt_1"]
        later = select(Tenant.id).where(Tenant.created_at > second)
        assert session.scalars(later).all() == []


def test_the_clock_moves_within_a_transaction(database: Database) -> None:
    with database.writing() as session:
        times = [database_now(session) for _ in range(3)]
    assert times == sorted(times)
    assert all(time.tzinfo is UTC for time in times)


def test_a_row_that_refers_to_nothing_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        add_job(database, tenant_id="tnt_missing")


@pytest.mark.parametrize("column", ["state", "kind"])
def test_a_word_that_is_none_of_the_listed_is_refused(database: Database, column: str) -> None:
    job_id = add_job(database)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values({column: "sleeping"}))


def test_json_without_a_value_is_null(database: Database) -> None:
    job_id = add_job(database, result=None)
    with database.reading() as session:
        assert session.scalars(select(Job.id).where(Job.result.is_(None))).all() == [job_id]


def idle_limit(session: Session) -> str:
    name = "idle_in_transaction_session_timeout"
    return str(session.scalar(select(func.current_setting(name))))


def test_a_transaction_may_wait_for_another_system_for_as_long_as_it_says(
    postgresql_database: Database,
) -> None:
    with postgresql_database.writing() as session:
        with waiting(session, 60.0):
            assert idle_limit(session) == "1min"
        assert idle_limit(session) == "10s"


def test_sqlite_makes_the_folder_of_its_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new folder' / 'cstar.db'}")
    with database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    database.dispose()
    assert (tmp_path / "new folder" / "cstar.db").exists()
