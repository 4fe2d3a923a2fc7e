"""Engines and transactions for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

_READING: dict[str, dict[str, Any]] = {
    "sqlite": {"cstar_begin": "BEGIN"},
    "postgresql": {
        "isolation_level": "REPEATABLE READ"
    },  # else every statement sees its own moment
}
IDLE_TRANSACTION_S = 10  # between two statements; ours never wait for anybody else
# of libpq: seconds, but milliseconds for the one that bounds what was sent and not acknowledged
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}


class Database:
    """Opens transactions: `reading()` and `writing()`, each one Session, committed on a clean exit.

    SQLite takes its write lock at the start of a writing transaction (BEGIN IMMEDIATE): a plain
    BEGIN that upgrades later fails with "database is locked" under concurrent writers.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._read_engine = self.engine.execution_options(**_READING[self.engine.dialect.name])

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a transaction that may write; rolled back when the block raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads (one snapshot)."""
        with Session(self._read_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def is_away(error: DBAPIError) -> bool:
    """Say whether an error is that of a database that cannot be reached, or not at the moment."""
    return isinstance(error, OperationalError) or error.connection_invalidated


def database_now(session: Session) -> datetime:
    """Return the database's own clock, in UTC: leases are compared on one clock only."""
    if session.get_bind().dialect.name == "sqlite":  # in this very process, on this very machine
        return datetime.now(UTC)
    clock: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return clock.astimezone(UTC)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(url, parsed.database)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed.update_query_dict(_given_up_soon(parsed)), pool_pre_ping=True)
    if parsed.get_backend_name() == "postgresql":
        event.listen(engine, "connect", _on_postgresql_connect)
    return engine


def _on_postgresql_connect(connection: Any, _record: Any) -> None:
    """Have the server end the transaction of a client that is gone: it locks the row of its job."""
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_S}s'")
    connection.autocommit = False


def _given_up_soon(url: URL) -> dict[str, str]:
    """Return the settings by which a server that a network has lost is an error within 15 s."""
    if url.get_backend_name() != "postgresql":
        return {}
    return {name: value for name, value in _PATIENCE.items() if name not in url.query}


def _sqlite_engine(url: str, path: str | None) -> Engine:
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30})
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transaction by itself
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get("cstar_begin", "BEGIN IMMEDIATE")
    connection.exec_driver_sql(begin)
