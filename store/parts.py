"""The bytes of uploads in parts, until they are the bytes of a blob.

On a local disk every part is written at its place in one file, which becomes the blob by being
renamed; in an object store parts are objects, which are read once and written as the blob.
Neither needs memory in proportion to a part or a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol

import obstore
from obstore.store import ObjectStore, S3Store

from store.blobs import (
    CHUNK_BYTES,
    PART_BYTES,
    BlobStore,
    DigestMismatch,
    Disk,
    StoredBlob,
    blob_name,
    folder_of,
    open_object_store,
)

FOLDER = "uploads"
_AT_ONCE = 512  # Linux takes 1024 pieces a call


class Sealed(Exception):
    """The upload takes no more bytes: it is being completed, or it is over."""


class PartsLost(Exception):
    """The bytes of an upload are gone: of the part `number`, or of all of it."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Layout:
    """How a file of `bytes` is cut: all parts have `part_bytes`, the last has what is left."""

    upload_id: str
    bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts there are; they are numbered from 1."""
        return -(-self.bytes // self.part_bytes)

    def start(self, number: int) -> int:
        """Return where a part begins in the file."""
        return (number - 1) * self.part_bytes

    def size(self, number: int) -> int:
        """Return how many bytes a part has."""
        return min(self.part_bytes, self.bytes - self.start(number))


@dataclass(frozen=True)
class FoundPart:
    """A part that lies in an object store."""

    bytes: int
    e_tag: str | None


class PartWriter(Protocol):
    """A part being written; leaving the context without `commit()` discards it if it can be."""

    def __enter__(self) -> PartWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append bytes; raises Sealed once the upload takes no more."""

    def commit(self) -> str | None:
        """Finish the part; returns the object store's tag of it, where it has one."""


class PartStore(Protocol):
    """Where the parts of uploads are kept."""

    def write(self, layout: Layout, number: int) -> PartWriter:
        """Begin a part."""

    def found(self, layout: Layout) -> dict[int, FoundPart] | None:
        """Return the parts that lie there, also those a client put there itself.

        None: only the service puts parts there, so its rows know.
        """

    def presign(self, layout: Layout, number: int, *, expires_in_s: float) -> str | None:
        """Return a URL that takes a part by PUT from whoever has it, if the store has such."""

    def read(self, layout: Layout, number: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises PartsLost when there are none."""

    def assemble(
        self, layout: Layout, sha256: str, *, on_chunk: Callable[[], object],
        on_verified: Callable[[], object],
    ) -> StoredBlob:  # fmt: skip
        """Make the parts a blob; from here on none is taken until `reopen`.

        `on_chunk` is called now and then and may raise to break off; `on_verified` before the
        parts get the name of the blob. Raises DigestMismatch or PartsLost.
        """

    def reopen(self, layout: Layout) -> None:
        """Take parts again."""

    def discard(self, upload_id: str) -> None:
        """Remove all parts."""

    def old(self, *, grace_s: float) -> set[str]:
        """Return the ids of uploads of which something lies there, untouched for `grace_s`."""


def open_parts(blobs: BlobStore) -> PartStore:
    """Return where parts are kept beside blobs."""
    if blobs.url.startswith("file://"):
        return DiskParts(blobs, folder_of(blobs.url))
    return ObjectParts(blobs, open_object_store(blobs.url))


def hexdigest(
    chunks: Iterator[bytes | memoryview], on_chunk: Callable[[], object] = lambda: None
) -> str:
    """Return the SHA-256 of chunks, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        on_chunk()
        digest.update(chunk)
    return digest.hexdigest()


class DiskParts:
    """One file an upload; writers lock it for each write, so that sealing it ends all writing.

    A writer that is stuck in the network holds no lock, and one that wakes up after the file was
    sealed finds it under another name: what was verified is never written to again.
    """

    def __init__(self, blobs: BlobStore, root: Path) -> None:
        self._blobs = blobs
        self._folder = root / FOLDER
        self._root = root
        self._disk = Disk(root)
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, layout: Layout, number: int) -> PartWriter:
        """Begin a part; what it replaces is gone with the first byte."""
        return _DiskWriter(self._open_file(layout.upload_id), layout.start(number))

    def found(self, _layout: Layout) -> None:
        """Only the service writes here."""

    def presign(self, _layout: Layout, _number: int, *, expires_in_s: float) -> None:
        """Nobody else can."""

    def read(self, layout: Layout, number: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises PartsLost."""
        with self._reading(layout.upload_id) as file:
            file.seek(layout.start(number))
            left = layout.size(number)
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk

    def assemble(
        self, layout: Layout, sha256: str, *, on_chunk: Callable[[], object],
        on_verified: Callable[[], object],
    ) -> StoredBlob:  # fmt: skip
        """Hash the file in one pass and rename it; raises DigestMismatch or PartsLost."""
        self._seal(layout.upload_id)
        try:
            self._check(layout.upload_id, sha256, on_chunk)
            on_verified()
            self._name(layout.upload_id, sha256)
        except FileNotFoundError as error:  # cancelled meanwhile
            raise PartsLost from error
        return self._blobs.stored(sha256, layout.bytes)

    def reopen(self, layout: Layout) -> None:
        """Give the file the name under which it is written."""
        with suppress(FileNotFoundError):
            self._sealed(layout.upload_id).rename(self._open_file(layout.upload_id))

    def discard(self, upload_id: str) -> None:
        """Remove the file, under either name."""
        for path in (self._open_file(upload_id), self._sealed(upload_id)):
            path.unlink(missing_ok=True)

    def old(self, *, grace_s: float) -> set[str]:
        """Return the ids of uploads whose file nobody has written to for `grace_s`."""
        limit = datetime.now(UTC).timestamp() - grace_s
        return {path.stem for path in self._folder.glob("*") if _changed_at(path) < limit}

    def _open_file(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.open"

    def _sealed(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.sealed"

    def _check(self, upload_id: str, sha256: str, on_chunk: Callable[[], object]) -> None:
        """Hash the sealed file and have it survive a power cut; raises DigestMismatch."""
        with (
            self._reading(upload_id) as file,
            ThreadPoolExecutor(1) as beside,  # the disk works while the processor does
        ):
            flushed = beside.submit(self._disk.flush, f"{FOLDER}/{upload_id}.sealed")
            actual = hexdigest(_chunks(file), on_chunk)
            flushed.result()
        if actual != sha256:
            raise DigestMismatch(sha256, actual)

    def _name(self, upload_id: str, sha256: str) -> None:
        """Make the sealed file a blob, young, so that it is no orphan before its row."""
        os.utime(self._sealed(upload_id))
        target = self._root / blob_name(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._sealed(upload_id).replace(target)
        with suppress(FileNotFoundError):  # removed as garbage: `remember` will notice
            self._disk.flush(blob_name(sha256))

    def _seal(self, upload_id: str) -> None:
        """Have nothing more written; a late writer's new file is in nobody's way."""
        path, sealed = self._open_file(upload_id), self._sealed(upload_id)
        if sealed.exists():  # by one who then died
            return
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                with _locked(descriptor, fcntl.LOCK_EX):  # whoever writes holds it for one write
                    path.rename(sealed)
            finally:
                os.close(descriptor)

    def _reading(self, upload_id: str) -> FileIO:
        for path in (self._sealed(upload_id), self._open_file(upload_id)):
            with suppress(FileNotFoundError):
                return path.open("rb", buffering=0)
        raise PartsLost


class _DiskWriter:
    """Writes one part at its place."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._start = self._offset = offset

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Write at once, unless the file was sealed."""
        rest = [memoryview(chunk) for chunk in chunks if chunk]
        with _locked(self._descriptor, fcntl.LOCK_SH):
            self._check_open()
            while rest:
                written = os.pwritev(self._descriptor, rest[:_AT_ONCE], self._offset)
                self._offset += written
                rest = _after(rest, written)

    def commit(self) -> None:
        """Have the disk begin; completion waits for it.

        A part that a power cut takes is found missing then.
        """
        size = self._offset - self._start
        os.posix_fadvise(self._descriptor, self._start, size, os.POSIX_FADV_DONTNEED)

    def _check_open(self) -> None:
        try:
            there = self._path.stat()
        except FileNotFoundError as error:
            raise Sealed from error
        if not os.path.samestat(there, os.fstat(self._descriptor)):
            raise Sealed


class ObjectParts:
    """One object a part: `uploads/<upload>/<number>`."""

    def __init__(self, blobs: BlobStore, store: ObjectStore) -> None:
        self._blobs = blobs
        self._store = store

    def write(self, layout: Layout, number: int) -> PartWriter:
        """Begin a part; what it replaces stays until it is whole."""
        return _ObjectWriter(self._store, _object_name(layout.upload_id, number))

    def found(self, layout: Layout) -> dict[int, FoundPart]:
        """List the parts of an upload."""
        prefix = f"{FOLDER}/{layout.upload_id}/"
        entries = (entry for batch in obstore.list(self._store, prefix=prefix) for entry in batch)
        named = ((entry["path"].rpartition("/")[2], entry) for entry in entries)
        return {
            int(number): FoundPart(entry["size"], entry["e_tag"])
            for number, entry in named
            if number.isdecimal() and 1 <= int(number) <= layout.count
        }

    def presign(self, layout: Layout, number: int, *, expires_in_s: float) -> str | None:
        """Return a presigned URL, from a store that signs."""
        if not isinstance(self._store, S3Store):
            return None
        name = _object_name(layout.upload_id, number)
        return obstore.sign(self._store, "PUT", name, timedelta(seconds=expires_in_s))

    def read(self, layout: Layout, number: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises PartsLost."""
        name, size = _object_name(layout.upload_id, number), layout.size(number)
        try:
            if obstore.head(self._store, name)["size"] != size:  # replaced at a presigned URL
                raise PartsLost(number)
            for start in range(0, size, CHUNK_BYTES):
                end = min(size, start + CHUNK_BYTES)
                yield bytes(obstore.get_range(self._store, name, start=start, end=end))
        except FileNotFoundError as error:
            raise PartsLost(number) from error

    def assemble(
        self, layout: Layout, sha256: str, *, on_chunk: Callable[[], object],
        on_verified: Callable[[], object],
    ) -> StoredBlob:  # fmt: skip
        """Read the parts in their order and write them as one blob, hashing what is written."""
        with self._blobs.stage() as staging:
            for number in range(1, layout.count + 1):
                for chunk in self.read(layout, number):
                    on_chunk()
                    staging.write(chunk)
            on_verified()
            return staging.commit(expected_sha256=sha256)

    def reopen(self, layout: Layout) -> None:
        """Parts are always taken: what is assembled is what was read."""

    def discard(self, upload_id: str) -> None:
        """Remove the objects of an upload."""
        for batch in obstore.list(self._store, prefix=f"{FOLDER}/{upload_id}/"):
            for entry in batch:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, entry["path"])

    def old(self, *, grace_s: float) -> set[str]:
        """Return the ids of uploads none of whose objects is younger than `grace_s`."""
        limit = datetime.now(UTC) - timedelta(seconds=grace_s)
        newest: dict[str, datetime] = {}
        for found in self._blobs.objects(f"{FOLDER}/"):
            upload_id = found.name.split("/")[1]
            newest[upload_id] = max(found.changed_at, newest.get(upload_id, found.changed_at))
        return {upload_id for upload_id, changed_at in newest.items() if changed_at < limit}


class _ObjectWriter:
    """Writes one object."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._writer = obstore.open_writer(store, name, buffer_size=PART_BYTES, max_concurrency=2)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._writer.closed():
            abandoned = InterruptedError()  # any exception makes it abort
            self._writer.__exit__(type(abandoned), abandoned, None)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append bytes."""
        for chunk in chunks:
            self._writer.write(chunk)

    def commit(self) -> str | None:
        """Finish the object; returns its tag."""
        self._writer.close()
        return obstore.head(self._store, self._name)["e_tag"]


def _chunks(file: FileIO) -> Iterator[memoryview]:
    """Yield the bytes of a file, each time in the same memory."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while size := file.readinto(buffer):
        yield buffer[:size]


def _after(views: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of some views once so many bytes of them are written."""
    while views and written >= len(views[0]):
        written -= len(views[0])
        views = views[1:]
    return [views[0][written:], *views[1:]] if written else views


@contextmanager
def _locked(descriptor: int, kind: int) -> Iterator[None]:
    fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _object_name(upload_id: str, number: int) -> str:
    return f"{FOLDER}/{upload_id}/{number}"


def _changed_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return datetime.now(UTC).timestamp()
