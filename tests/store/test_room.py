"""A full disk is told from every other error, and leaves nothing half done."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from store.blobs import BlobStore
from store.database import Database
from store.room import is_full
from tests.store.places import local_place
from tests.support.disks import SIZE_BYTES, SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def put(blobs: BlobStore, megabytes: int) -> None:
    with blobs.stage() as staging:
        for _ in range(megabytes):
            staging.write(bytes(1 << 20))
        staging.commit()


def test_a_blob_store_without_room_says_so_and_keeps_nothing(disk: SmallDisk) -> None:
    place = local_place(disk.folder / "blobs")
    with pytest.raises(OSError, match="os error 28") as refusal:
        put(place.store, 2 * SIZE_BYTES >> 20)
    assert is_full(refusal.value)
    assert place.contents() == []


def test_what_was_stored_before_the_disk_was_full_can_be_read(disk: SmallDisk) -> None:
    blobs = BlobStore((disk.folder / "blobs").as_uri())
    with blobs.stage() as staging:
        staging.write(b"kept")
        kept = staging.commit()
    disk.fill()
    assert b"".join(blobs.read(kept.sha256)) == b"kept"


def test_a_database_without_room_says_so_and_goes_on_when_there_is(disk: SmallDisk) -> None:
    database = Database(f"sqlite:///{disk.folder / 'cstar.db'}")

    def write() -> None:
        with database.writing() as session:
            session.execute(text("INSERT INTO notes VALUES (:note)"), {"note": "x" * 100_000})

    with database.writing() as session:
        session.execute(text("CREATE TABLE notes (note TEXT)"))
    disk.fill()
    with pytest.raises(DBAPIError) as refusal:
        write()
    assert is_full(refusal.value)
    disk.make_room()
    write()
    database.dispose()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_known_by_its_number(number: int) -> None:
    assert is_full(OSError(number, "whatever the language"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "denied"),
        FileNotFoundError("sha256/ab"),
        GenericError("Error performing request: os error 111"),
        ValueError("28"),
    ],
    ids=["permission", "missing", "connection", "a number"],
)
def test_other_errors_are_not_taken_for_a_full_disk(error: Exception) -> None:
    assert not is_full(error)


def test_a_bucket_without_room_is_known_by_its_code() -> None:
    assert is_full(GenericError("<Code>XMinioStorageFull</Code>"))
