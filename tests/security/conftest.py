"""One application and database for a whole module: most of its requests change nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from api.main import create_app
from store.blobs import BlobStore
from store.database import Database
from store.migrate import upgrade
from store.settings import Settings
from tests.api.conftest import SECRET

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette would like a newer httpx
    from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The application over a database and a folder of its own."""
    folder: Path = tmp_path_factory.mktemp("service")
    unlimited = {"rate_limit_per_minute": 0, "failures_per_minute": 0}
    settings = Settings(data_dir=folder, secret_key=SECRET, quota_webhook_endpoints=0, **unlimited)
    database = Database(settings.resolved_database_url)
    upgrade(database)
    database.dispose()
    app = create_app(settings)
    with TestClient(app) as started:
        app.state.portal = started.portal
        yield app


@pytest.fixture(scope="module")
def blobs(service: FastAPI) -> BlobStore:
    store: BlobStore = service.state.services.blobs
    return store
