"""The hash that is begun while parts arrive is always that of the bytes that are there."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from store.blobs import BlobStore, DigestMismatch
from store.parts import Layout, files, prefixes
from store.parts.disk import DiskParts
from store.parts.files import chunks
from tests.support.threads import PATIENCE_S, at_once

pwritev = os.pwritev

PART, COUNT, CHUNK = 1000, 4, 250
LAYOUT = Layout("upl_1", COUNT * PART - 10, PART)
ALL_READ = COUNT * PART // CHUNK
WRONG = "0" * 64


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", CHUNK)
        yield


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
    if thread := parts._prefixes._thread:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


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


def write_all(parts: DiskParts) -> None:
    for number in range(1, COUNT + 1):
        write(parts, number, content_of(number))


WHOLE = hashlib.sha256(b"".join(map(content_of, range(1, COUNT + 1)))).hexdigest()


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3]])
@pytest.mark.parametrize("pauses", [False, True])
def test_what_was_hashed_while_it_arrived_is_not_read_again(
    tmp_path: Path, order: list[int], pauses: bool
) -> None:
    (parts,) = places(tmp_path, 1)
    for number in order:
        write(parts, number, content_of(number))
        if pauses:
            settle(parts)
    settle(parts)
    assert reads(parts, WHOLE) == 0


def test_what_another_process_received_is_read(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first if number < COUNT else second, number, content_of(number))
    settle(first)
    assert reads(first, WHOLE) == PART // CHUNK


def test_a_process_that_begins_anew_reads_everything(tmp_path: Path) -> None:
    first, second = places(tmp_path, 2)
    write_all(first)
    settle(first)
    assert reads(second, WHOLE) == ALL_READ


def test_what_was_hashed_long_ago_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parts,) = places(tmp_path, 1)
    write_all(parts)
    settle(parts)
    with (tmp_path / "uploads" / "upl_1.open").open("r+b") as file:
        file.write(b"rot")
    later = time.monotonic() + prefixes.FRESH_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    actual, expected = found(parts, tmp_path)
    assert actual == expected != WHOLE


def test_the_uploads_that_nothing_arrived_of_for_longest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "UPLOADS_KEPT", 2)
    (parts,) = places(tmp_path, 1)
    layouts = [replace(LAYOUT, upload_id=f"upl_{n}") for n in range(3)]
    for number in range(1, COUNT + 1):
        for layout in layouts[:2] if number < COUNT else [layouts[0], layouts[2]]:
            write(parts, number, content_of(number), layout=layout)
    write(parts, COUNT, content_of(COUNT), layout=layouts[1])
    settle(parts)
    assert list(parts._prefixes._prefixes) == ["upl_2", "upl_1"]
    assert reads(parts, WHOLE, layout=layouts[1]) == ALL_READ


def test_an_upload_that_is_discarded_is_forgotten_with_its_notes(tmp_path: Path) -> None:
    (parts,) = places(tmp_path, 1)
    with parts.write(LAYOUT, 1) as late:
        late.write([b"x"])
        write(parts, 2, content_of(2))
        parts.discard(LAYOUT.upload_id)
    assert not list((tmp_path / "uploads").iterdir())
    assert not parts._prefixes._prefixes


def test_what_cannot_be_hashed_ahead_is_read_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(file: FileIO, size: int) -> Iterator[memoryview]:
        yield from islice(chunks(file, size), 2)
        raise OSError(errno.EIO, "the disk did not answer")

    (parts,) = places(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(prefixes, "chunks", broken)
        write(parts, 1, content_of(1))
        settle(parts)
    assert "could not be hashed ahead" in caplog.text
    for number in range(2, COUNT + 1):
        write(parts, number, content_of(number))
    settle(parts)
    reads(parts, WHOLE)


def test_torn_notes_are_no_notes(tmp_path: Path) -> None:
    (parts,) = places(tmp_path, 1)
    write_all(parts)
    settle(parts)
    with (tmp_path / "uploads" / "upl_1.notes").open("ab") as notes:
        notes.write(b"x")
    assert reads(parts, WHOLE) == ALL_READ


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_part_that_is_sent_again_after_it_was_hashed_is_read(
    tmp_path: Path, elsewhere: bool
) -> None:
    first, second = places(tmp_path, 2)
    for number in range(1, COUNT + 1):
        write(first, number, content_of(number) if number != 2 else b"x" * PART)
    settle(first)
    write(second if elsewhere else first, 2, content_of(2))
    assert reads(first, WHOLE) == ALL_READ


def test_a_writer_that_does_not_finish_is_noticed_too(tmp_path: Path) -> None:
    (parts,) = places(tmp_path, 1)
    late = parts.write(LAYOUT, 2)
    late.write([b"x"])
    write_all(parts)
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
    write_all(first)
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
    write_all(first)
    settle(first)
    go_on.set()
    thread.join(PATIENCE_S)
    actual, expected = found(first, tmp_path)
    assert actual == expected != WHOLE


def test_writers_of_other_parts_do_not_keep_one_from_being_hashed(tmp_path: Path) -> None:
    (parts,) = places(tmp_path, 1)
    with parts.write(LAYOUT, COUNT) as writing:
        writing.write([content_of(COUNT)[:10]])
        for number in range(1, COUNT):
            write(parts, number, content_of(number))
        settle(parts)
        writing.write([content_of(COUNT)[10:]])
    assert reads(parts, WHOLE) == PART // CHUNK


def test_what_a_late_writer_puts_elsewhere_is_not_of_the_file(tmp_path: Path) -> None:
    """It began when the file was sealed, and wrote to another, which gave way to the first."""
    first, second = places(tmp_path, 2)
    write_all(first)
    with pytest.raises(DigestMismatch):
        reads(first, WRONG)
    write(second, 1, b"x" * PART)
    settle(second)
    second.reopen(LAYOUT)
    assert reads(second, WHOLE) == ALL_READ


def test_hashing_stops_in_the_midst_of_a_part_when_the_upload_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parts,) = places(tmp_path, 1)
    in_the_midst = threading.Event()

    def slow(file: FileIO, size: int) -> Iterator[memoryview]:
        for count, chunk in enumerate(chunks(file, size)):
            if count == 2:
                in_the_midst.set()
                assert ended.wait(PATIENCE_S)
            yield chunk

    ended = threading.Event()
    monkeypatch.setattr(prefixes, "chunks", slow)
    write_all(parts)
    assert in_the_midst.wait(PATIENCE_S)
    prefix = parts._prefixes._prefixes[LAYOUT.upload_id]
    monkeypatch.setattr(prefix, "_ended", True)
    ended.set()
    assert reads(parts, WHOLE) == ALL_READ - 3


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
