"""A part's bytes into their place, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from starlette.concurrency import run_in_threadpool

from api.errors import DigestMismatch, WrongPartSize
from api.files.formats import check_format
from api.files.receiving import blocks, head_of, opened, room
from store.parts import Layout, PartStore, PartWriter


@dataclass(frozen=True)
class ReceivedPart:
    """A part whose bytes are in their place; `sha256` is hexadecimal."""

    sha256: str
    e_tag: str | None


async def receive(
    chunks: AsyncIterator[bytes],
    store: PartStore,
    layout: Layout,
    number: int,
    *,
    purpose: str,
    expected_sha256: str | None,
) -> ReceivedPart:
    """Store the stream of a part.

    Raises WrongPartSize, UnknownFormat (of the first part), StorageFull, DigestMismatch or
    store.parts.Sealed; the part is then missing.
    """
    async with opened(partial(_begin, store, layout, number)) as writer:
        part = _Part(writer, layout.size(number))
        async for block in blocks(chunks):
            if number == 1 and part.received == 0:
                check_format(purpose, head_of(block))
            await run_in_threadpool(part.write, block)
        return await run_in_threadpool(part.commit, expected_sha256)


def wrong_size(expected: int, received: int | None = None) -> WrongPartSize:
    """Return the error for a part of another size; `received` is unknown past the expected."""
    detail = f"This part has {expected} bytes, which is not what was sent."
    members = {"expected_bytes": expected, "received_bytes": received}
    return WrongPartSize(detail, members=members)


class _Part:
    """Counts and hashes what is written."""

    def __init__(self, writer: PartWriter, size: int) -> None:
        self.received = 0
        self._writer = writer
        self._size = size
        self._digest = hashlib.sha256()

    def write(self, block: list[bytes]) -> None:
        self.received += sum(map(len, block))
        if self.received > self._size:  # the next part begins there
            raise wrong_size(self._size)
        for chunk in block:
            self._digest.update(chunk)
        with room():
            self._writer.write(block)

    def commit(self, expected_sha256: str | None) -> ReceivedPart:
        if self.received < self._size:
            raise wrong_size(self._size, self.received)
        actual = self._digest.hexdigest()
        if expected_sha256 not in (None, actual):
            raise DigestMismatch(
                "The bytes that arrived are not those of Content-Digest; send the part again.",
                members={"expected_sha256": expected_sha256, "received_sha256": actual},
            )
        with room():
            return ReceivedPart(actual, self._writer.commit())


def _begin(store: PartStore, layout: Layout, number: int) -> PartWriter:
    with room():
        return store.write(layout, number)
