"""An application over SQLite and a folder, two tenants, and a client for each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from api.dependencies import open_services
from api.main import create_app
from store.blobs import BlobStore
from store.database import Database
from store.keys import create_key, create_tenant
from store.settings import Settings
from tests.api.world import World

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette would like a newer httpx
    from starlette.testclient import TestClient

SECRET = "of the tests, and of nothing else"
MAX_UPLOAD_BYTES = 3 << 20


@pytest.fixture
def settings(tmp_path: Path, sqlite_database: Database) -> Settings:
    return Settings(
        data_dir=tmp_path,
        database_url=str(sqlite_database.engine.url),
        blob_url=(tmp_path / "blobs").as_uri(),
        secret_key=SECRET,
        max_upload_bytes=MAX_UPLOAD_BYTES,
    )


@pytest.fixture(scope="session")
def started_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The application, started once: its routes are made at the first request."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data"), secret_key=SECRET))
    with TestClient(app) as started:
        app.state.portal = started.portal
        yield app


@pytest.fixture
def app(started_app: FastAPI, settings: Settings) -> Iterator[FastAPI]:
    """The application, working on the empty database and folder of this test."""
    at_start = started_app.state.services
    started_app.state.services = open_services(settings)
    yield started_app
    started_app.state.services.database.dispose()
    started_app.state.services = at_start


def tenant(app: FastAPI, name: str) -> tuple[str, dict[str, str]]:
    """Add a tenant; returns its id and the headers that carry its key."""
    with app.state.services.database.writing() as session:
        tenant_id = create_tenant(session, name).id
        key = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    return tenant_id, {"Authorization": f"Bearer {key}"}


def start(app: FastAPI) -> Any:
    """Start an application of a test's own; a context manager."""
    return TestClient(app)


def client_of(app: FastAPI, headers: dict[str, str], **more: Any) -> Any:
    client = TestClient(app, headers=headers, raise_server_exceptions=False, **more)
    client.portal = app.state.portal  # one event loop for all clients
    return client


@pytest.fixture
def owner(app: FastAPI) -> tuple[str, dict[str, str]]:
    return tenant(app, "owner")


@pytest.fixture
def client(app: FastAPI, owner: tuple[str, dict[str, str]]) -> Any:
    """A client with the key of the tenant whose `world` it is."""
    return client_of(app, owner[1])


@pytest.fixture
def stranger(app: FastAPI) -> Any:
    """A client with the key of another tenant."""
    return client_of(app, tenant(app, "stranger")[1])


@pytest.fixture
def anonymous(app: FastAPI) -> Any:
    """A client without a key."""
    return client_of(app, {})


@pytest.fixture
def world(app: FastAPI, owner: tuple[str, dict[str, str]], blob_store: BlobStore) -> World:
    return World(app.state.services.database, blob_store, owner[0])


@pytest.fixture
def leftovers(tmp_path: Path) -> Any:
    """A function that lists every file under the blob store's folder."""

    def listed() -> list[str]:
        folder = tmp_path / "blobs"
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    return listed
