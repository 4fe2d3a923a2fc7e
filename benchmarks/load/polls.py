"""How many polls a second a server answers, and how long each takes; a client that costs little."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from urllib.parse import urlsplit

READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Polled:
    """Polls a second, and quantiles of their times in milliseconds.

    `cpu_ms` is what a poll costs the server in processor time: on a machine that is busy with other
    work it says more than the clock does.
    """

    per_second: float
    cpu_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Poller:
    """One connection that sends the same request over and over (HTTP/1.1, RFC 9112)."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._socket = socket.create_connection((str(parts.hostname), int(parts.port or 80)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def poll(self) -> bytes:
        """Send the request and return the body; raises RuntimeError unless it is a 200."""
        self._socket.sendall(self._request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._received()
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode(errors="replace"))
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._received()
        return body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _received(self) -> bytes:
        chunk = self._socket.recv(READ_BYTES)
        if not chunk:
            raise RuntimeError("the server hung up")
        return chunk


def poll_for(
    url: str, headers: Mapping[str, str], *, seconds: float, connections: int
) -> list[float]:
    """Poll from several connections, each at least once; returns every poll's time in seconds."""
    took: list[float] = []
    deadline = time.perf_counter() + seconds

    def work() -> None:
        poller = Poller(url, headers)
        ended = time.perf_counter()
        while True:
            began = ended
            poller.poll()
            ended = time.perf_counter()
            took.append(ended - began)
            if ended >= deadline:
                break
        poller.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def summary(rounds: list[list[float]], *, seconds: float, cpu_s: float) -> Polled:
    """Return the medians over rounds of `seconds` each; `cpu_s` was used in all of them."""
    ordered = [sorted(times) for times in rounds]

    def quantile(q: float) -> float:
        return 1000 * median(times[min(len(times) - 1, int(q * len(times)))] for times in ordered)

    per_second = median(len(times) / seconds for times in rounds)
    cpu_ms = 1000 * cpu_s / sum(len(times) for times in rounds)
    return Polled(per_second, cpu_ms, quantile(0.5), quantile(0.95), quantile(0.99))
