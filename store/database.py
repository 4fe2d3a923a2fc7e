"""Engines and transactions for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

# What a database raises that is away, or that went away under a transaction: try again. An
# InternalError is how PostgreSQL tells of a transaction it has ended because its client was idle.
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)

# A connection whose other end is cut off must fail well within a lease, not after two hours.
_POSTGRESQL_NETWORK = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # milliseconds
}

_READING: dict[str, dict[str, Any]] = {
    "sqlite": {"cstar_begin": "BEGIN"},
    "postgresql": {
        "isolation_level": "REPEATABLE READ"
    },  # else every statement sees its own moment
}
IDLE_TRANSACTION_S = 10  # between two statements; `waiting` allows more where one has to be


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


@contextmanager
def waiting(session: Session, seconds: float) -> Iterator[None]:
    """Keep the transaction, and its locks, while the block asks another system for `seconds`.

    PostgreSQL would else end it after `IDLE_TRANSACTION_S`; 0 stands for no limit.
    """
    _allow_idle(session, seconds)
    yield
    _allow_idle(session, IDLE_TRANSACTION_S)


def _allow_idle(session: Session, seconds: float) -> None:
    if session.get_bind().dialect.name == "postgresql":
        limit = ("idle_in_transaction_session_timeout", f"{seconds}s", True)
        session.execute(select(func.set_config(*limit)))


def database_now(session: Session) -> datetime:
    """Return the database's own clock, in UTC: leases are compared on one clock only."""
    return _clock(session)


def _own_clock(session: Session) -> datetime:
    if session.get_bind().dialect.name == "sqlite":  # in this very process, on this very machine
        return datetime.now(UTC)
    clock: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return clock.astimezone(UTC)


_clock: Callable[[Session], datetime] = _own_clock  # tests let it jump


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(url, parsed.database)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    network = {
        name: value for name, value in _POSTGRESQL_NETWORK.items() if name not in parsed.query
    }
    engine = create_engine(parsed, pool_pre_ping=True, connect_args=network)
    event.listen(engine, "connect", _on_postgresql_connect)
    return engine


def _on_postgresql_connect(connection: Any, _record: Any) -> None:
    """Have the server end the transaction of a client that is gone: it locks the row of its job."""
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_S}s'")
    connection.autocommit = False


def _sqlite_engine(url: str, path: str | None) -> Engine:
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    patience = {} if "timeout" in make_url(url).query else {"timeout": 30}
    engine = create_engine(url, connect_args=patience)
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
