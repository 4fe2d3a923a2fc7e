"""The supervisor's end of the pipe to a runner, with caps on line length and line rate."""

from __future__ import annotations

import os
import selectors
import time

from pydantic import ValidationError

from worker.protocol import MAX_LINE_BYTES, AnyMessage, decode

MAX_LINES_A_SECOND = 2000
READ_BYTES = 1 << 16


class ProtocolError(Exception):
    """The runner says things a runner does not say."""


class Channel:
    """Reads messages from a non-blocking pipe.

    `closed` once the runner has hung up; `quiet` while there is nothing to be read.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._window = time.monotonic()
        self._lines = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(descriptor, False)
        self.closed = False
        self.quiet = False

    def read(self, timeout_s: float) -> list[AnyMessage]:
        """Return what arrives within `timeout_s` (perhaps nothing); raises ProtocolError."""
        self.quiet = not self._selector.select(timeout_s)
        if self.quiet:
            return []
        chunk = os.read(self._descriptor, READ_BYTES)
        self.closed = not chunk
        self._buffer += chunk
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        if len(rest) > MAX_LINE_BYTES:
            raise ProtocolError(f"a line longer than {MAX_LINE_BYTES} bytes")
        self._count(len(lines))
        return [self._decode(bytes(line)) for line in lines]

    def close(self) -> None:
        """Let go of the selector; the pipe belongs to whoever opened it."""
        self._selector.close()

    def _count(self, lines: int) -> None:
        now = time.monotonic()
        if now - self._window >= 1.0:
            self._window, self._lines = now, 0
        self._lines += lines
        if self._lines > MAX_LINES_A_SECOND:
            raise ProtocolError(f"more than {MAX_LINES_A_SECOND} lines a second")

    @staticmethod
    def _decode(line: bytes) -> AnyMessage:
        try:
            return decode(line)
        except ValidationError as error:
            raise ProtocolError(f"not a message: {error.errors()[0]['msg']}") from error
