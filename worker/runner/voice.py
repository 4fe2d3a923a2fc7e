"""The runner's end of the pipe."""

from __future__ import annotations

import os
import sys

from worker.protocol import Message, encode


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

    def say(self, message: Message) -> None:
        """Send one message; a supervisor that has gone away ends the runner."""
        data = memoryview(encode(message))
        while data:
            data = data[os.write(self._descriptor, data) :]
