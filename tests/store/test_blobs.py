"""Bytes named by their SHA-256: what goes in comes out, and nothing is left in staging.

Everything here holds on local disk and on S3; what is particular to S3 is in test_blobs_s3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.blobs import CHUNK_BYTES, BlobStore, DigestMismatch, StoredBlob, TooLarge, remember
from store.database import Database
from store.tables import Blob
from tests.store.places import Place, local_place
from tests.support.rows import blob_of, count
from tests.support.threads import at_once

CONTENT = b"bytes of a checkpoint"


def put(
    blob_store: BlobStore,
    *chunks: bytes,
    limit: int | None = None,
    expected_sha256: str | None = None,
) -> StoredBlob:
    with blob_store.stage(limit=limit) as staging:
        for chunk in chunks:
            staging.write(chunk)
        return staging.commit(expected_sha256=expected_sha256)


def break_off_after(blob_store: BlobStore, size: int) -> None:
    with blob_store.stage() as staging:
        staging.write(bytes(size))
        raise ConnectionError


def read(blob_store: BlobStore, blob: StoredBlob) -> bytes:
    return b"".join(blob_store.read(blob.sha256))


def name_of(content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    return f"sha256/{sha256[:2]}/{sha256}"


@settings(deadline=None, max_examples=25)
@given(chunks=st.lists(st.binary(max_size=200), max_size=5), data=st.data())
def test_bytes_come_back_whole_and_in_ranges(
    new_place: Callable[[], Place], chunks: list[bytes], data: st.DataObject
) -> None:
    place, content = new_place(), b"".join(chunks)
    blob = put(place.store, *chunks)
    assert blob == StoredBlob(hashlib.sha256(content).hexdigest(), len(content))
    assert read(place.store, blob) == content
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    assert b"".join(place.store.read(blob.sha256, start=start, end=end)) == content[start:end]
    assert place.contents() == [name_of(content)]


def test_a_blob_of_several_chunks_comes_back(place: Place) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 128) + b"the end"
    blob = put(place.store, content)
    chunks = list(place.store.read(blob.sha256))
    assert len(chunks) == 3
    assert b"".join(chunks) == content


def test_a_blob_of_several_parts_comes_back(place: Place) -> None:
    content = bytes(range(256)) * (12 << 12)
    blob = put(place.store, *(content[at : at + CHUNK_BYTES] for at in range(0, 12 << 20, 1 << 20)))
    assert read(place.store, blob) == content
    assert place.contents() == [name_of(content)]


def test_a_range_may_cross_a_chunk(place: Place) -> None:
    content = bytes(CHUNK_BYTES) + b"across"
    blob = put(place.store, content)
    found = place.store.read(blob.sha256, start=CHUNK_BYTES - 2, end=CHUNK_BYTES + 3)
    assert b"".join(found) == b"\0\0acr"


def test_a_file_is_stored_and_fetched(place: Place, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    blob = place.store.put_file(source)
    place.store.fetch(blob.sha256, target)
    assert target.read_bytes() == CONTENT


def test_bytes_that_are_not_as_announced_are_refused(place: Place) -> None:
    with pytest.raises(DigestMismatch) as refusal:
        put(place.store, CONTENT, expected_sha256="0" * 64)
    assert refusal.value.expected == "0" * 64
    assert refusal.value.actual == blob_of(CONTENT).sha256
    assert place.contents() == []


def test_bytes_that_are_as_announced_are_stored(place: Place) -> None:
    blob = put(place.store, CONTENT, expected_sha256=blob_of(CONTENT).sha256)
    assert read(place.store, blob) == CONTENT


def test_more_bytes_than_allowed_are_refused(place: Place) -> None:
    with pytest.raises(TooLarge) as refusal:
        put(place.store, b"123456", b"78901", limit=10)
    assert refusal.value.limit == 10
    assert place.contents() == []


def test_as_many_bytes_as_allowed_are_stored(place: Place) -> None:
    assert put(place.store, b"123456", b"7890", limit=10).bytes == 10


@pytest.mark.parametrize("size", [10, 12 << 20], ids=["buffered", "partly written"])
def test_an_upload_that_breaks_off_leaves_nothing(place: Place, size: int) -> None:
    with pytest.raises(ConnectionError):
        break_off_after(place.store, size)
    assert place.contents() == []


@pytest.mark.parametrize("size", [10, 12 << 20], ids=["buffered", "partly written"])
def test_an_upload_that_is_not_committed_leaves_nothing(place: Place, size: int) -> None:
    with place.store.stage() as staging:
        staging.write(bytes(size))
    assert place.contents() == []


def test_bytes_that_cannot_be_moved_to_their_name_are_discarded(
    local: Place, tmp_path: Path
) -> None:
    (tmp_path / "blobs" / "sha256").write_text("where a folder should be")
    with pytest.raises(Exception, match="sha256"):
        put(local.store, CONTENT)
    assert local.contents() == ["sha256"]


def test_the_same_content_is_stored_once(place: Place) -> None:
    assert put(place.store, CONTENT) == put(place.store, CONTENT[:5], CONTENT[5:])
    assert place.contents() == [name_of(CONTENT)]


def test_bytes_that_are_already_there_are_not_replaced(place: Place) -> None:
    put(place.store, CONTENT)
    place.overwrite(name_of(CONTENT), b"what was there first")
    blob = put(place.store, CONTENT)
    assert read(place.store, blob) == b"what was there first"


def test_the_same_content_at_once_is_stored_once(place: Place) -> None:
    blobs = at_once([lambda: put(place.store, CONTENT)] * 8)
    assert set(blobs) == {blob_of(CONTENT)}
    assert place.contents() == [name_of(CONTENT)]
    assert read(place.store, blobs[0]) == CONTENT


def test_different_contents_at_once_are_all_stored(place: Place) -> None:
    contents = [bytes([number]) * 1000 for number in range(8)]
    blobs = at_once([partial(put, place.store, content) for content in contents])
    assert [read(place.store, blob) for blob in blobs] == contents


def test_bytes_that_rotted_are_not_handed_out_as_a_file(place: Place, tmp_path: Path) -> None:
    blob = put(place.store, CONTENT)
    place.overwrite(name_of(CONTENT), b"rotten".ljust(len(CONTENT)))
    with pytest.raises(DigestMismatch):
        place.store.fetch(blob.sha256, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_blob_that_is_not_there_cannot_be_read(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        list(place.store.read("0" * 64))


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(place: Place) -> None:
    blob = put(place.store, CONTENT)
    place.store.delete(blob.sha256)
    place.store.delete(blob.sha256)
    assert place.contents() == []


def test_a_deleted_blob_can_be_stored_again(place: Place) -> None:
    place.store.delete(put(place.store, CONTENT).sha256)
    assert read(place.store, put(place.store, CONTENT)) == CONTENT


def test_names_lists_what_is_stored(place: Place) -> None:
    put(place.store, CONTENT)
    assert place.store.names("sha256/") == [name_of(CONTENT)]
    assert place.store.names("staging/") == []


def test_the_folder_may_have_a_name_that_a_url_must_quote(tmp_path: Path) -> None:
    folder = tmp_path / "my data 100%"
    put(BlobStore(folder.as_uri()), CONTENT)
    assert local_place(folder).contents() == [name_of(CONTENT)]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_url_that_is_neither_disk_nor_s3_is_refused() -> None:
    with pytest.raises(ValueError, match="file:// or s3://"):
        BlobStore("ftp://host/blobs")


def test_a_blob_is_remembered_once_however_often_it_is_stored(database: Database) -> None:
    for _ in range(2):
        with database.writing() as session:
            remember(session, blob_of(CONTENT))
    assert count(database, Blob) == 1


def test_the_same_blob_can_be_remembered_at_once(database: Database) -> None:
    def store() -> None:
        with database.writing() as session:
            remember(session, blob_of(CONTENT))

    at_once([store] * 6)
    assert count(database, Blob) == 1
