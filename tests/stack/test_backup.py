"""A backup taken while jobs run is one moment of the service, with every byte of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from store import backup, leases, records
from store.backup import BackupFailed, restore, save
from store.blobs import BlobStore, DigestMismatch, remember
from store.database import Database
from store.migrate import check, downgrade
from store.records import ArtifactFile
from store.scrub import Scrubber
from store.settings import Settings
from store.states import Damage, JobState
from store.tables import Artifact, Blob, Checkpoint, Job
from tests.support import databases, postgres, rows
from tests.support.requirements import require
from tests.support.threads import PATIENCE_S


@dataclass(frozen=True)
class Place:
    """A database and a blob store, and the settings that lead there."""

    settings: Settings
    database: Database
    blobs: BlobStore


def place(database: Database, folder: Path) -> Place:
    settings = Settings(
        data_dir=folder, database_url=database.engine.url.render_as_string(hide_password=False)
    )
    return Place(settings, database, BlobStore(settings.resolved_blob_url))


@pytest.fixture
def here(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where the service runs."""
    if database.engine.dialect.name == "postgresql":
        url = database.engine.url.render_as_string(hide_password=False)
        tools = postgres.client_tools(url)
        require("pg_dump", tools is not None, "none of the server's version on PATH")
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return place(database, tmp_path / "here")


@pytest.fixture
def there(here: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty place of the same kind, elsewhere."""
    if here.database.engine.dialect.name == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'there' / 'cstar.db'}")
        yield place(database, tmp_path / "there")
        database.dispose()
        return
    server = request.getfixturevalue("postgres_server")
    with postgres.scratch_database(server.required_url()) as url:
        database = Database(url)
        yield place(database, tmp_path / "there")
        database.dispose()


def put(here: Place, content: bytes) -> Any:
    with here.blobs.stage() as staging:
        staging.write(content)
        return staging.commit()


def finish_one(here: Place, tenant_id: str, number: int) -> str:
    """Run a job to its end, as a worker leaves it: bytes first, then the rows."""
    job_id = rows.add_job(here.database, tenant_id=tenant_id)
    lease = rows.claim(here.database, job_id)
    content = f"artifact {number}".encode() * 50
    file = ArtifactFile("checkpoint", "model.safetensors", "x/y", put(here, content))
    with here.database.writing() as session:
        records.finish(session, lease, result={"number": number}, files=[file])
    return job_id


def running_with_checkpoint(here: Place, content: bytes = b"state") -> str:
    lease = rows.running_job(here.database)
    blob = put(here, content)
    with here.database.writing() as session:
        records.record_checkpoint(session, lease, phase="admm", blob=blob)
    return lease.job_id


@pytest.fixture
def busy(here: Place) -> Iterator[threading.Event]:
    """Jobs keep ending until the test is over; the event says that the first has."""
    tenant_id = rows.add_tenant(here.database)
    begun, stop = threading.Event(), threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            finish_one(here, tenant_id, number)
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    yield begun
    stop.set()
    worker.join()


def test_every_artifact_of_a_backup_taken_while_jobs_run_verifies(
    here: Place, there: Place, busy: threading.Event, tmp_path: Path
) -> None:
    running = running_with_checkpoint(here)
    assert busy.wait(PATIENCE_S)
    save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")

    with there.database.reading() as session:
        artifacts = session.scalars(select(Artifact)).all()
        succeeded = session.scalars(select(Job.id).where(Job.state == JobState.SUCCEEDED)).all()
        checkpoint = session.get_one(Checkpoint, running)
    assert {artifact.job_id for artifact in artifacts} == set(succeeded) != set()
    for sha256 in [*(artifact.sha256 for artifact in artifacts), checkpoint.sha256]:
        there.blobs.fetch(sha256, tmp_path / "fetched")  # raises if the bytes are others


def test_a_job_that_was_running_goes_on_as_a_lost_attempt(
    here: Place, there: Place, tmp_path: Path
) -> None:
    job_id = running_with_checkpoint(here)
    save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")
    rows.expire(there.database, job_id)  # as time does

    assert rows.reap(there.database) == [job_id]
    job = rows.read_job(there.database, job_id)
    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 1)
    assert rows.read_checkpoint(there.database, job_id) is not None
    with there.database.writing() as session:
        assert leases.claim(session, job_id, worker_id="another", lease_s=60.0) is not None


def test_what_is_restored_is_what_was_saved(here: Place, there: Place, tmp_path: Path) -> None:
    finish_one(here, rows.add_tenant(here.database), 1)
    running_with_checkpoint(here)
    save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")

    check(there.database)
    assert databases.contents(there.database) == databases.contents(here.database)


def test_a_second_backup_into_the_folder_copies_only_what_is_new(
    here: Place, there: Place, tmp_path: Path
) -> None:
    tenant_id = rows.add_tenant(here.database)
    finish_one(here, tenant_id, 1)
    first = save(here.settings, tmp_path / "backup")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup/blobs").rglob("*/*/*")}
    finish_one(here, tenant_id, 2)
    second = save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")

    assert (first.blobs, second.blobs) == (1, 2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert rows.count(there.database, Artifact) == 2


def test_a_checkpoint_that_was_deleted_meanwhile_costs_its_job_a_fresh_start_only(
    here: Place, there: Place, tmp_path: Path
) -> None:
    job_id = running_with_checkpoint(here)
    checkpoint = rows.read_checkpoint(here.database, job_id)
    assert checkpoint is not None
    here.blobs.delete(checkpoint.sha256)
    assert save(here.settings, tmp_path / "backup").missing == [checkpoint.sha256]
    restore(there.settings, tmp_path / "backup")

    assert rows.read_checkpoint(there.database, job_id) is None
    assert rows.count(there.database, Blob) == 0


def test_a_needed_blob_that_is_gone_fails_the_backup(here: Place, tmp_path: Path) -> None:
    finish_one(here, rows.add_tenant(here.database), 1)
    with here.database.reading() as session:
        here.blobs.delete(session.scalars(select(Artifact.sha256)).one())
    with pytest.raises(BackupFailed, match="lacks 1 needed blobs"):
        save(here.settings, tmp_path / "backup")
    assert not (tmp_path / "backup" / backup.MANIFEST).exists()


def finished_and_rotten(here: Place) -> str:
    """Have a finished job's artifact rot, and a scrub find it; returns its name."""
    finish_one(here, rows.add_tenant(here.database), 1)
    with here.database.reading() as session:
        sha256 = session.scalars(select(Artifact.sha256)).one()
    (here.settings.data_dir / "blobs/sha256" / sha256[:2] / sha256).write_bytes(b"rotten")
    assert Scrubber(here.database, here.blobs, bytes_per_s=1e9).check(sha256) is Damage.DAMAGED
    return sha256


def test_a_blob_known_to_be_damaged_costs_a_backup_nothing_else(
    here: Place, there: Place, tmp_path: Path
) -> None:
    rotten = finished_and_rotten(here)
    finish_one(here, rows.add_tenant(here.database), 2)
    manifest = save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")

    assert (manifest.damaged, manifest.blobs) == ([rotten], 1)
    assert databases.contents(there.database) == databases.contents(here.database)


def test_a_damaged_blob_is_whole_again_from_an_earlier_backup(
    here: Place, there: Place, tmp_path: Path
) -> None:
    finish_one(here, rows.add_tenant(here.database), 2)
    save(here.settings, tmp_path / "backup")
    with here.database.writing() as session:
        session.scalars(select(Blob)).one().damage = Damage.DAMAGED
    save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")

    with there.database.reading() as session:
        assert session.scalars(select(Blob)).one().damage is None


def test_a_dump_may_take_longer_than_a_transaction_may_be_idle(
    here: Place, there: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only PostgreSQL has a limit, and a dump, to speak of."""
    finish_one(here, rows.add_tenant(here.database), 1)
    dump = backup._dump

    def slow(*arguments: Any) -> None:
        threading.Event().wait(3.2)
        monkeypatch.undo()  # nothing but the dump is hurried
        dump(*arguments)

    monkeypatch.setattr("store.database.IDLE_TRANSACTION_S", 3)
    monkeypatch.setattr(backup, "_dump", slow)
    save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")
    assert rows.count(there.database, Artifact) == 1


@pytest.fixture
def saved(sqlite_database: Database, tmp_path: Path) -> Path:
    """A folder with a backup of one finished job."""
    source = place(sqlite_database, tmp_path / "source")
    finish_one(source, rows.add_tenant(source.database), 1)
    save(source.settings, tmp_path / "backup")
    return tmp_path / "backup"


def elsewhere(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "elsewhere")


def test_bytes_that_rotted_in_a_backup_are_found(saved: Path, tmp_path: Path) -> None:
    (blob,) = [path for path in (saved / "blobs").rglob("*") if path.is_file()]
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        restore(elsewhere(tmp_path), saved)


def test_a_place_that_is_not_empty_is_left_as_it_is(
    saved: Path, sqlite_database: Database, tmp_path: Path
) -> None:
    before = databases.contents(sqlite_database)
    with pytest.raises(BackupFailed, match="restore into an empty one"):
        restore(place(sqlite_database, tmp_path / "elsewhere").settings, saved)
    assert databases.contents(sqlite_database) == before


def test_a_backup_that_was_cut_short_is_none(saved: Path, tmp_path: Path) -> None:
    (saved / backup.MANIFEST).unlink()
    with pytest.raises(BackupFailed, match="cut short"):
        restore(elsewhere(tmp_path), saved)


def test_a_backup_of_another_kind_of_database_is_refused(saved: Path, tmp_path: Path) -> None:
    manifest = json.loads((saved / backup.MANIFEST).read_text())
    (saved / backup.MANIFEST).write_text(json.dumps(manifest | {"dialect": "postgresql"}))
    with pytest.raises(BackupFailed, match="a backup of postgresql"):
        restore(elsewhere(tmp_path), saved)


def test_a_backup_of_an_older_version_is_brought_up_to_date(tmp_path: Path, saved: Path) -> None:
    old = Database(f"sqlite:///{saved / backup.SQLITE_FILE}")
    downgrade(old, "-1")
    old.dispose()
    settings = elsewhere(tmp_path)
    restore(settings, saved)
    database = Database(settings.resolved_database_url)
    check(database)
    database.dispose()


def test_garbage_of_the_source_is_not_missed(here: Place, there: Place, tmp_path: Path) -> None:
    """A row without bytes that nothing refers to is what a collection leaves in mid-work."""
    with here.database.writing() as session:
        remember(session, rows.blob_of(b"deleted this moment"))
    manifest = save(here.settings, tmp_path / "backup")
    restore(there.settings, tmp_path / "backup")
    assert (manifest.blobs, manifest.missing) == (0, [])
    assert rows.count(there.database, Blob) == 0


def test_the_commands_save_and_restore(saved: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    steps = [
        ["restore", str(saved), "--data-dir", str(there)],
        ["backup", str(tmp_path / "again"), "--data-dir", str(there)],
    ]
    done = [
        subprocess.run(
            [sys.executable, "-m", "stack", *step],
            check=False, capture_output=True, text=True,
        )
        for step in steps
    ]  # fmt: skip
    assert [one.returncode for one in done] == [0, 0], done
    assert json.loads(done[1].stdout)["blobs"] == 1


def test_a_database_that_waits_for_its_migrations_is_not_saved(
    bare_sqlite: Database, tmp_path: Path
) -> None:
    with pytest.raises(BackupFailed, match=r"store\.migrate upgrade"):
        save(place(bare_sqlite, tmp_path).settings, tmp_path / "backup")


def test_blobs_without_a_row_are_left_out(here: Place, tmp_path: Path) -> None:
    put(here, b"still being uploaded")
    assert save(here.settings, tmp_path / "backup").blobs == 0
