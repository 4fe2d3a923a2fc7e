"""Bytes named by their SHA-256: what goes in comes out, and nothing is left in staging."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.blobs import CHUNK_BYTES, BlobStore, DigestMismatch, StoredBlob, TooLarge, remember
from store.database import Database
from store.tables import Blob
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


def files_in(folder: Path) -> list[Path]:
    """Return every file on disk, half-written ones of the object store too."""
    return [path for path in folder.rglob("*") if path.is_file()]


@settings(deadline=None, max_examples=40)
@given(chunks=st.lists(st.binary(max_size=200), max_size=5), data=st.data())
def test_bytes_come_back_whole_and_in_ranges(chunks: list[bytes], data: st.DataObject) -> None:
    content = b"".join(chunks)
    with TemporaryDirectory() as folder:
        blob_store = BlobStore(Path(folder).as_uri())
        blob = put(blob_store, *chunks)
        assert blob == StoredBlob(hashlib.sha256(content).hexdigest(), len(content))
        assert read(blob_store, blob) == content
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, len(content)))
        assert b"".join(blob_store.read(blob.sha256, start=start, end=end)) == content[start:end]
        assert files_in(Path(folder) / "staging") == []


def test_a_blob_of_several_chunks_comes_back(blob_store: BlobStore) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 128) + b"the end"
    blob = put(blob_store, content)
    chunks = list(blob_store.read(blob.sha256))
    assert len(chunks) == 3
    assert b"".join(chunks) == content


def test_a_range_may_cross_a_chunk(blob_store: BlobStore) -> None:
    content = bytes(CHUNK_BYTES) + b"across"
    blob = put(blob_store, content)
    found = blob_store.read(blob.sha256, start=CHUNK_BYTES - 2, end=CHUNK_BYTES + 3)
    assert b"".join(found) == b"\0\0acr"


def test_a_file_is_stored_and_fetched(blob_store: BlobStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    blob = blob_store.put_file(source)
    blob_store.fetch(blob.sha256, target)
    assert target.read_bytes() == CONTENT


def test_bytes_that_are_not_as_announced_are_refused(blob_store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch) as refusal:
        put(blob_store, CONTENT, expected_sha256="0" * 64)
    assert refusal.value.expected == "0" * 64
    assert refusal.value.actual == blob_of(CONTENT).sha256
    assert files_in(tmp_path / "blobs") == []


def test_bytes_that_are_as_announced_are_stored(blob_store: BlobStore) -> None:
    blob = put(blob_store, CONTENT, expected_sha256=blob_of(CONTENT).sha256)
    assert read(blob_store, blob) == CONTENT


def test_more_bytes_than_allowed_are_refused(blob_store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(TooLarge) as refusal:
        put(blob_store, b"123456", b"78901", limit=10)
    assert refusal.value.limit == 10
    assert files_in(tmp_path / "blobs") == []


def test_as_many_bytes_as_allowed_are_stored(blob_store: BlobStore) -> None:
    assert put(blob_store, b"123456", b"7890", limit=10).bytes == 10


@pytest.mark.parametrize("size", [10, 12 << 20], ids=["buffered", "partly written"])
def test_an_upload_that_breaks_off_leaves_nothing(
    blob_store: BlobStore, tmp_path: Path, size: int
) -> None:
    with pytest.raises(ConnectionError):
        break_off_after(blob_store, size)
    assert files_in(tmp_path / "blobs") == []


def test_an_upload_that_is_not_committed_leaves_nothing(
    blob_store: BlobStore, tmp_path: Path
) -> None:
    with blob_store.stage() as staging:
        staging.write(CONTENT)
    assert files_in(tmp_path / "blobs") == []


def test_bytes_that_cannot_be_moved_to_their_name_are_discarded(
    blob_store: BlobStore, tmp_path: Path
) -> None:
    (tmp_path / "blobs" / "sha256").write_text("where a folder should be")
    with pytest.raises(Exception, match="sha256"):
        put(blob_store, CONTENT)
    assert files_in(tmp_path / "blobs" / "staging") == []


def test_the_same_content_is_stored_once(blob_store: BlobStore, tmp_path: Path) -> None:
    assert put(blob_store, CONTENT) == put(blob_store, CONTENT[:5], CONTENT[5:])
    assert len(files_in(tmp_path / "blobs")) == 1


def test_bytes_that_are_already_there_are_not_replaced(
    blob_store: BlobStore, tmp_path: Path
) -> None:
    put(blob_store, CONTENT)
    [stored] = files_in(tmp_path / "blobs")
    before = stored.stat()
    put(blob_store, CONTENT)
    assert stored.stat().st_ino == before.st_ino


def test_the_same_content_at_once_is_stored_once(blob_store: BlobStore, tmp_path: Path) -> None:
    blobs = at_once([lambda: put(blob_store, CONTENT)] * 8)
    assert set(blobs) == {blob_of(CONTENT)}
    assert len(files_in(tmp_path / "blobs")) == 1
    assert read(blob_store, blobs[0]) == CONTENT


def test_different_contents_at_once_are_all_stored(blob_store: BlobStore) -> None:
    contents = [bytes([number]) * 1000 for number in range(8)]
    blobs = at_once([partial(put, blob_store, content) for content in contents])
    assert [read(blob_store, blob) for blob in blobs] == contents


def test_bytes_that_rotted_are_not_handed_out_as_a_file(
    blob_store: BlobStore, tmp_path: Path
) -> None:
    blob = put(blob_store, CONTENT)
    [stored] = files_in(tmp_path / "blobs")
    stored.write_bytes(b"rotten".ljust(len(CONTENT)))
    with pytest.raises(DigestMismatch):
        blob_store.fetch(blob.sha256, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_blob_that_is_not_there_cannot_be_read(blob_store: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        list(blob_store.read("0" * 64))


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(
    blob_store: BlobStore, tmp_path: Path
) -> None:
    blob = put(blob_store, CONTENT)
    blob_store.delete(blob.sha256)
    blob_store.delete(blob.sha256)
    assert files_in(tmp_path / "blobs") == []


def test_a_deleted_blob_can_be_stored_again(blob_store: BlobStore) -> None:
    blob_store.delete(put(blob_store, CONTENT).sha256)
    assert read(blob_store, put(blob_store, CONTENT)) == CONTENT


def test_names_lists_what_is_stored(blob_store: BlobStore) -> None:
    blob = put(blob_store, CONTENT)
    assert blob_store.names("sha256/") == [f"sha256/{blob.sha256[:2]}/{blob.sha256}"]
    assert blob_store.names("staging/") == []


def test_the_folder_may_have_a_name_that_a_url_must_quote(tmp_path: Path) -> None:
    folder = tmp_path / "my data 100%"
    put(BlobStore(folder.as_uri()), CONTENT)
    assert len(files_in(folder)) == 1
    assert list(tmp_path.iterdir()) == [folder]


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
