"""Processes that kill themselves with SIGKILL at each step of what they do to a blob store.

`python -m tests.store.crashes OPERATION FOLDER BLOB_URL`: for k = 1, 2, ... a fresh process does
OPERATION with the database FOLDER/k/cstar.db (a copy of FOLDER/template.db) and the blobs of
BLOB_URL/k, and dies at step k; the first that survives ends it. Prints how many died.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import event, update

from store import blobs as blob_module
from store import garbage
from store.blobs import BlobStore, Disk, remember
from store.database import Database, database_now
from store.tables import Blob

PIECES = [bytes([number]) * (2 << 20) for number in range(3)]  # more than one part of an upload
PIECE = b"one piece"
OBJECT_STORE_CALLS = ("open_writer", "rename", "delete", "head")


@dataclass
class Countdown:
    """Kills this process at the step that brings it to 0."""

    left: int

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call with a step before it (the one after it is before the next)."""

        def stepped(*arguments: Any, **named: Any) -> Any:
            self.step()
            result = call(*arguments, **named)
            return Writer(result, self) if call.__name__ == "open_writer" else result

        return stepped


class Writer:
    """An object store's writer with steps around what it does."""

    def __init__(self, writer: Any, countdown: Countdown) -> None:
        self._writer = writer
        self.write = countdown.before(writer.write)
        self.close = countdown.before(writer.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def put(database: Database, blobs: BlobStore, *pieces: bytes) -> None:
    """Upload a blob and give it its row."""
    with blobs.stage() as staging:
        for piece in pieces or PIECES:
            staging.write(piece)
        blob = staging.commit()
    with database.writing() as session:
        remember(session, blob)


def collect(database: Database, blobs: BlobStore) -> None:
    """Remove what nothing refers to."""
    with database.writing() as session:
        garbage.condemn_unreferenced(session, grace_s=3600)
    garbage.remove_condemned(database, blobs)


def age(database: Database) -> None:
    """Let every blob have been stored a day ago."""
    with database.writing() as session:
        yesterday = database_now(session) - timedelta(days=1)
        session.execute(update(Blob).values(created_at=yesterday))


def operate(operation: str, folder: Path, url: str, step: int) -> None:
    database, blobs = Database(f"sqlite:///{folder / 'cstar.db'}"), BlobStore(url)
    if operation == "collect":
        put(database, blobs, PIECE)
        age(database)
    countdown = Countdown(step)
    for name in OBJECT_STORE_CALLS:
        setattr(blob_module.obstore, name, countdown.before(getattr(blob_module.obstore, name)))
    Disk.flush = countdown.before(Disk.flush)  # type: ignore[method-assign]
    event.listen(database.engine, "before_cursor_execute", countdown.step)
    event.listen(database.engine, "commit", countdown.step)
    {"put": put, "collect": collect}[operation](database, blobs)
    countdown.step()


def main() -> None:
    operation, folder, url = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    for step in count(1):
        (folder / str(step)).mkdir()
        shutil.copy(folder / "template.db", folder / str(step) / "cstar.db")
        child = os.fork()  # nothing has started a thread yet
        if child == 0:
            operate(operation, folder / str(step), f"{url}/{step}", step)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            print(step - 1)
            return
        assert status == -signal.SIGKILL, status


if __name__ == "__main__":
    main()
