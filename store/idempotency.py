"""A client's key under which a request is carried out once, within one transaction.

The key's row is written first and the answer into it last, in the transaction of everything the
request makes: either all of it is there or nothing. Whoever comes with the same key meanwhile
waits for that transaction's end (SQLite: for any writer's).
Follows https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.database import database_now
from store.tables import IdempotencyKey

KEPT = timedelta(hours=24)
PATIENCE_MS = 2000  # for a first request that is still being carried out
_LOCK_NOT_AVAILABLE = "55P03"


class InProgress(Exception):
    """The first request under this key is still being carried out."""


class KeyReused(Exception):
    """The key came with another request before."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered; `body` is JSON text."""

    status: int
    body: str
    location: str | None


def claim(session: Session, *, tenant_id: str, key: str, fingerprint: str) -> Answer | None:
    """Take a key for this transaction and return None, or the answer it was given before.

    Raises KeyReused when `fingerprint` is not that of the first request, and InProgress.
    """
    now = database_now(session)
    mine = (IdempotencyKey.tenant_id == tenant_id, IdempotencyKey.key == key)
    session.execute(delete(IdempotencyKey).where(*mine, IdempotencyKey.created_at < now - KEPT))
    values = {"tenant_id": tenant_id, "key": key, "fingerprint": fingerprint, "created_at": now}
    if _inserted(session, values):
        return None
    row = session.get_one(IdempotencyKey, (tenant_id, key))
    if row.fingerprint != fingerprint:
        raise KeyReused
    assert row.status is not None
    assert row.body is not None
    return Answer(row.status, row.body, row.location)


def keep(session: Session, answer: Answer, *, tenant_id: str, key: str) -> None:
    """Keep the answer under the key that this transaction has claimed."""
    row = session.get_one(IdempotencyKey, (tenant_id, key))
    row.status, row.body, row.location = answer.status, answer.body, answer.location
    session.flush()


def sweep(session: Session) -> int:
    """Forget the keys that have been kept long enough; returns how many."""
    old = IdempotencyKey.created_at < database_now(session) - KEPT
    result = session.execute(delete(IdempotencyKey).where(old))
    return cast(CursorResult[Any], result).rowcount


def _inserted(session: Session, values: dict[str, Any]) -> bool:
    """Say whether the row is new; waits up to `PATIENCE_MS` for one that is being written."""
    if session.get_bind().dialect.name == "sqlite":
        return _is_new(session, sqlite_insert(IdempotencyKey).values(values))
    session.execute(text(f"SET LOCAL lock_timeout = {PATIENCE_MS}"))
    try:
        new = _is_new(session, postgresql_insert(IdempotencyKey).values(values))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise InProgress from error
        raise
    session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    return new


def _is_new(session: Session, insert: Any) -> bool:
    statement = insert.on_conflict_do_nothing().returning(IdempotencyKey.key)
    return session.scalar(statement) is not None
