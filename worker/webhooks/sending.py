"""One POST to a URL that a client chose, which must not lead into the operator's own network.

The name is resolved here, every address it has is checked, and one of those that were checked is
connected to: a name that resolves otherwise a moment later changes nothing. TLS and `Host` carry
the name. httpcore is used as it is, below httpx: it follows no redirect and knows no proxy.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from store.webhooks.deliveries import Outcome
from store.webhooks.destinations import Destination, ForbiddenDestination, check_address, read_url
from worker.webhooks import resolving

TIMEOUT_S = 15.0  # for everything: a peer that sends a byte now and then gets no more


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allow_private: bool,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Send a JSON document and return what came of it; of the answer only its head is read."""
    try:
        destination = read_url(url, allow_private=allow_private)
        return _post(destination, headers, body, _Deadline(timeout_s), allow_private=allow_private)
    except ForbiddenDestination:
        return Outcome(error="forbidden_address")
    except socket.gaierror:
        return Outcome(error="name_not_resolved")
    except httpcore.TimeoutException:
        return Outcome(error="timeout")
    except httpcore.ConnectError as error:
        return Outcome(error="tls_failed" if _is_of_tls(error) else "connection_failed")
    except (httpcore.NetworkError, httpcore.ProtocolError):
        return Outcome(error="no_answer")


def _post(
    destination: Destination,
    headers: Mapping[str, str],
    body: bytes,
    deadline: _Deadline,
    *,
    allow_private: bool,
) -> Outcome:
    backend = _CheckedBackend(deadline, allow_private=allow_private)
    url = httpcore.URL(
        scheme=destination.scheme.encode(),
        host=destination.host.encode(),
        port=destination.port,
        target=destination.target.encode(),
    )
    sent: dict[bytes | str, bytes | str] = {
        "Host": destination.authority,
        "Content-Type": "application/json",
        "User-Agent": f"CSTAR-Webhooks/{version('cstar-service')}",
        "Connection": "close",
    }
    sent.update(headers)
    with (
        httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend) as pool,
        pool.stream("POST", url, headers=sent, content=body) as answer,
    ):
        return Outcome(response_status=answer.status, retry_after_s=_retry_after_s(answer.headers))


@cache
def _tls() -> ssl.SSLContext:
    """Return the certificates of httpx (certifi's, or `SSL_CERT_FILE`); names are checked."""
    return httpx.create_ssl_context()


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; raises httpcore.ReadTimeout when none are."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time of the attempt is up")
        return left


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to no address that was not checked; every wait ends at the deadline."""

    def __init__(self, deadline: _Deadline, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline stands for it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a name that answers, if all of them are allowed."""
        refused: httpcore.ConnectError | None = None
        for address in self._addresses(host, port):
            try:
                stream = super().connect_tcp(
                    address, port, self._deadline.left(), local_address, socket_options
                )
            except httpcore.ConnectError as error:
                refused = error
            else:
                return _TimedStream(stream, self._deadline)
        raise refused or httpcore.ConnectError(f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = resolving.addresses(host, port, timeout_s=self._deadline.left())
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from error
        for address in found:
            check_address(ip_address(address), allow_private=self._allow_private)
        return found


class _TimedStream(httpcore.NetworkStream):
    """A stream whose reads and writes together end at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Read what is there."""
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Write all of it."""
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Return the same connection under TLS."""
        inner = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _TimedStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows of itself."""
        return self._stream.get_extra_info(info)


def _is_of_tls(error: BaseException) -> bool:
    causes = (error, error.__cause__, error.__context__)
    return any(isinstance(cause, ssl.SSLError) for cause in causes)


def _retry_after_s(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds that Retry-After asks for (RFC 9110, 10.2.3), if any."""
    values = [value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after"]
    if len(values) != 1:
        return None
    text = values[0].strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
