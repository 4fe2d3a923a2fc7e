"""The SHA-256 of a file that arrives in parts, begun before the last of them is there.

The beginning of the file is hashed while later parts arrive, so that a completion has little left
to read. But a part may be sent again after it was hashed, through any process. So whoever writes
notes each write beforehand, under the lock it holds on the file; and whoever is about to hash a
part looks how many notes there are, holding that lock alone. If no later note is of that part, its
bytes are still those that were hashed. Notes are on the disk, hashes in memory: a process that
starts anew begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from store.parts.contracts import Layout
from store.parts.files import chunks, locked

UPLOADS_KEPT = 256  # of more at once, those that nothing arrived of for longest are forgotten
_NUMBER = "I"  # of a part; 4 bytes a note


class Notes:
    """The number of a part for each write to it, in a file beside the parts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, number: int) -> None:
        """Note that a part is about to be written to."""
        with self._path.open("ab", buffering=0) as file:
            file.write(array(_NUMBER, [number]).tobytes())

    def remove(self) -> None:
        """Remove all notes."""
        self._path.unlink(missing_ok=True)

    def read(self) -> array[int]:
        """Return all notes."""
        notes = array(_NUMBER)
        with suppress(FileNotFoundError):
            notes.frombytes(self._path.read_bytes())
        return notes


@dataclass(frozen=True)
class _Look:
    """What there was when a part was about to be hashed: which file, and how many notes."""

    file: tuple[int, int]
    notes: int

    @classmethod
    def at(cls, file: FileIO, notes: Notes) -> _Look:
        with locked(file.fileno(), fcntl.LOCK_EX):  # nobody is between a note and its write
            return cls(_identity(file), len(notes.read()))


class Prefix:
    """The hash of the first `bytes` of a file."""

    def __init__(self, layout: Layout) -> None:
        self.digest = hashlib.sha256()
        self.bytes = 0
        self._layout = layout
        self._arrived: set[int] = set()
        self._looks: list[_Look] = []  # one for each part, taken before any byte of it was read
        self._ended = False
        self._growing = threading.Lock()

    def arrived(self, number: int) -> None:
        """Note that a part is there to be hashed."""
        self._arrived.add(number)

    def grow(self, opened: Callable[[], FileIO], notes: Notes) -> None:
        """Hash the parts that come next, as far as they have arrived."""
        with self._growing, suppress(FileNotFoundError), opened() as file:
            file.seek(self.bytes)
            while not self._ended and (number := len(self._looks) + 1) in self._arrived:
                self._looks.append(_Look.at(file, notes))
                for chunk in chunks(file, self._layout.size(number)):
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
        identity = _identity(file)
        return all(look.file == identity for look in self._looks) and not any(
            number <= len(self._looks) and index >= self._looks[number - 1].notes
            for index, number in enumerate(notes.read())
        )


class Prefixes:
    """The prefixes of what this process receives; one thread hashes for all."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self._changing = threading.Lock()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="prefixes")

    def arrived(
        self, layout: Layout, number: int, opened: Callable[[], FileIO], notes: Notes
    ) -> None:
        """Begin to hash a part that has arrived, if all before it have."""
        with self._changing:
            prefix = self._prefixes.setdefault(layout.upload_id, Prefix(layout))
            self._prefixes.move_to_end(layout.upload_id)
            if len(self._prefixes) > UPLOADS_KEPT:
                self._prefixes.popitem(last=False)
        prefix.arrived(number)
        self._threads.submit(prefix.grow, opened, notes)

    def take(self, upload_id: str) -> Prefix | None:
        """Return the prefix of an upload, which grows no more, and forget it."""
        with self._changing:
            prefix = self._prefixes.pop(upload_id, None)
        if prefix:
            prefix.end()
        return prefix


def _identity(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
