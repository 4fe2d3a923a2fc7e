"""A line to a server that breaks after so many bytes, again and again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 14


class BreakingLine:
    """Forwards connections to a server; whichever carries the last of `every` bytes is cut."""

    def __init__(self, url: str, every: int) -> None:
        target = urlsplit(url)
        self._target = (target.hostname or "", target.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._every = every
        self.cuts = self._carried = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _is_used_up(self, count: int) -> bool:
        with self._lock:
            self._carried += count
            if self._carried < self._every:
                return False
            self.cuts, self._carried = self.cuts + 1, 0
            return True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(self._target)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                sink.sendall(data)
                if self._is_used_up(len(data)):
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
