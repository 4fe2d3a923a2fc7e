"""Removing bytes that no row refers to any more.

In two steps, so that no crash and no upload of the same bytes meanwhile leaves a row without
bytes: rows are condemned (nothing refers to them, and only `remember` takes that back), then the
bytes of each go under the lock of its row, and the row with them. A crash in the second step
leaves a condemned row, which the next pass finishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from store.blobs import CALL_S, BlobStore, StoredObject
from store.database import Database, database_now, waiting
from store.tables import Artifact, Blob, Checkpoint, Dataset, File, Model

_REFERENCES = (
    File.sha256,
    Model.weights_sha256,
    Model.network_sha256,
    Dataset.blob_sha256,
    Checkpoint.sha256,
    Artifact.sha256,
)
ORPHANS_AT_ONCE = 500


def condemn_unreferenced(session: Session, *, grace_s: float) -> list[str]:
    """Condemn blobs older than `grace_s` that nothing refers to; returns their names."""
    now = database_now(session)
    old = Blob.created_at < now - timedelta(seconds=grace_s)
    # one statement: PostgreSQL looks again at the age of a row that is being remembered meanwhile
    statement = update(Blob).where(Blob.condemned_at.is_(None), old, *_unused())
    condemned = statement.values(condemned_at=now).returning(Blob.sha256)
    return list(session.scalars(condemned.execution_options(synchronize_session=False)))


def condemn_orphans(database: Database, blobs: BlobStore, *, grace_s: float) -> list[str]:
    """Condemn bytes older than `grace_s` that have no row: a crash before `remember` left them."""
    with database.reading() as session:
        limit = database_now(session) - timedelta(seconds=grace_s)
    old = (found for found in blobs.objects("sha256/") if found.changed_at < limit)
    condemned: list[str] = []
    for batch in _batches(old, ORPHANS_AT_ONCE):
        orphans = _without_row(database, batch)
        if orphans:
            with database.writing() as session:
                condemned += [name for found in orphans if (name := _condemn(session, found))]
    return condemned


def remove_condemned(database: Database, blobs: BlobStore) -> list[str]:
    """Remove the bytes and rows of condemned blobs, one transaction each; returns their names."""
    with database.reading() as session:
        names = session.scalars(select(Blob.sha256).where(Blob.condemned_at.is_not(None))).all()
    return [name for name in names if _remove(database, blobs, name)]


def _remove(database: Database, blobs: BlobStore, sha256: str) -> bool:
    condemned = (
        select(Blob)
        .where(Blob.sha256 == sha256, Blob.condemned_at.is_not(None), *_unused())
        .with_for_update(skip_locked=True)  # whoever remembers it at this moment keeps it
    )
    with database.writing() as session:
        blob = session.scalar(condemned)
        if blob is None:
            return False
        with waiting(session, CALL_S):
            blobs.delete(sha256)
        session.delete(blob)
    return True


def _without_row(database: Database, batch: list[StoredObject]) -> list[StoredObject]:
    names = [_sha256(found) for found in batch]
    with database.reading() as session:
        known = set(session.scalars(select(Blob.sha256).where(Blob.sha256.in_(names))))
    return [found for found in batch if _sha256(found) not in known]


def _condemn(session: Session, found: StoredObject) -> str | None:
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    now = database_now(session)
    values = {
        "sha256": _sha256(found),
        "bytes": found.bytes,
        "created_at": now,
        "condemned_at": now,
    }
    statement = insert(Blob).values(values).on_conflict_do_nothing().returning(Blob.sha256)
    return session.scalar(statement)


def _unused() -> list[ColumnElement[bool]]:
    return [~exists().where(column == Blob.sha256) for column in _REFERENCES]


def _sha256(found: StoredObject) -> str:
    return found.name.rpartition("/")[2]


def _batches(objects: Iterable[StoredObject], size: int) -> Iterator[list[StoredObject]]:
    iterator = iter(objects)
    while batch := list(islice(iterator, size)):
        yield batch
