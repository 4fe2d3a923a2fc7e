"""Reading stored bytes again: what rotted or vanished is found, put aside, and can be mended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from store.blobs import BlobStore, StoredBlob, remember
from store.database import Database, database_now
from store.scrub import Scrubber
from store.states import Damage
from store.tables import Blob
from tests.store.crashes import age
from tests.store.places import Place

REPOSITORY = Path(__file__).parents[2]
WEEK_S = 7 * 86400.0


def stored(database: Database, place: Place, content: bytes = b"bytes of a client") -> StoredBlob:
    with place.store.stage() as staging:
        staging.write(content)
        blob = staging.commit()
    with database.writing() as session:
        remember(session, blob)
    return blob


def name_of(blob: StoredBlob) -> str:
    return f"sha256/{blob.sha256[:2]}/{blob.sha256}"


def flip_a_bit(place: Place, blob: StoredBlob) -> bytes:
    content = bytearray(b"".join(place.store.read(blob.sha256)))
    content[len(content) // 2] ^= 1
    place.overwrite(name_of(blob), bytes(content))
    return bytes(content)


def scrubber(
    database: Database, place: Place, *, pause: Callable[[float], object] = lambda _: None
) -> Scrubber:
    return Scrubber(database, place.store, bytes_per_s=1000.0, pause=pause)


def row(database: Database, blob: StoredBlob) -> Blob:
    with database.reading() as session:
        return session.get_one(Blob, blob.sha256)


def test_whole_bytes_are_found_whole_and_the_look_is_noted(
    database: Database, place: Place
) -> None:
    blob = stored(database, place)
    assert scrubber(database, place).check(blob.sha256) is None
    found = row(database, blob)
    assert (found.damage, found.verified_at is not None) == (None, True)


def test_a_flipped_bit_is_found_and_the_bytes_are_put_aside(
    database: Database, place: Place
) -> None:
    blob = stored(database, place)
    rotten = flip_a_bit(place, blob)
    assert scrubber(database, place).check(blob.sha256) is Damage.DAMAGED
    assert row(database, blob).damage == "damaged"
    assert place.contents() == [f"damaged/{blob.sha256}"]
    assert rotten != b"bytes of a client"


def test_bytes_that_are_gone_are_found_missing(database: Database, place: Place) -> None:
    blob = stored(database, place)
    place.store.delete(blob.sha256)
    assert scrubber(database, place).check(blob.sha256) is Damage.MISSING
    assert row(database, blob).damage == "missing"


def test_a_second_look_does_not_forget_that_bytes_were_damaged(
    database: Database, local: Place
) -> None:
    blob = stored(database, local)
    flip_a_bit(local, blob)
    for _ in range(2):
        assert scrubber(database, local).check(blob.sha256) is Damage.DAMAGED


def test_damaged_bytes_are_mended_by_storing_them_again(database: Database, place: Place) -> None:
    blob = stored(database, place)
    flip_a_bit(place, blob)
    scrubber(database, place).check(blob.sha256)
    stored(database, place)
    assert row(database, blob).damage is None
    assert scrubber(database, place).check(blob.sha256) is None
    assert b"".join(place.store.read(blob.sha256)) == b"bytes of a client"


class Eventful(BlobStore):
    """A blob store in which something else is read, or happens, at the first look."""

    def __init__(self, store: BlobStore, first_look: Callable[[], list[bytes]]) -> None:
        self._store, self._disk = store._store, store._disk
        self._first_look: Callable[[], list[bytes]] | None = first_look

    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        first_look, self._first_look = self._first_look, None
        return (
            super().read(sha256, start=start, end=end) if first_look is None else iter(first_look())
        )


def test_bytes_that_were_garbled_on_their_way_are_not_damaged(
    sqlite_database: Database, local: Place
) -> None:
    blob = stored(sqlite_database, local)
    garbling = Eventful(local.store, lambda: [b"garbled"])
    assert Scrubber(sqlite_database, garbling, 1e9).check(blob.sha256) is None


def test_bytes_that_are_stored_again_during_the_look_are_judged_next_time(
    database: Database, local: Place
) -> None:
    blob = stored(database, local)
    flip_a_bit(local, blob)

    def store_again() -> list[bytes]:
        stored(database, local)
        return [b"what was there before"]

    assert Scrubber(database, Eventful(local.store, store_again), 1e9).check(blob.sha256) is None
    assert row(database, blob).damage is None
    assert local.contents() == [name_of(blob)]


def test_reading_pauses_so_that_it_stays_below_its_rate(
    sqlite_database: Database, local: Place
) -> None:
    blob = stored(sqlite_database, local, bytes(2500))
    pauses: list[float] = []
    scrubber(sqlite_database, local, pause=pauses.append).check(blob.sha256)
    assert sum(pauses) == pytest.approx(2.5)


def test_the_blob_nobody_looked_at_for_longest_is_due(database: Database, local: Place) -> None:
    look = scrubber(database, local)
    young = stored(database, local, b"young")
    assert look.due(interval_s=WEEK_S) is None
    with database.writing() as session:
        long_ago = database_now(session) - timedelta(days=30)
        session.execute(update(Blob).values(created_at=long_ago))
    assert look.due(interval_s=WEEK_S) == young.sha256
    look.check(young.sha256)
    assert look.due(interval_s=WEEK_S) is None


def test_a_blob_that_is_known_to_be_damaged_is_not_due_again(
    sqlite_database: Database, local: Place
) -> None:
    blob = stored(sqlite_database, local)
    age(sqlite_database)
    look = scrubber(sqlite_database, local)
    flip_a_bit(local, blob)
    look.check(blob.sha256)
    assert look.due(interval_s=0.0) is None


def scrub(database: Database, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CSTAR_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "CSTAR_BLOB_URL": folder.as_uri(),
    }
    command = [sys.executable, "-m", "store.scrub"]
    return subprocess.run(
        command,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_lists_what_is_wrong_and_fails_only_then(
    database: Database, local: Place, tmp_path: Path
) -> None:
    stored(database, local, b"whole")
    clean = scrub(database, tmp_path / "blobs")
    assert (clean.returncode, clean.stdout) == (0, "")
    gone, rotten = stored(database, local, b"gone"), stored(database, local, b"rotten")
    local.store.delete(gone.sha256)
    flip_a_bit(local, rotten)
    found = scrub(database, tmp_path / "blobs")
    assert found.returncode == 1
    assert sorted(found.stdout.splitlines()) == [
        f"damaged {rotten.sha256}",
        f"missing {gone.sha256}",
    ]
    assert "3 blobs checked, 2 damaged or missing" in found.stderr
