"""A TCP proxy that can be cut: nothing passes any more, and nobody is told."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LOOK_S = 0.05
Connect = Callable[[], socket.socket]


class Proxy:
    """Forwards connections to its `port`; while it is cut, bytes stay where they are."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._open, self._closed = threading.Event(), threading.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def cut(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything pass again, with what has been held up."""
        self._open.set()

    def close(self) -> None:
        self._closed.set()
        self._open.set()
        self._thread.join()
        for connection in (self._listener, *self._peers):
            connection.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closed.is_set():
                self._open.wait()
                for key, _ in selector.select(LOOK_S):
                    if self._open.is_set():
                        self._forward(key.fileobj, selector)

    def _forward(self, ready: object, selector: selectors.BaseSelector) -> None:
        assert isinstance(ready, socket.socket)
        if ready is self._listener:
            pair = (self._listener.accept()[0], self._connect())
            self._peers.update([pair, pair[::-1]])
            for connection in pair:
                selector.register(connection, selectors.EVENT_READ)
            return
        if ready not in self._peers:  # its other end was closed a moment ago
            return
        data = b""
        with suppress(OSError):
            data = ready.recv(1 << 16)
            self._peers[ready].sendall(data)
        if not data:
            for connection in (ready, self._peers.pop(ready)):
                self._peers.pop(connection, None)
                selector.unregister(connection)
                connection.close()


@contextmanager
def proxy(connect: Connect) -> Iterator[Proxy]:
    """Run a proxy in front of what `connect` leads to."""
    made = Proxy(connect)
    try:
        yield made
    finally:
        made.close()
