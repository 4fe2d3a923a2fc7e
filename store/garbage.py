"""Removing bytes that no row refers to any more."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, exists
from sqlalchemy.orm import Session

from store.database import database_now
from store.tables import Artifact, Blob, Checkpoint, Dataset, File, Model

_REFERENCES = (
    File.sha256,
    Model.weights_sha256,
    Dataset.blob_sha256,
    Checkpoint.sha256,
    Artifact.sha256,
)


def forget_unreferenced(session: Session, *, grace_s: float) -> list[str]:
    """Delete the rows of blobs older than `grace_s` that nothing refers to; returns their names.

    The caller removes the bytes after the commit: a crash in between leaves bytes without a row.
    """
    limit = database_now(session) - timedelta(seconds=grace_s)
    unused = [~exists().where(column == Blob.sha256) for column in _REFERENCES]
    # one statement: PostgreSQL looks again at the age of a row that is being remembered meanwhile
    statement = delete(Blob).where(Blob.created_at < limit, *unused).returning(Blob.sha256)
    return list(session.scalars(statement.execution_options(synchronize_session=False)))
