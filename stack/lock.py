"""One stack a data folder: whoever runs it holds a lock, and its process id is in the file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "up.lock"


class AlreadyRunning(Exception):
    """Another process runs a stack in this folder."""


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data folder; raises AlreadyRunning. It ends with the process, too."""
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor):
            raise AlreadyRunning(f"a stack runs in {data_dir} (process {holder(data_dir)})")
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def holder(data_dir: Path) -> int | None:
    """Return the id of the process that runs a stack in this folder, None when nobody does."""
    path = data_dir / LOCK_FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        if _lock(file.fileno()):
            return None
        return int(file.read() or 0) or None


def _lock(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
