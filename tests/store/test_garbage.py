"""Forgetting bytes that nothing refers to any more."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Update, select, update
from sqlalchemy.orm import Session

from store import records
from store.blobs import BlobStore, folder_of, remember
from store.database import Database, database_now
from store.garbage import condemn_orphans, condemn_unreferenced, remove_condemned
from store.parts import Layout, open_parts
from store.records import ArtifactFile
from store.tables import Blob, Dataset, Model
from tests.support.rows import (
    add_dataset,
    add_file,
    add_model,
    add_tenant,
    blob_of,
    running_job,
)

CONTENT = b"x" * (1 << 16)
KEPT = b"bytes that something refers to"
GRACE_S = 3600.0


@pytest.fixture
def fresh_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One whose connections are new, and may be idle in a transaction for a second."""
    monkeypatch.setattr("store.database.IDLE_TRANSACTION_S", 1)
    fresh = Database(database.engine.url.render_as_string(hide_password=False))
    yield fresh
    fresh.dispose()


def age(database: Database) -> None:
    """Let every blob have been stored a day ago."""
    with database.writing() as session:
        yesterday = database_now(session) - timedelta(days=1)
        session.execute(update(Blob).values(created_at=yesterday))


def condemn(database: Database) -> list[str]:
    with database.writing() as session:
        return condemn_unreferenced(session, grace_s=GRACE_S)


def test_an_upload_that_took_long_is_young_when_it_becomes_a_blob(
    database: Database, blob_store: BlobStore
) -> None:
    layout = Layout("upl_slow", len(CONTENT), 1 << 16)
    parts = open_parts(blob_store)
    with parts.write(layout, 1) as writer:
        writer.write([CONTENT])
        writer.commit()
    yesterday = time.time() - 86400
    os.utime(folder_of(blob_store.url) / "uploads" / "upl_slow.open", (yesterday, yesterday))
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    parts.assemble(layout, sha256, on_chunk=lambda: None, on_verified=lambda: None)
    assert condemn_orphans(database, blob_store, grace_s=GRACE_S) == []


def forget(database: Database) -> list[str]:
    """Condemn what may go and remove it; returns what went."""
    condemn(database)
    with TemporaryDirectory() as folder:  # the tables never look at the bytes
        return remove_condemned(database, BlobStore(Path(folder).as_uri()))


def remembered(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(select(Blob.sha256)))


def refer_from_file(database: Database) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        add_file(session, tenant_id, KEPT)


def refer_from_model(database: Database) -> None:
    _refer(database, add_model, update(Model), "weights_sha256")


def refer_from_dataset(database: Database) -> None:
    _refer(database, add_dataset, update(Dataset), "blob_sha256")


def _refer(
    database: Database,
    add: Callable[[Session, str], str],
    statement: Update,
    column: str,
) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        add(session, tenant_id)
        remember(session, blob_of(KEPT))
        session.execute(statement.values({column: blob_of(KEPT).sha256}))


def refer_from_checkpoint(database: Database) -> None:
    lease = running_job(database)
    with database.writing() as session:
        records.record_checkpoint(session, lease, phase="admm", blob=blob_of(KEPT))


def refer_from_artifact(database: Database) -> None:
    lease = running_job(database)
    file = ArtifactFile("report", "report.json", "application/json", blob_of(KEPT))
    with database.writing() as session:
        records.finish(session, lease, result={}, files=[file])


@pytest.mark.parametrize(
    "refer",
    [
        refer_from_file,
        refer_from_model,
        refer_from_dataset,
        refer_from_checkpoint,
        refer_from_artifact,
    ],
)
def test_bytes_that_something_refers_to_are_kept_however_old(
    database: Database, refer: Callable[[Database], None]
) -> None:
    refer(database)
    age(database)
    assert forget(database) == []
    assert blob_of(KEPT).sha256 in remembered(database)


def test_old_bytes_that_nothing_refers_to_are_forgotten(database: Database) -> None:
    refer_from_file(database)
    unused = blob_of(b"unused")
    with database.writing() as session:
        remember(session, unused)
    age(database)
    assert forget(database) == [unused.sha256]
    assert remembered(database) == {blob_of(KEPT).sha256}


def test_young_bytes_are_kept_for_whoever_is_about_to_refer_to_them(database: Database) -> None:
    with database.writing() as session:
        remember(session, blob_of(b"young"))
    assert forget(database) == []


def test_old_bytes_that_are_stored_again_are_young(database: Database) -> None:
    with database.writing() as session:
        remember(session, blob_of(b"unused"))
    age(database)
    with database.writing() as session:
        remember(session, blob_of(b"unused"))
    assert forget(database) == []


def test_a_checkpoint_that_was_replaced_is_forgotten(database: Database) -> None:
    lease = running_job(database)
    for content in (b"first", b"second"):
        with database.writing() as session:
            records.record_checkpoint(session, lease, phase="admm", blob=blob_of(content))
    age(database)
    assert forget(database) == [blob_of(b"first").sha256]


def test_the_checkpoint_of_a_finished_job_is_forgotten(database: Database) -> None:
    refer_from_checkpoint(database)
    finished = running_job(database)
    with database.writing() as session:
        records.record_checkpoint(session, finished, phase="admm", blob=blob_of(b"done"))
        records.finish(session, finished, result={}, files=[])
    age(database)
    assert forget(database) == [blob_of(b"done").sha256]


def test_forgetting_twice_forgets_once(database: Database) -> None:
    with database.writing() as session:
        remember(session, blob_of(b"unused"))
    age(database)
    assert len(forget(database)) == 1
    assert forget(database) == []


def test_a_condemned_blob_that_is_stored_again_is_kept(database: Database) -> None:
    with database.writing() as session:
        remember(session, blob_of(KEPT))
    age(database)
    assert condemn(database) == [blob_of(KEPT).sha256]
    with database.writing() as session:
        remember(session, blob_of(KEPT))
    assert forget(database) == []
    assert remembered(database) == {blob_of(KEPT).sha256}


def test_a_blob_is_condemned_once(database: Database) -> None:
    with database.writing() as session:
        remember(session, blob_of(b"unused"))
    age(database)
    assert (len(condemn(database)), condemn(database)) == (1, [])


def test_a_lock_outlasts_a_store_that_is_slow_to_delete(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else bytes that are remembered meanwhile would be deleted after all."""
    blobs = BlobStore(tmp_path.as_uri())
    with fresh_database.writing() as session:
        remember(session, blob_of(b"old"))
    age(fresh_database)
    (name,) = condemn(fresh_database)
    monkeypatch.setattr(blobs, "delete", lambda _: threading.Event().wait(1.2))
    assert remove_condemned(fresh_database, blobs) == [name]
    assert remembered(fresh_database) == set()
