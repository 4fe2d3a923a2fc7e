"""Bringing a database to the tables of this version: `python -m store.migrate upgrade`."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from store.database import Database
from store.settings import settings


class DanglingReference(Exception):
    """A migration left a row that refers to one that is not there; nothing was changed."""


def configuration() -> Config:
    """Return Alembic's configuration for the migrations that ship with the service."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate up to `revision`; raises DanglingReference, and leaves all as it was."""
    with _configured(database) as config:
        command.upgrade(config, revision)


def downgrade(database: Database, revision: str = "base") -> None:
    """Migrate down to `revision`; tables that go lose their rows."""
    with _configured(database) as config:
        command.downgrade(config, revision)


def check(database: Database) -> None:
    """Raise alembic.util.CommandError when the tables are not those of `store.tables`."""
    with _configured(database) as config:
        command.check(config)


def revisions(database: Database) -> tuple[str | None, str | None]:
    """Return the revision a database is at, and the one this version of the program needs."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(configuration()).get_current_head()


def revise(database: Database, message: str) -> None:
    """Write a new migration from the difference between the database and `store.tables`."""
    with _configured(database) as config:
        command.revision(config, message=message, autogenerate=True)


@contextmanager
def _configured(database: Database) -> Iterator[Config]:
    """Yield a configuration with a connection, all of whose work is one transaction."""
    config = configuration()
    with (
        database.engine.connect() as connection,
        _references_may_dangle(connection),
        connection.begin(),
    ):
        config.attributes["connection"] = connection
        yield config
        _refuse_dangling(connection)


@contextmanager
def _references_may_dangle(connection: Connection) -> Iterator[None]:
    """Let SQLite replace a table that others refer to: it cannot alter a constraint otherwise.

    The pragma works outside transactions only, so it is told to the driver.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _refuse_dangling(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if dangling is not None:
        raise DanglingReference(f"{dangling[0]} has a row without its row in {dangling[2]}")


def main() -> None:
    """Run one of the commands on `CSTAR_DATABASE_URL`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["upgrade", "downgrade", "check", "revise"])
    parser.add_argument("argument", nargs="?", help="revision, or the message of `revise`")
    arguments = parser.parse_args()
    run = globals()[arguments.command]
    database = Database(settings().resolved_database_url)
    run(database, *([arguments.argument] if arguments.argument else []))


if __name__ == "__main__":
    main()
