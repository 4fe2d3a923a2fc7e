"""A body's bytes into the blob store, in bounded memory; whatever goes wrong leaves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

from api.errors import DigestMismatch, EmptyFile, FileTooLarge, StorageFull
from api.files.formats import check_format
from store import blobs as store
from store.blobs import BlobStore, Staging, StoredBlob
from store.room import is_full

Writer = TypeVar("Writer", bound=AbstractContextManager[Any])
HEAD_BYTES = 16
BLOCK_BYTES = 1 << 20  # written at once: a thread for every network chunk would cost more than it


async def receive(
    chunks: AsyncIterator[bytes],
    blobs: BlobStore,
    *,
    purpose: str,
    limit: int,
    expected_sha256: str | None,
) -> StoredBlob:
    """Store a stream of at most `limit` bytes.

    Raises EmptyFile, UnknownFormat, FileTooLarge, StorageFull or DigestMismatch; nothing is kept
    then, nor when the client goes away.
    """
    async with opened(partial(blobs.stage, limit=limit)) as staging:
        empty = True
        async for block in blocks(chunks):
            if empty:
                check_format(purpose, head_of(block))
            empty = False
            await run_in_threadpool(_write, staging, block)
        if empty:
            raise EmptyFile("The body has no bytes; send the file itself as the request's body.")
        return await run_in_threadpool(_commit, staging, expected_sha256)


def too_large(limit: int) -> FileTooLarge:
    """Return the error for a file past the limit."""
    detail = f"A file has at most {limit} bytes on this server (CSTAR_MAX_UPLOAD_BYTES)."
    return FileTooLarge(detail, members={"limit": limit})


@asynccontextmanager
async def opened(begin: Callable[[], Writer]) -> AsyncIterator[Writer]:
    """Begin to write something, and leave it for good or ill whatever becomes of the request."""
    writer = await run_in_threadpool(begin)
    try:
        yield writer
    finally:
        with anyio.CancelScope(shield=True):  # a cancelled request cleans up too
            await run_in_threadpool(writer.__exit__, None, None, None)


async def blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield a body's chunks, at least BLOCK_BYTES of them at a time but for the last."""
    block: list[bytes] = []
    size = 0
    async for chunk in chunks:
        if chunk:
            block.append(chunk)
            size += len(chunk)
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def head_of(block: list[bytes]) -> bytes:
    """Return the first bytes of a block, as many as tell a format."""
    return b"".join(chunk[:HEAD_BYTES] for chunk in block[:HEAD_BYTES])


def _write(staging: Staging, block: list[bytes]) -> None:
    try:
        with room():
            for chunk in block:
                staging.write(chunk)
    except store.TooLarge as error:
        raise too_large(error.limit) from error


@contextmanager
def room() -> Iterator[None]:
    """Raise StorageFull where the disk or bucket has no room for the bytes."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise StorageFull(
            "There is no room for this file and nothing of it was kept. Send it again when the "
            "operator has made room; files uploaded before are safe."
        ) from error


def _commit(staging: Staging, expected_sha256: str | None) -> StoredBlob:
    try:
        with room():
            return staging.commit(expected_sha256=expected_sha256)
    except store.DigestMismatch as error:
        raise DigestMismatch(
            "The bytes that arrived are not those of Content-Digest; send the file again.",
            members={"expected_sha256": error.expected, "received_sha256": error.actual},
        ) from error
