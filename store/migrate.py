"""Bringing a database to the tables of this version: `python -m store.migrate upgrade`."""

from __future__ import annotations

import argparse
from importlib import resources

from alembic import command
from alembic.config import Config

from store.database import Database
from store.settings import settings


def configuration() -> Config:
    """Return Alembic's configuration for the migrations that ship with the service."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate up to `revision`."""
    config = configuration()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(database: Database, revision: str = "base") -> None:
    """Migrate down to `revision`; tables that go lose their rows."""
    config = configuration()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def check(database: Database) -> None:
    """Raise alembic.util.CommandError when the tables are not those of `store.tables`."""
    config = configuration()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)


def revise(database: Database, message: str) -> None:
    """Write a new migration from the difference between the database and `store.tables`."""
    config = configuration()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.revision(config, message=message, autogenerate=True)


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
