"""The application of the API's tests, which takes files of the size a service allows here."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.database import Database
from store.settings import Settings
from tests.api.conftest import (  # noqa: F401
    SECRET,
    app,
    client,
    leftovers,
    owner,
    started_app,
)


@pytest.fixture
def settings(tmp_path: Path, sqlite_database: Database) -> Settings:
    return Settings(
        data_dir=tmp_path,
        database_url=str(sqlite_database.engine.url),
        blob_url=(tmp_path / "blobs").as_uri(),
        secret_key=SECRET,
    )
