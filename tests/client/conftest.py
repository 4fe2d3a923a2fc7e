"""The API served on a socket, with a tenant of its own for every test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from click.testing import Result
from typer.testing import CliRunner

from api.main import create_app
from cstar_client import Client, Retries
from cstar_client.cli.app import app
from store.blobs import BlobStore
from store.database import Database
from store.keys import create_key, create_tenant
from store.settings import Settings
from tests.api.conftest import SECRET
from tests.api.world import World
from tests.support import databases

Run = Callable[..., Result]
ATTEMPTS = 4
QUICKLY = Retries(attempts=ATTEMPTS, first_s=0.01, most_s=0.05)


@dataclass(frozen=True)
class Service:
    """A served API; `settings` is what it runs with."""

    url: str
    settings: Settings
    database: Database


@dataclass(frozen=True)
class Access:
    """A key and where it is good for."""

    url: str
    api_key: str
    tenant_id: str


@contextmanager
def served(settings: Settings, database: Database) -> Iterator[Service]:
    """Serve the API with these settings."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the API did not start"
        thread.join(0.01)
    yield Service(f"http://127.0.0.1:{listener.getsockname()[1]}", settings, database)
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Database
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    url = str(migrated_sqlite.engine.url)
    settings = Settings(data_dir=folder, database_url=url, secret_key=SECRET)
    with served(settings, migrated_sqlite) as service:
        yield service


@pytest.fixture
def access(service: Service) -> Access:
    """A key of the only tenant of an empty database."""
    databases.empty(service.database)
    return new_access(service)


def new_access(service: Service) -> Access:
    """Return a key of a new tenant."""
    with service.database.writing() as session:
        tenant_id = create_tenant(session, "a tenant").id
        key = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    return Access(service.url, key, tenant_id)


@pytest.fixture
def world(service: Service, access: Access) -> World:
    """What the tenant of `client` owns."""
    blobs = BlobStore(service.settings.resolved_blob_url)
    return World(service.database, blobs, access.tenant_id)


@pytest.fixture
def client(access: Access) -> Iterator[Client]:
    with Client(access.url, access.api_key, retries=QUICKLY) as client:
        yield client


@pytest.fixture(autouse=True)
def nobody_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    for name in ("CSTAR_URL", "CSTAR_API_KEY", "CSTAR_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cstar(access: Access, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with address and key in the environment."""
    monkeypatch.setenv("CSTAR_URL", access.url)
    monkeypatch.setenv("CSTAR_API_KEY", access.api_key)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
