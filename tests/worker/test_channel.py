"""The supervisor's end of the pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from worker import channel as channel_module
from worker.channel import MAX_LINES_A_SECOND, READ_BYTES, Channel, ProtocolError
from worker.protocol import MAX_LINE_BYTES, Event, Progress, Stopped, encode

FIRST = Progress(phase="admm", progress=0.25)
SECOND = Event(name="ranks.planned", data={"text": "größer\nals"})


@dataclass
class Pipe:
    """A pipe with a channel at its reading end."""

    channel: Channel
    writing: int | None

    def write(self, data: bytes) -> None:
        assert self.writing is not None
        assert os.write(self.writing, data) == len(data)

    def hang_up(self) -> None:
        if self.writing is not None:
            os.close(self.writing)
        self.writing = None


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    made = Pipe(Channel(reading), writing)
    yield made
    made.hang_up()
    made.channel.close()
    os.close(reading)


def test_many_lines_arrive_together_in_their_order(pipe: Pipe) -> None:
    pipe.write(encode(FIRST) + encode(SECOND) + encode(FIRST))

    assert pipe.channel.read(1.0) == [FIRST, SECOND, FIRST]


def test_a_message_arrives_when_its_line_is_whole(pipe: Pipe) -> None:
    line = encode(SECOND)
    pipe.write(encode(FIRST) + line[:7])
    assert pipe.channel.read(1.0) == [FIRST]
    pipe.write(line[7:-1])
    assert pipe.channel.read(1.0) == []
    pipe.write(line[-1:])

    assert pipe.channel.read(1.0) == [SECOND]


def test_a_line_longer_than_the_pipe_holds_is_put_together(pipe: Pipe) -> None:
    message = Event(name="long", data={"text": "x" * (2 * READ_BYTES)})
    line = encode(message)
    found = []
    for start in range(0, len(line), 1 << 14):
        pipe.write(line[start : start + (1 << 14)])
        found += pipe.channel.read(1.0)

    assert found == [message]


def test_nothing_arrives_while_nothing_is_said(pipe: Pipe) -> None:
    assert pipe.channel.read(0.0) == []
    assert pipe.channel.quiet
    assert not pipe.channel.closed


def test_a_channel_is_closed_once_everything_is_read_and_the_runner_has_hung_up(
    pipe: Pipe,
) -> None:
    pipe.write(encode(FIRST))
    pipe.hang_up()

    assert pipe.channel.read(1.0) == [FIRST]
    assert not pipe.channel.closed
    assert pipe.channel.read(1.0) == []
    assert pipe.channel.closed


def test_half_a_message_before_hanging_up_is_none(pipe: Pipe) -> None:
    pipe.write(encode(Stopped())[:-1])
    pipe.hang_up()

    assert pipe.channel.read(1.0) == []
    assert pipe.channel.read(1.0) == []
    assert pipe.channel.closed


def test_a_line_without_an_end_is_refused(pipe: Pipe) -> None:
    chunk = b"x" * READ_BYTES
    with pytest.raises(ProtocolError, match=f"longer than {MAX_LINE_BYTES} bytes"):  # noqa: PT012
        for _ in range(MAX_LINE_BYTES // READ_BYTES + 1):
            pipe.write(chunk)
            pipe.channel.read(1.0)


@pytest.mark.parametrize(
    "line", [b"\n", b"Epoch 1\n", b"{}\n", b"\0\xff\n", b'{"type": "metric", "value": NaN}\n']
)
def test_a_line_that_is_no_message_is_refused(pipe: Pipe, line: bytes) -> None:
    pipe.write(line)

    with pytest.raises(ProtocolError, match="not a message"):
        pipe.channel.read(1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still at `now` for every channel made after it."""
    stopped = SimpleNamespace(now=100.0)
    stopped.monotonic = lambda: stopped.now
    monkeypatch.setattr(channel_module, "time", stopped)
    return stopped


def say(pipe: Pipe, lines: int) -> None:
    line = encode(Stopped())
    for _ in range(lines // 100):
        pipe.write(line * 100)
        assert len(pipe.channel.read(1.0)) == 100


def test_more_lines_a_second_than_allowed_are_refused(clock: SimpleNamespace, pipe: Pipe) -> None:
    say(pipe, MAX_LINES_A_SECOND)
    pipe.write(encode(Stopped()))

    with pytest.raises(ProtocolError, match=f"more than {MAX_LINES_A_SECOND} lines"):
        pipe.channel.read(1.0)


def test_as_many_lines_are_allowed_again_in_the_next_second(
    clock: SimpleNamespace, pipe: Pipe
) -> None:
    say(pipe, MAX_LINES_A_SECOND)
    clock.now += 1.0
    say(pipe, MAX_LINES_A_SECOND)
