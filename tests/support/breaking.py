"""A line to a server that breaks after so many bytes, again and again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 14


class BreakingLine:
    """Forwards connections to a server; each is reset once it has carried `every` bytes."""

    def __init__(self, url: str, every: int) -> None:
        target = urlsplit(url)
        self._target = (target.hostname or "", target.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.every: int | None = every
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def heal(self) -> None:
        """Break no more."""
        self.every = None

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(self._target)
                carried = [0]
                for ends in ((near, far), (far, near)):
                    args = (*ends, carried)
                    threading.Thread(target=self._carry, args=args, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, carried: list[int]) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                sink.sendall(data)
                carried[0] += len(data)
                if self.every is not None and carried[0] >= self.every:
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def breaking(url: str, *, every: int) -> Iterator[BreakingLine]:
    """Run a line that breaks in front of the server at `url`."""
    line = BreakingLine(url, every)
    try:
        yield line
    finally:
        line.close()
