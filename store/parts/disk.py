"""Parts at their places in one file, which becomes the blob by being renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path

from store.blobs import BlobStore, DigestMismatch, Disk, StoredBlob, blob_name
from store.parts.contracts import FOLDER, Layout, PartsLost, PartWriter, Sealed
from store.parts.files import chunks, locked
from store.parts.prefixes import Notes, Prefixes

_AT_ONCE = 512  # Linux takes 1024 pieces a call


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
        self._prefixes = Prefixes()
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, layout: Layout, number: int) -> PartWriter:
        """Begin a part; what it replaces is gone with the first byte."""
        path, notes = self._open_file(layout.upload_id), self._notes(layout.upload_id)
        opened = partial(FileIO, path)
        arrived = partial(self._prefixes.arrived, layout, number, opened, notes)
        return _DiskWriter(path, layout, number, notes=notes, arrived=arrived)

    def found(self, _layout: Layout) -> None:
        """Only the service writes here."""

    def presign(self, _layout: Layout, _number: int, *, expires_in_s: float) -> None:
        """Nobody else can."""

    def read(self, layout: Layout, number: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises PartsLost."""
        with self._reading(layout.upload_id) as file:
            file.seek(layout.start(number))
            yield from map(bytes, chunks(file, layout.size(number)))

    def assemble(
        self, layout: Layout, sha256: str, *, on_chunk: Callable[[], object],
        on_verified: Callable[[], object],
    ) -> StoredBlob:  # fmt: skip
        """Hash what is not hashed yet and rename the file; raises DigestMismatch or PartsLost."""
        self._seal(layout.upload_id)
        try:
            self._check(layout, sha256, on_chunk)
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
        """Remove the file, under either name, and what is known of it."""
        for path in (self._open_file(upload_id), self._sealed(upload_id)):
            path.unlink(missing_ok=True)
        self._notes(upload_id).remove()
        self._prefixes.take(upload_id)

    def old(self, *, grace_s: float) -> set[str]:
        """Return the ids of uploads whose file nobody has written to for `grace_s`."""
        limit = datetime.now(UTC).timestamp() - grace_s
        return {path.stem for path in self._folder.glob("*") if _changed_at(path) < limit}

    def _open_file(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.open"

    def _sealed(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.sealed"

    def _notes(self, upload_id: str) -> Notes:
        return Notes(self._folder / f"{upload_id}.notes")

    def _check(self, layout: Layout, sha256: str, on_chunk: Callable[[], object]) -> None:
        """Hash the sealed file and have it survive a power cut; raises DigestMismatch."""
        with (
            self._reading(layout.upload_id) as file,
            ThreadPoolExecutor(1) as beside,  # the disk works while the processor does
        ):
            flushed = beside.submit(self._disk.flush, f"{FOLDER}/{layout.upload_id}.sealed")
            digest = self._hashed_so_far(layout.upload_id, file)
            on_chunk()
            for chunk in chunks(file):
                digest.update(chunk)
                on_chunk()
            flushed.result()
        if (actual := digest.hexdigest()) != sha256:
            raise DigestMismatch(sha256, actual)

    def _hashed_so_far(self, upload_id: str, file: FileIO) -> hashlib._Hash:
        """Return the hash of the beginning of the sealed file, and go to where that ends."""
        prefix = self._prefixes.take(upload_id)
        if prefix is None or not prefix.is_of(file, self._notes(upload_id)):
            return hashlib.sha256()
        file.seek(prefix.bytes)
        return prefix.digest

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
                with locked(descriptor, fcntl.LOCK_EX):  # whoever writes holds it for one write
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

    def __init__(
        self, path: Path, layout: Layout, number: int, *, notes: Notes,
        arrived: Callable[[], object],
    ) -> None:  # fmt: skip
        self._path = path
        self._number = number
        self._notes = notes
        self._arrived = arrived
        self._noted = False
        self._start = self._offset = layout.start(number)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._own = os.fstat(self._descriptor)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._note_end()

    def write(self, chunks: Sequence[bytes]) -> None:
        """Write at once, unless the file was sealed."""
        rest = [memoryview(chunk) for chunk in chunks if chunk]
        with locked(self._descriptor, fcntl.LOCK_SH):
            self._check_open()
            self._note_begin()
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
        self._note_end()
        self._arrived()

    def _note_begin(self) -> None:
        if not self._noted:
            self._notes.begin(self._number)
            self._noted = True

    def _note_end(self) -> None:
        if self._noted:
            self._noted = False
            with suppress(OSError):  # without room, or without the upload; no part depends on it
                self._notes.end(self._number)

    def _check_open(self) -> None:
        try:
            there = self._path.stat()
        except FileNotFoundError as error:
            raise Sealed from error
        if not os.path.samestat(there, self._own):
            raise Sealed


def _after(views: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of some views once so many bytes of them are written."""
    while views and written >= len(views[0]):
        written -= len(views[0])
        views = views[1:]
    return [views[0][written:], *views[1:]] if written else views


def _changed_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return datetime.now(UTC).timestamp()
