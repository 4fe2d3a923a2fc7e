"""Databases that are made once and emptied for every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from store.database import Database
from store.tables import Base


def empty(database: Database) -> None:
    """Delete every row (cheaper than TRUNCATE, or than another engine with its empty caches)."""
    with database.writing() as session:
        if database.engine.dialect.name == "postgresql":
            # a transaction that a test left open must not hang the next one
            session.execute(text("SET LOCAL lock_timeout = '10s'"))
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


def clear(database: Database) -> None:
    """Drop everything in a PostgreSQL database."""
    with database.writing() as session:
        session.execute(text("SET LOCAL lock_timeout = '10s'"))
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))


class _Interrupted(Exception):
    """Something went wrong after everything was written and before it was committed."""


@contextmanager
def interrupted(database: Database) -> Iterator[Session]:
    """Open a writing transaction that breaks off at its end."""
    with suppress(_Interrupted), database.writing() as session:
        yield session
        session.flush()
        raise _Interrupted


def contents(database: Database) -> dict[str, list[Any]]:
    """Return every row of every table, to show that something wrote nothing."""
    with database.reading() as session:
        return {
            table.name: [
                tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))
            ]
            for table in Base.metadata.sorted_tables
        }
