"""Fixtures of all tests, and the lines that say what could not be run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from store.blobs import BlobStore
from store.database import Database
from store.migrate import upgrade
from tests.support import databases, postgres, requirements

DIALECTS = ["sqlite", "postgresql"]

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_configure() -> None:
    # Before torch is loaded; docs/decisions/0001 says why.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes of pytest-xdist
        session.config.workeroutput["missing"] = requirements.missing()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    requirements.also_missing(getattr(node, "workeroutput", {}).get("missing", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in requirements.report():
        terminalreporter.write_line(line, yellow=True, bold=True)


@dataclass(frozen=True)
class PostgresServer:
    """Where PostgreSQL is, or why it is not."""

    url: str | None
    why: str = ""

    def required_url(self) -> str:
        """Return the URL; without one the test is reported as not run."""
        requirements.require("PostgreSQL", self.url is not None, self.why)
        assert self.url is not None
        return self.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with ExitStack() as stack:
        try:
            found = PostgresServer(stack.enter_context(postgres.server()))
        except postgres.Unavailable as reason:
            found = PostgresServer(None, str(reason))
        yield found


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_server: PostgresServer) -> Iterator[Database | None]:
    if postgres_server.url is None:
        yield None
        return
    with postgres.scratch_database(postgres_server.url) as url:
        database = Database(url)
        upgrade(database)
        yield database
        database.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'cstar.db'}")
    upgrade(database)
    yield database
    database.dispose()


@pytest.fixture
def sqlite_database(migrated_sqlite: Database) -> Database:
    """A migrated, empty SQLite database in a file."""
    databases.empty(migrated_sqlite)
    return migrated_sqlite


@pytest.fixture
def postgresql_database(
    postgres_server: PostgresServer, migrated_postgresql: Database | None
) -> Database:
    """A migrated, empty PostgreSQL database."""
    postgres_server.required_url()
    assert migrated_postgresql is not None
    databases.empty(migrated_postgresql)
    return migrated_postgresql


@pytest.fixture(params=DIALECTS)
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated, empty database of each kind."""
    chosen: Database = request.getfixturevalue(f"{request.param}_database")
    return chosen


@pytest.fixture
def bare_sqlite(tmp_path: Path) -> Iterator[Database]:
    """A SQLite database without any table."""
    database = Database(f"sqlite:///{tmp_path / 'bare.db'}")
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def bare_postgresql_url(postgres_server: PostgresServer) -> Iterator[str | None]:
    if postgres_server.url is None:
        yield None
        return
    with postgres.scratch_database(postgres_server.url) as url:
        yield url


@pytest.fixture
def bare_postgresql(
    postgres_server: PostgresServer, bare_postgresql_url: str | None
) -> Iterator[Database]:
    """A PostgreSQL database without any table."""
    postgres_server.required_url()
    assert bare_postgresql_url is not None
    database = Database(bare_postgresql_url)
    yield database
    databases.clear(database)
    database.dispose()


@pytest.fixture(params=DIALECTS)
def bare_database(request: pytest.FixtureRequest) -> Database:
    """A database of each kind without any table."""
    chosen: Database = request.getfixturevalue(f"bare_{request.param}")
    return chosen


@pytest.fixture
def blob_store(tmp_path: Path) -> BlobStore:
    """An empty blob store on local disk."""
    return BlobStore((tmp_path / "blobs").as_uri())
