"""Parts as objects: `uploads/<upload>/<number>`, read once and written as the blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import obstore
from obstore.store import ObjectStore, S3Store

from store.blobs import CHUNK_BYTES, PART_BYTES, BlobStore, StoredBlob
from store.parts.contracts import FOLDER, FoundPart, Layout, PartsLost, PartWriter


class ObjectParts:
    """One object a part, which a client may also put there itself."""

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


def _object_name(upload_id: str, number: int) -> str:
    return f"{FOLDER}/{upload_id}/{number}"
