"""The runner's end of the pipe."""

from __future__ import annotations

import os
import sys
import time

from worker.protocol import Failure, Message, Progress, Result, Span, Stopped, encode


def printable(text: str) -> str:
    """Return a text from an upload without what UTF-8 or PostgreSQL cannot hold."""
    encodable = text.encode("utf-8", "replace").decode()
    return encodable.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Voice:
    """Owns the original standard output; what libraries print goes to standard error instead."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._stopwatch: Stopwatch | None = None

    def trace(self, part: str) -> None:
        """Tell from now on how long each part of the work took; `part` is the first."""
        self._stopwatch = Stopwatch(part)

    def turn_to(self, part: str) -> None:
        """Begin another part of the work."""
        if self._stopwatch is not None:
            self._write(self._stopwatch.turn_to(part))

    def say(self, message: Message) -> None:
        """Send one message; a supervisor that has gone away ends the runner."""
        if self._stopwatch is not None:
            match message:
                case Progress() if message.phase != self._stopwatch.part:
                    self.turn_to(message.phase)
                case Result() | Failure() | Stopped():  # nobody listens after these
                    self._write(self._stopwatch.stop())
        self._write(message)

    def _write(self, message: Message) -> None:
        data = memoryview(encode(message))
        while data:
            data = data[os.write(self._descriptor, data) :]


class Stopwatch:
    """Measures one part of the work after the other."""

    def __init__(self, part: str) -> None:
        self.part = part
        self._began_ns = time.time_ns()

    def turn_to(self, part: str) -> Span:
        """Begin another part; returns what the one before has taken."""
        over = self.stop()
        self.part, self._began_ns = part, over.ended_ns
        return over

    def stop(self) -> Span:
        """Return what the present part has taken so far."""
        return Span(name=self.part, started_ns=self._began_ns, ended_ns=time.time_ns())
