"""The SHA-256 of a file that arrives in parts, begun before the last of them is there.

The process that receives parts hashes the beginning of the file meanwhile, so that a completion
has little left to read. But a part may be sent again after it was hashed, through any process. So
every writer notes when it begins with a part and when it is done, and a part is hashed only while
nobody writes to it. If nobody has begun with it since, its bytes are still those that were hashed.
Notes are on the disk, hashes in memory: a process that starts anew begins anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path

from store.parts.contracts import Layout
from store.parts.files import chunks

UPLOADS_KEPT = 256  # of more at once, those that nothing arrived of for longest are forgotten
FRESH_S = 600.0  # what has lain on the disk for longer is read again, in case it rotted
logger = logging.getLogger(__name__)


class Notes:
    """Who writes to which part, in a file beside the parts; safe between processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, number: int) -> None:
        """Note, before the first byte, that somebody writes to a part."""
        self._add(number, os.O_CREAT)

    def end(self, number: int) -> None:
        """Note, after the last byte, that it is done; OSError if the notes are gone."""
        self._add(-number, 0)

    def read(self) -> array[int]:
        """Return all notes: the number of a part, or minus it; ValueError if one is torn."""
        notes = array("i")
        with suppress(FileNotFoundError):
            notes.frombytes(self._path.read_bytes())
        return notes

    def remove(self) -> None:
        """Remove all notes."""
        self._path.unlink(missing_ok=True)

    def _add(self, note: int, flags: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | flags, 0o666)
        try:
            os.write(descriptor, array("i", [note]).tobytes())
        finally:
            os.close(descriptor)


class Prefix:
    """The hash of the first `bytes` of a file."""

    def __init__(self, layout: Layout) -> None:
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.begun_at = time.monotonic()
        self._layout = layout
        self._arrived: set[int] = set()
        self._noted: list[int] = []  # for each part, how many notes there were before it was read
        self._files: set[tuple[int, int]] = set()  # what was read; one file, if all is well
        self._ended = False
        self._growing = threading.Lock()

    def arrived(self, number: int) -> None:
        """Note that a part is there to be hashed."""
        self._arrived.add(number)

    def grow(self, opened: Callable[[], FileIO], notes: Notes) -> None:
        """Hash the parts that come next, as far as they have arrived."""
        with self._growing, opened() as file:
            self._files.add(_identity(file))
            file.seek(self.bytes)
            while not self._ended and self._begins_next(notes):
                for chunk in chunks(file, self._layout.size(len(self._noted))):
                    self.digest.update(chunk)
                    self.bytes += len(chunk)
                    if self._ended:
                        break

    def end(self) -> None:
        """Return when nothing is hashed any more."""
        self._ended = True
        with self._growing:
            pass

    def is_of(self, file: FileIO, notes: Notes) -> bool:
        """Whether a file that nobody can write to any more begins with what was hashed."""
        hashed = len(self._noted)
        with suppress(ValueError):
            return self._files <= {_identity(file)} and not any(
                1 <= number <= hashed and index >= self._noted[number - 1]
                for index, number in enumerate(notes.read())
            )
        return False

    def _begins_next(self, notes: Notes) -> bool:
        """Begin with the next part, unless it has not arrived or somebody writes to it."""
        number = len(self._noted) + 1
        if number not in self._arrived:
            return False
        noted = notes.read()
        if noted.count(number) != noted.count(-number):
            return False
        self._noted.append(len(noted))
        return True


class Prefixes:
    """The prefixes of what this process receives; one thread hashes for all."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None  # while there is work; nobody waits for it
        self._changing = threading.Lock()

    def arrived(
        self, layout: Layout, number: int, opened: Callable[[], FileIO], notes: Notes
    ) -> None:
        """Begin to hash a part that has arrived, if all before it have."""
        with self._changing:
            prefix = self._prefixes.setdefault(layout.upload_id, Prefix(layout))
            prefix.arrived(number)
            self._prefixes.move_to_end(layout.upload_id)
            if len(self._prefixes) > UPLOADS_KEPT:
                self._prefixes.popitem(last=False)
            self._waiting.append(partial(prefix.grow, opened, notes))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="prefixes", daemon=True)
                self._thread.start()

    def take(self, upload_id: str) -> Prefix | None:
        """Return the fresh prefix of an upload, which grows no more, and forget it."""
        with self._changing:
            prefix = self._prefixes.pop(upload_id, None)
        if prefix is None:
            return None
        prefix.end()
        return prefix if time.monotonic() - prefix.begun_at < FRESH_S else None

    def _work(self) -> None:
        while task := self._next_task():
            try:
                task()
            except FileNotFoundError:
                pass  # the upload is over
            except Exception:  # its completion will read the file itself
                logger.exception("an upload could not be hashed ahead of its completion")

    def _next_task(self) -> Callable[[], None] | None:
        with self._changing:
            if not self._waiting:
                self._thread = None
                return None
            return self._waiting.popleft()


def _identity(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
