"""Every database can be brought up, down and up again, and is then what the program expects."""

from __future__ import annotations

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from store import audit, idempotency, migrate, records
from store.database import Database, database_now
from store.identifiers import new_id
from store.keys import issue, rotate
from store.lifecycle import dispatch
from store.records import ArtifactFile, MetricPoint
from store.states import JobKind
from store.tables import Base, Blob, Job, ModelAlias, ModelLineage, Sweep, Worker
from tests.support.databases import contents
from tests.support.rows import (
    add_dataset,
    add_job,
    add_model,
    add_plan,
    add_upload,
    add_validation,
    blob_of,
    claim,
    read_job,
    running_job,
)
from tests.support.webhooks import add_delivery, add_endpoint

REVISIONS = [
    script.revision
    for script in reversed(
        list(ScriptDirectory.from_config(migrate.configuration()).walk_revisions())
    )
]


def fill(database: Database) -> None:
    """Leave at least one row in every table, also rows that refer to rows of their own table."""
    add_validation(database, JobKind.VALIDATE_MODEL)
    add_validation(database, JobKind.VALIDATE_DATASET)
    add_plan(database)
    lease = running_job(database)
    file = ArtifactFile("report", "report.json", "application/json", blob_of(b"report"))
    with database.writing() as session:
        records.record_metrics(session, lease, [MetricPoint("admm", "loss", 1, 0.5)])
        records.finish(session, lease, result={}, files=[file])
        now = database_now(session)
        facts = {"id": "worker-1", "hostname": "host", "pid": 1, "queues": [], "facts": {}}
        session.add(Worker(**facts, started_at=now, last_seen_at=now))
    tenant_id = read_job(database, lease.job_id).tenant_id
    retry = claim(database, add_job(database, tenant_id=tenant_id, retried_from=lease.job_id))
    with database.writing() as session:
        records.record_checkpoint(session, retry, phase="admm", blob=blob_of(b"state"))
    _fill_the_rest(database, tenant_id, retry.job_id)


def _fill_the_rest(database: Database, tenant_id: str, job_id: str) -> None:
    with database.writing() as session:
        key, _ = issue(session, tenant_id=tenant_id, name="ci", secret_key="secret")
        rotate(session, key, secret_key="secret", overlap_s=0, created_by=key.id)
        audit.record(session, tenant_id=tenant_id, action="create_api_key", object_id=key.id)
        dispatch(session, session.get_one(Job, job_id))
        place = {"tenant_id": tenant_id, "key": new_id("try")}
        idempotency.claim(session, **place, fingerprint="ab" * 32)
        idempotency.keep(session, idempotency.Answer(202, "{}", None), **place)
        add_upload(session, tenant_id)
        own = {"tenant_id": tenant_id, "model_id": add_model(session, tenant_id)}
        parent, dataset = add_model(session, tenant_id), add_dataset(session, tenant_id)
        now = database_now(session)
        session.add(ModelLineage(model_id=own["model_id"], parent_model_id=parent, job_id=job_id))
        session.add(ModelAlias(name="resnet20", alias="production", updated_at=now, **own))
        session.add(Sweep(id="swp_1", dataset_id=dataset, request={}, created_at=now, **own))
    add_delivery(database, add_endpoint(database, tenant_id))


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_an_upgrade_makes_every_table_of_the_program(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    assert tables(bare_database) == set(Base.metadata.tables)


def test_after_an_upgrade_the_database_is_what_the_program_expects(
    bare_database: Database,
) -> None:
    migrate.upgrade(bare_database)
    migrate.check(bare_database)


def test_a_database_that_is_not_what_the_program_expects_is_noticed(
    bare_database: Database,
) -> None:
    migrate.upgrade(bare_database)
    with bare_database.writing() as session:
        session.execute(text("ALTER TABLE workers ADD COLUMN surprise INTEGER"))
    with pytest.raises(CommandError):
        migrate.check(bare_database)


def test_a_database_that_was_never_upgraded_is_noticed(bare_database: Database) -> None:
    with pytest.raises(CommandError):
        migrate.check(bare_database)


def test_down_and_up_again_with_rows_in_every_table(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    assert all(contents(bare_database).values()), "fill() misses a table"
    migrate.downgrade(bare_database)
    assert tables(bare_database) == set()
    migrate.upgrade(bare_database)
    migrate.check(bare_database)
    fill(bare_database)


def test_every_migration_can_be_undone_and_done_again(bare_database: Database) -> None:
    for revision in REVISIONS:
        before = tables(bare_database)
        migrate.upgrade(bare_database, revision)
        migrate.downgrade(bare_database, "-1")
        assert tables(bare_database) == before
        migrate.upgrade(bare_database, revision)
    migrate.check(bare_database)


def test_every_migration_can_be_undone_and_done_again_with_rows_in_the_tables(
    bare_database: Database,
) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    before = contents(bare_database)
    for _ in REVISIONS[1:]:
        migrate.downgrade(bare_database, "-1")
    kept = {name: len(before[name]) for name in tables(bare_database) - {"jobs"}}
    for revision in REVISIONS[1:]:
        migrate.upgrade(bare_database, revision)
    migrate.check(bare_database)
    after = contents(bare_database)
    assert {name: len(after[name]) for name in kept} == kept
    assert after["jobs"]


def test_a_downgrade_forgets_the_blobs_that_may_have_lost_their_bytes(
    bare_database: Database,
) -> None:
    migrate.upgrade(bare_database)
    with bare_database.writing() as session:
        now = database_now(session)
        for name, condemned_at in (("ab" * 32, now), ("cd" * 32, None)):
            session.add(Blob(sha256=name, bytes=1, created_at=now, condemned_at=condemned_at))
    migrate.downgrade(bare_database, "0002")
    migrate.upgrade(bare_database)
    assert [row[0] for row in contents(bare_database)["blobs"]] == ["cd" * 32]


def test_a_downgrade_behind_plans_keeps_every_other_row(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    migrate.downgrade(bare_database, "0002")  # what later revisions added does not come back
    migrate.upgrade(bare_database)
    claim(bare_database, add_plan(bare_database))  # leaves an event and an attempt
    before = contents(bare_database)
    planned = [row[0] for row in before["jobs"] if "plan" in row]
    migrate.downgrade(bare_database, "0001")
    first = tables(bare_database)
    migrate.upgrade(bare_database)
    after = contents(bare_database)
    assert before["plans"]
    first |= {"model_names"}  # counted again
    for table, rows in before.items():
        kept = [row for row in rows if not any(job in row for job in planned)]
        assert after[table] == (kept if table in first else []), table
    migrate.check(bare_database)


def test_a_downgrade_behind_evaluations_keeps_every_other_row(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    migrate.downgrade(bare_database, "0003")  # what later revisions added does not come back
    migrate.upgrade(bare_database)
    before = contents(bare_database)
    first = claim(bare_database, add_job(bare_database, kind=JobKind.EVALUATE)).job_id
    tenant_id = read_job(bare_database, first).tenant_id
    again = {"kind": JobKind.EVALUATE, "retried_from": first, "tenant_id": tenant_id}
    claim(bare_database, add_job(bare_database, **again))  # leaves an event and an attempt
    migrate.downgrade(bare_database, "0002")
    with pytest.raises(IntegrityError, match="ck_jobs_kind"), bare_database.writing() as session:
        session.execute(text("UPDATE jobs SET kind = 'evaluate'"))
    migrate.upgrade(bare_database)
    migrate.check(bare_database)
    after = contents(bare_database)
    assert [row for row in after.pop("tenants") if tenant_id not in row] == before.pop("tenants")
    assert after == before


def test_a_job_may_not_be_of_a_kind_that_is_not_known(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    add_job(bare_database)
    with pytest.raises(IntegrityError, match="ck_jobs_kind"), bare_database.writing() as session:
        session.execute(text("UPDATE jobs SET kind = 'dream'"))


def test_references_are_checked_again_after_a_migration(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    with pytest.raises(IntegrityError), bare_database.writing() as session:
        session.execute(
            text(
                "INSERT INTO outbox (id, job_id, queue, priority, created_at)"
                " VALUES (1, 'job_none', 'io', 0, '2026-01-01')"
            )
        )


def test_a_migration_that_leaves_a_reference_to_nothing_is_undone(
    bare_sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(bare_sqlite)
    fill(bare_sqlite)
    before = contents(bare_sqlite)

    def careless(config: Config, _revision: str) -> None:
        config.attributes["connection"].execute(text("DELETE FROM models"))

    monkeypatch.setattr(migrate.command, "downgrade", careless)
    with pytest.raises(migrate.DanglingReference, match="models"):
        migrate.downgrade(bare_sqlite, "0001")
    assert contents(bare_sqlite) == before


def test_an_upgrade_of_an_up_to_date_database_keeps_its_rows(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    before = contents(bare_database)
    migrate.upgrade(bare_database)
    assert contents(bare_database) == before


def test_a_migration_that_breaks_off_leaves_nothing(
    bare_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bare_database.writing() as session:  # the last table to be made is in the way
        session.execute(text("CREATE TABLE outbox (id INTEGER)"))
    with pytest.raises(Exception, match="outbox"):
        migrate.upgrade(bare_database)
    assert tables(bare_database) == {"outbox"}


def test_the_indexes_the_scheduler_needs_are_there(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    columns = [index["column_names"] for index in inspect(bare_database.engine).get_indexes("jobs")]
    assert ["state", "lease_expires_at"] in columns


def test_there_is_one_line_of_migrations() -> None:
    assert len(ScriptDirectory.from_config(migrate.configuration()).get_heads()) == 1


def test_models_and_tables_name_their_constraints_alike(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    inspector = inspect(bare_database.engine)
    for table in Base.metadata.sorted_tables:
        named = {constraint["name"] for constraint in inspector.get_check_constraints(table.name)}
        named |= {constraint["name"] for constraint in inspector.get_foreign_keys(table.name)}
        named |= {constraint["name"] for constraint in inspector.get_unique_constraints(table.name)}
        named.add(inspector.get_pk_constraint(table.name)["name"])
        assert named == {constraint.name for constraint in table.constraints}


def test_a_query_by_the_program_finds_what_a_migrated_table_holds(bare_database: Database) -> None:
    migrate.upgrade(bare_database)
    fill(bare_database)
    with bare_database.reading() as session:
        for mapper in Base.registry.mappers:
            assert session.scalars(select(mapper.class_)).first() is not None
