"""Garbage is removed while the same bytes are uploaded: no row is ever left without its bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from store import garbage
from store.blobs import BlobGone, BlobStore, StoredBlob, remember
from store.database import Database
from store.tables import Blob
from tests.store.crashes import age
from tests.store.places import Place
from tests.support.threads import PATIENCE_S, await_lock_wait, in_background

CONTENT = b"bytes that come and go"


def put(blobs: BlobStore, content: bytes = CONTENT) -> StoredBlob:
    with blobs.stage() as staging:
        staging.write(content)
        return staging.commit()


def put_row(database: Database, blob: StoredBlob) -> None:
    with database.writing() as session:
        remember(session, blob)


def condemn(database: Database) -> list[str]:
    with database.writing() as session:
        return garbage.condemn_unreferenced(session, grace_s=3600)


def rows(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(Blob.sha256).where(Blob.condemned_at.is_(None))))


@pytest.fixture
def old_blob(database: Database, place: Place) -> StoredBlob:
    """Bytes with a row, both of yesterday, that nothing refers to."""
    blob = put(place.store)
    put_row(database, blob)
    age(database)
    return blob


@pytest.mark.usefixtures("old_blob")
def test_an_upload_whose_bytes_are_removed_before_it_has_its_row_is_told(
    database: Database, place: Place
) -> None:
    again = put(place.store)  # they are there already
    condemn(database)
    assert garbage.remove_condemned(database, place.store) == [again.sha256]
    with pytest.raises(BlobGone):
        put_row(database, again)
    assert (rows(database), place.contents()) == ([], [])
    put_row(database, put(place.store))
    assert len(rows(database)) == len(place.contents()) == 1


@pytest.mark.usefixtures("old_blob")
def test_an_upload_between_the_two_steps_keeps_its_bytes(database: Database, place: Place) -> None:
    assert condemn(database)
    put_row(database, put(place.store))
    assert garbage.remove_condemned(database, place.store) == []
    assert len(rows(database)) == len(place.contents()) == 1


class Interrupted(BlobStore):
    """A blob store that lets something happen before it removes bytes."""

    def __init__(self, store: BlobStore, before_delete: Callable[[str], None]) -> None:
        self._store, self._disk = store._store, store._disk
        self._before_delete = before_delete

    def delete(self, sha256: str) -> None:
        self._before_delete(sha256)
        super().delete(sha256)


def test_an_upload_while_the_bytes_are_being_removed_waits_and_is_told(
    postgresql_database: Database, local: Place
) -> None:
    database = postgresql_database
    put_row(database, put(local.store))
    age(database)
    condemn(database)
    removing, uploaded = threading.Event(), threading.Event()

    def wait_for_the_upload(_sha256: str) -> None:
        removing.set()
        assert uploaded.wait(PATIENCE_S)

    slow = Interrupted(local.store, wait_for_the_upload)
    with in_background(lambda: garbage.remove_condemned(database, slow)) as removed:
        assert removing.wait(PATIENCE_S)
        again = put(local.store)
        with in_background(lambda: put_row(database, again)) as remembered:
            await_lock_wait(database, remembered)
            uploaded.set()
            with pytest.raises(BlobGone):
                remembered.result(PATIENCE_S)
        assert removed.result(PATIENCE_S) == [again.sha256]
    assert (rows(database), local.contents()) == ([], [])


def test_bytes_that_are_being_remembered_are_passed_over(
    postgresql_database: Database, local: Place
) -> None:
    database = postgresql_database
    put_row(database, put(local.store))
    age(database)
    condemn(database)
    again = put(local.store)
    with database.writing() as session:
        remember(session, again)
        assert garbage.remove_condemned(database, local.store) == []
    assert len(rows(database)) == len(local.contents()) == 1


def test_bytes_that_are_remembered_while_others_are_removed_are_passed_over(
    postgresql_database: Database, local: Place
) -> None:
    database = postgresql_database
    for content in (b"one", b"other"):
        put_row(database, put(local.store, content))
    age(database)
    condemn(database)
    kept: list[str] = []

    def keep_the_other(sha256: str) -> None:
        both = [put(local.store, content) for content in (b"one", b"other")]
        (other,) = (blob for blob in both if blob.sha256 != sha256)
        put_row(database, other)
        kept.append(other.sha256)

    removed = garbage.remove_condemned(database, Interrupted(local.store, keep_the_other))
    assert len(removed) == 1
    assert rows(database) == kept


def test_bytes_without_a_row_are_removed_once_they_are_old(
    database: Database, place: Place
) -> None:
    orphan = put(place.store)
    put_row(database, put(place.store, b"with a row"))
    assert garbage.condemn_orphans(database, place.store, grace_s=3600) == []
    assert garbage.condemn_orphans(database, place.store, grace_s=-60) == [orphan.sha256]
    assert garbage.remove_condemned(database, place.store) == [orphan.sha256]
    assert len(place.contents()) == 1


def test_bytes_without_a_row_that_get_one_meanwhile_stay(database: Database, place: Place) -> None:
    orphan = put(place.store)
    assert garbage.condemn_orphans(database, place.store, grace_s=-60) == [orphan.sha256]
    put_row(database, orphan)
    assert garbage.remove_condemned(database, place.store) == []
    assert rows(database) == [orphan.sha256]


def test_many_bytes_without_a_row_are_found_in_portions(
    sqlite_database: Database, local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "ORPHANS_AT_ONCE", 2)
    orphans = {put(local.store, bytes([number])).sha256 for number in range(5)}
    found = garbage.condemn_orphans(sqlite_database, local.store, grace_s=-60)
    assert set(found) == orphans


def test_half_written_left_overs_are_swept_once_they_are_old(local: Place, tmp_path: Path) -> None:
    """A process that was killed leaves `staging/NAME#1`, which no listing shows."""
    left_over = tmp_path / "blobs" / "staging" / "abc#1"
    left_over.parent.mkdir()
    left_over.write_bytes(b"half of an upl")
    assert local.store.sweep_staging(grace_s=3600) == 0
    assert local.store.sweep_staging(grace_s=-60) == 1
    assert local.contents() == []


def test_whole_left_overs_are_swept_once_they_are_old(place: Place) -> None:
    place.overwrite("staging/abc", b"closed, but not moved to its name")
    assert place.store.sweep_staging(grace_s=3600) == 0
    assert place.store.sweep_staging(grace_s=-60) == 1
    assert place.contents() == []


def test_a_running_upload_is_not_swept(place: Place) -> None:
    with place.store.stage() as staging:
        staging.write(bytes(6 << 20))
        assert place.store.sweep_staging(grace_s=3600) == 0
        blob = staging.commit()
    assert place.store.exists(blob.sha256)
