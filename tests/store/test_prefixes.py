"""The hash that is begun while parts arrive is always that of the bytes that are there."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from store.blobs import CHUNK_BYTES, BlobStore, DigestMismatch
from store.parts import Layout, prefixes
from store.parts.disk import DiskParts
from store.parts.files import chunks
from tests.support.threads import PATIENCE_S, at_once

pwritev = os.pwritev

PART, COUNT = 1000, 4
LAYOUT = Layout("upl_1", COUNT * PART - 10, PART)
WRONG = "0" * 64


def places(root: Path, count: int) -> list[DiskParts]:
    """Return what several processes have of one folder."""
    blobs = BlobStore(root.as_uri())
    return [DiskParts(blobs, root) for _ in range(count)]


def write(parts: DiskParts, number: int, content: bytes, *, layout: Layout = LAYOUT) -> None:
    with parts.write(layout, number) as writer:
        writer.write([content])
        writer.commit()


def settle(parts: DiskParts) -> None:
    """Return when all has been hashed that can be."""
    parts._prefixes._threads.submit(lambda: None).result()


def reads(parts: DiskParts, sha256: str, *, layout: Layout = LAYOUT) -> int:
    """Assemble an upload; returns how many pieces of it had to be read."""
    looks: list[None] = []
    parts.assemble(layout, sha256, on_chunk=lambda: looks.append(None), on_verified=lambda: None)
    return len(looks) - 1


def found(parts: DiskParts, root: Path, *, layout: Layout = LAYOUT) -> tuple[str, str]:
    """Complete an upload in vain; returns the hash that was found and that of its bytes."""
    with pytest.raises(DigestMismatch) as failure:
        reads(parts, WRONG, layout=layout)
    sealed = (root / "uploads" / f"{layout.upload_id}.sealed").read_bytes()
    parts.reopen(layout)
    return failure.value.actual, hashlib.sha256(sealed).hexdigest()


def content_of(number: int, layout: Layout = LAYOUT) -> bytes:
    return random.Random(number).randbytes(layout.size(number))


WHOLE = hashlib.sha256(b"".join(map(content_of, range(1, COUNT + 1)))).hexdigest()


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3]])
def test_what_was_hashed_while_it_arrived_is_not_read_again(
    tmp_path: Path, order: list[int]
) -> None:
    (parts,) = places(tmp_path, 1)
    for number in order:
        write(parts, number, content_of(number))
    settle(parts)
    assert reads(parts, WHOLE) == 0


def test_what_another_process_received_is_read(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first if number < COUNT else second, number, content_of(number))
    settle(first)
    assert reads(first, WHOLE) == 1  # the last part


def test_a_process_that_begins_anew_reads_everything(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number))
    settle(first)
    assert reads(second, WHOLE) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_part_that_is_sent_again_after_it_was_hashed_is_read(
    tmp_path: Path, elsewhere: bool
) -> None:
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number) if number != 2 else b"x" * PART)
    settle(first)
    write(second if elsewhere else first, 2, content_of(2))
    assert reads(first, WHOLE) == 1


def test_a_writer_that_does_not_finish_is_noticed_too(tmp_path: Path) -> None:
    (parts,) = places(tmp_path, 1)
    late = parts.write(LAYOUT, 2)
    late.write([b"x"])
    for number in range(1, COUNT + 1):
        write(parts, number, content_of(number))
    settle(parts)
    late.write([b"x"])
    actual, expected = found(parts, tmp_path)
    assert actual == expected != WHOLE


def test_a_part_that_is_sent_again_while_it_is_hashed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places(tmp_path, 2)
    again = [2, 1]

    def disturbed(file: FileIO, size: int) -> Iterator[memoryview]:
        yield from chunks(file, size)
        if again:
            number = again.pop()
            write(second, number, b"x" * PART)

    monkeypatch.setattr(prefixes, "chunks", disturbed)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number))
    settle(first)
    actual, expected = found(first, tmp_path)
    assert again == []
    assert actual == expected != WHOLE


def test_a_part_is_not_hashed_between_the_note_of_a_write_and_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places(tmp_path, 2)
    noted, go_on = threading.Event(), threading.Event()

    def late(*arguments: Any) -> int:
        if threading.current_thread() is thread:
            noted.set()
            go_on.wait(PATIENCE_S)
        return pwritev(*arguments)

    monkeypatch.setattr(os, "pwritev", late)
    thread = threading.Thread(target=write, args=(second, 1, b"x" * PART))
    thread.start()
    assert noted.wait(PATIENCE_S)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number))
    hashed = first._prefixes._threads.submit(lambda: None)
    wait([hashed], timeout=0.5)  # it waits for the write; one that did not would be done by now
    go_on.set()
    thread.join()
    actual, expected = found(first, tmp_path)
    assert actual == expected != WHOLE


def test_what_a_late_writer_puts_elsewhere_is_not_of_the_file(tmp_path: Path) -> None:
    """It began when the file was sealed, and wrote to another, which gave way to the first."""
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number))
    with pytest.raises(DigestMismatch):
        reads(first, WRONG)
    write(second, 1, b"x" * PART)
    settle(second)
    second.reopen(LAYOUT)
    assert reads(second, WHOLE) == 1


def test_hashing_stops_in_the_midst_of_a_part_when_the_upload_is_completed(
    tmp_path: Path,
) -> None:
    layout = Layout("upl_1", 64 * CHUNK_BYTES, 64 * CHUNK_BYTES)
    (parts,) = places(tmp_path, 1)
    for _ in range(5):
        write(parts, 1, bytes(layout.bytes), layout=layout)
        actual, expected = found(parts, tmp_path, layout=layout)
        assert actual == expected


def test_writers_at_once_do_not_confuse_it(tmp_path: Path) -> None:
    both = places(tmp_path, 2)
    for seed in range(10):
        jobs = [
            partial(_write_much, both[index % 2], random.Random(seed * 4 + index))
            for index in range(4)
        ]
        at_once(jobs)
        actual, expected = found(both[seed % 2], tmp_path)
        assert actual == expected


def _write_much(parts: DiskParts, generator: random.Random) -> None:
    for _ in range(20):
        number = generator.randint(1, COUNT)
        write(parts, number, generator.randbytes(LAYOUT.size(number)))


class Arrivals(RuleBasedStateMachine):
    """Parts arrive in any order, whole or not, through two processes, and some again."""

    numbers = st.integers(1, COUNT)
    processes = st.integers(0, 1)

    @initialize()
    def begin(self) -> None:
        self._folder = TemporaryDirectory()
        self._root = Path(self._folder.name)
        self._places = places(self._root, 2)
        self._written = 0
        self._open: list[Iterator[None]] = []

    @rule(process=processes, number=numbers)
    def write(self, process: int, number: int) -> None:
        self._written += 1
        write(self._places[process], number, self._bytes(LAYOUT.size(number)))

    @rule(process=processes, number=numbers, size=st.integers(1, PART - 10), commits=st.booleans())
    def write_slowly(self, process: int, number: int, size: int, commits: bool) -> None:
        self._written += 1
        self._open.append(self._slow(self._places[process], number, size, commits))
        next(self._open[-1])

    @rule(which=st.integers(0, 9))
    def go_on(self, which: int) -> None:
        if self._open:
            next(self._open.pop(which % len(self._open)), None)

    @rule(process=processes)
    def settle(self, process: int) -> None:
        settle(self._places[process])

    @rule(process=processes)
    def complete(self, process: int) -> None:
        if self._written:
            actual, expected = found(self._places[process], self._root)
            assert actual == expected

    @invariant()
    def the_file_is_open(self) -> None:
        assert not self._written or (self._root / "uploads" / "upl_1.open").exists()

    def teardown(self) -> None:
        self._open.clear()
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _slow(self, parts: DiskParts, number: int, size: int, commits: bool) -> Iterator[None]:
        content = self._bytes(size)
        with parts.write(LAYOUT, number) as writer:
            writer.write([content[: size // 2]])
            yield
            writer.write([content[size // 2 :]])
            if commits:
                writer.commit()

    def _bytes(self, size: int) -> bytes:
        return random.Random(self._written).randbytes(size)


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
