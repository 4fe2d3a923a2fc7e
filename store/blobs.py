"""Bytes named by their SHA-256, on local disk or S3 through one set of calls.

A blob is hashed while it is written to `staging/`, checked, moved create-only to its name, and
only then gets its row: a crash leaves garbage in staging, never a row without bytes. Bytes are
removed under the lock of their row (store.garbage), and `remember` looks for them once it holds
that lock: what was removed in between is noticed, not forgotten.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, S3Store
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from store.database import database_now, waiting
from store.tables import Blob

if TYPE_CHECKING:
    from obstore.store import RetryConfig  # not there at run time

CHUNK_BYTES = 1 << 20
PART_BYTES = 5 << 20
# A call to the store ends, well or not, within CALL_S: when no other request is begun any more, one
# of at most 30 s is under way (obstore's own limit; an option for it here would put AWS_ALLOW_HTTP
# out of force), after a pause of at most 5 s. Locks are kept as long (`waiting`).
CALL_S = 60.0
RETRY: RetryConfig = {
    "backoff": {"max_backoff": timedelta(seconds=5)},
    "retry_timeout": timedelta(seconds=20),
}


class DigestMismatch(Exception):
    """The bytes that arrived are not those that were announced."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected SHA-256 {expected}, received {actual}")
        self.expected = expected
        self.actual = actual


class BlobGone(OSError):
    """Bytes were removed between being stored and being remembered: store them again."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the bytes of {sha256} were removed meanwhile")


class TooLarge(Exception):
    """More bytes arrived than are allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


@dataclass(frozen=True)
class StoredBlob:
    """A blob whose bytes are safely in the store; `sha256` is hexadecimal."""

    sha256: str
    bytes: int
    place: ObjectStore | None = field(default=None, compare=False, repr=False)

    def is_there(self) -> bool:
        """Say whether the bytes are in their place; one without a place is taken at its word."""
        return self.place is None or _exists(self.place, self.sha256)


@dataclass(frozen=True)
class StoredObject:
    """Something that lies in the store, whoever put it there."""

    name: str
    bytes: int
    changed_at: datetime


class BlobStore:
    """Content-addressed bytes behind a URL: `file:///...` or `s3://bucket/prefix`.

    For S3 and what speaks its protocol, the `AWS_*` variables say where and as whom:
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, and
    `AWS_ALLOW_HTTP=true` where that is not HTTPS. Raises ValueError for another scheme.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: ObjectStore = open_object_store(url)
        self._disk = Disk(folder_of(url)) if url.startswith("file://") else None

    def stage(self, *, limit: int | None = None) -> Staging:
        """Begin a new blob of at most `limit` bytes."""
        return Staging(self._store, self._disk, limit)

    def put_file(self, path: Path) -> StoredBlob:
        """Store a file's bytes; nothing is written when they are already there."""
        with self.stage() as staging, path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                staging.write(chunk)
            return staging.commit()

    def stored(self, sha256: str, size: int) -> StoredBlob:
        """Return the blob of that name and size, which may or may not be there."""
        return StoredBlob(sha256, size, self._store)

    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a blob from `start` (inclusive) to `end` (exclusive) in chunks."""
        stop = obstore.head(self._store, blob_name(sha256))["size"] if end is None else end
        for offset in range(start, stop, CHUNK_BYTES):
            chunk = obstore.get_range(
                self._store, blob_name(sha256), start=offset, end=min(stop, offset + CHUNK_BYTES)
            )
            yield bytes(chunk)

    def fetch(
        self, sha256: str, path: Path, *, on_chunk: Callable[[], object] = lambda: None
    ) -> None:
        """Write a blob to a local file; raises DigestMismatch when the store's bytes rotted.

        `on_chunk` is called before every chunk and may raise to break off.
        """
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self.read(sha256):
                on_chunk()
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            path.unlink()
            raise DigestMismatch(sha256, digest.hexdigest())

    def delete(self, sha256: str) -> None:
        """Remove a blob's bytes."""
        with suppress(FileNotFoundError):
            obstore.delete(self._store, blob_name(sha256))

    def exists(self, sha256: str) -> bool:
        """Say whether the bytes of a blob are there."""
        return _exists(self._store, sha256)

    def put_aside(self, sha256: str) -> None:
        """Move rotten bytes to `damaged/`, so that the name is free for good ones."""
        obstore.rename(self._store, blob_name(sha256), f"damaged/{sha256}", overwrite=True)

    def names(self, prefix: str) -> list[str]:
        """Return the object names under `prefix` (`sha256/`, `staging/` or `damaged/`)."""
        return [found.name for found in self.objects(prefix)]

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what lies under `prefix`."""
        for batch in obstore.list(self._store, prefix=prefix):
            for entry in batch:
                yield StoredObject(entry["path"], entry["size"], entry["last_modified"])

    def sweep_staging(self, *, grace_s: float) -> int:
        """Remove what killed processes left in staging, untouched for `grace_s`; returns how many.

        An S3 upload that never was completed shows in no listing: let the bucket abort those
        (lifecycle rule AbortIncompleteMultipartUpload).
        """
        if self._disk is not None:
            return self._disk.sweep("staging", grace_s)
        limit = datetime.now(UTC) - timedelta(seconds=grace_s)
        old = [found.name for found in self.objects("staging/") if found.changed_at < limit]
        for name in old:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, name)
        return len(old)


class Disk:
    """What the object store does not do on a local disk: flush, and see half-written files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def flush(self, name: str) -> None:
        """Have an object's bytes and name survive a power cut."""
        path = self._root / name
        for place in (path, *path.relative_to(self._root).parents):
            descriptor = os.open(self._root / place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def sweep(self, folder: str, grace_s: float) -> int:
        """Remove files of a folder that nobody has written to for `grace_s`."""
        limit = datetime.now(UTC).timestamp() - grace_s
        old = [path for path in (self._root / folder).glob("*") if _changed_at(path) < limit]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)


class Staging:
    """A blob being written; leaving the context without `commit()` discards it."""

    def __init__(self, store: ObjectStore, disk: Disk | None, limit: int | None) -> None:
        self._store = store
        self._disk = disk
        self._limit = limit
        self._path = f"staging/{secrets.token_hex(16)}"
        # Parts wait in memory for a slow store: at most four of 5 MiB (the least S3 takes).
        self._writer = obstore.open_writer(
            store, self._path, buffer_size=PART_BYTES, max_concurrency=4
        )
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._committed = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._committed:
            return
        if not self._writer.closed():
            self._writer.__exit__(kind, error, trace)  # an exception makes it abort the upload
        with suppress(FileNotFoundError):
            obstore.delete(self._store, self._path)

    def write(self, chunk: bytes) -> None:
        """Append bytes; raises TooLarge past the limit."""
        self._bytes += len(chunk)
        if self._limit is not None and self._bytes > self._limit:
            raise TooLarge(self._limit)
        self._digest.update(chunk)
        self._writer.write(chunk)

    def commit(self, *, expected_sha256: str | None = None) -> StoredBlob:
        """Move the bytes to their name; raises DigestMismatch if they are not as announced."""
        actual = self._digest.hexdigest()
        if expected_sha256 is not None and expected_sha256 != actual:
            raise DigestMismatch(expected_sha256, actual)
        self._writer.close()
        if self._disk is not None:
            self._disk.flush(self._path)
        try:
            obstore.rename(self._store, self._path, blob_name(actual), overwrite=False)
        except AlreadyExistsError:
            obstore.delete(self._store, self._path)
        if self._disk is not None:
            with suppress(FileNotFoundError):  # removed as garbage: `remember` will notice
                self._disk.flush(blob_name(actual))
        self._committed = True
        return StoredBlob(sha256=actual, bytes=self._bytes, place=self._store)


def remember(session: Session, blob: StoredBlob) -> None:
    """Give stored bytes their row, or make the row they have young again (see store.garbage).

    Raises BlobGone when they were removed as garbage since they were stored.
    """
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    now = database_now(session)
    session.execute(
        insert(Blob)
        .values(sha256=blob.sha256, bytes=blob.bytes, created_at=now)
        .on_conflict_do_update(
            index_elements=[Blob.sha256],
            set_={"created_at": now, "condemned_at": None, "damage": None},
        )
    )
    with waiting(session, CALL_S):
        there = blob.is_there()  # from here on the row's lock keeps them
    if not there:
        raise BlobGone(blob.sha256)


def open_object_store(url: str) -> ObjectStore:
    """Open what a `file://` or `s3://` URL names; raises ValueError for another scheme."""
    if url.startswith("file://"):
        return LocalStore(folder_of(url), mkdir=True)
    if url.startswith("s3://"):
        # S3 has no rename: a copy that fails when the name is taken is a multipart upload whose
        # completion is conditional. Stores that do it by a header instead are told so here.
        move = os.environ.get("AWS_COPY_IF_NOT_EXISTS", "multipart")
        return S3Store.from_url(
            url,
            copy_if_not_exists=move,
            retry_config=RETRY,
        )
    raise ValueError(f"CSTAR_BLOB_URL takes file:// or s3:// URLs, not {url!r}")


def folder_of(url: str) -> Path:
    """Return the folder of a `file://` URL."""
    return Path(url2pathname(urlsplit(url).path))


def _exists(store: ObjectStore, sha256: str) -> bool:
    try:
        obstore.head(store, blob_name(sha256))
    except FileNotFoundError:
        return False
    return True


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf  # it has been moved to its name meanwhile


def blob_name(sha256: str) -> str:
    """Return the object name of a blob."""
    return f"sha256/{sha256[:2]}/{sha256}"
