"""Looking up a name within a time: `getaddrinfo` knows none, and nothing can interrupt it.

A lookup that takes longer is left to its thread. There are at most `LOOKUPS` such threads; where
all of them wait for slow servers of names, the next lookup waits for one of them.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future

LOOKUPS = 64
_free = threading.BoundedSemaphore(LOOKUPS)


def addresses(host: str, port: int, *, timeout_s: float) -> list[str]:
    """Return the addresses of a name, each once; raises socket.gaierror or TimeoutError."""
    deadline = time.monotonic() + timeout_s
    if not _free.acquire(timeout=timeout_s):
        raise TimeoutError
    found: Future[list[str]] = Future()
    thread = threading.Thread(target=_look_up, args=[host, port, found, _free], daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system has no thread left
        _free.release()
        raise
    return found.result(max(0.0, deadline - time.monotonic()))


def _look_up(
    host: str, port: int, found: Future[list[str]], free: threading.BoundedSemaphore
) -> None:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
    except Exception as error:  # whoever waits is told
        found.set_exception(error)
    finally:
        free.release()
