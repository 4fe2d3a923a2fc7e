"""What is done with an open file: it is locked, and it is read in pieces."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO

from store.blobs import CHUNK_BYTES


@contextmanager
def locked(descriptor: int, kind: int) -> Iterator[None]:
    """Hold a lock of `fcntl` on a file, which all processes respect that ask for one."""
    fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def chunks(file: FileIO, size: int = sys.maxsize) -> Iterator[memoryview]:
    """Yield the next `size` bytes of a file, or what it has, each time in the same memory."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while size and (read := file.readinto(buffer[:size])):
        size -= read
        yield buffer[:read]
