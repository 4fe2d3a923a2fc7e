"""Uploads into a disk without room: a clear answer, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from store.blobs import StoredBlob
from store.settings import Settings
from store.tables import File
from tests.api.world import AS_CHECKPOINT, World, archive
from tests.support import rows
from tests.support.disks import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def settings(settings: Settings, disk: SmallDisk) -> Settings:
    """The blobs are on the small disk."""
    return settings.model_copy(update={"blob_url": (disk.folder / "blobs").as_uri()})


def upload(client: Any, content: bytes) -> Any:
    return client.put("/v1/files", params=AS_CHECKPOINT, content=content)


def test_an_upload_that_finds_no_room_is_told_what_to_do_and_works_when_there_is(
    client: Any, world: World, disk: SmallDisk
) -> None:
    kept = upload(client, archive("kept")).json()
    content = archive("x" * (2 << 20))
    disk.fill()
    response = upload(client, content)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (507, "storage_full")
    assert "operator has made room" in problem["detail"]
    assert response.headers["retry-after"] == "60"
    assert rows.count(world.database, File) == 1
    assert client.get(kept["url"]).content == archive("kept")

    disk.make_room()
    body = upload(client, content).json()
    assert client.get(body["url"]).content == content


def test_an_upload_whose_bytes_are_removed_as_garbage_meanwhile_is_to_be_repeated(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredBlob, "is_there", lambda _: False)
    response = upload(client, archive())
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "send the file again" in response.json()["detail"]
    monkeypatch.undo()
    assert upload(client, archive()).status_code == 201


def test_a_database_without_room_says_so(
    app: FastAPI, client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = world.job_body()
    pages = "PRAGMA max_page_count = 1"  # SQLite keeps it at what there is: full from now on
    engine = app.state.services.database.engine
    with engine.connect() as connection:
        connection.exec_driver_sql(pages)
    body["labels"] = {"note": "x" * 200_000}
    response = client.post("/v1/jobs", json=body)
    engine.dispose()
    assert (response.status_code, response.json()["code"]) == (507, "storage_full")
