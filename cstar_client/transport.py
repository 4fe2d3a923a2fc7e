"""Requests to one service: authenticated, repeated where that is safe, refusals raised."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx

from cstar_client.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    CstarError,
    api_error,
)
from cstar_client.retrying import OnRetry, Patience, Retries, retry_after_s

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
CONNECT_TIMEOUT_S = 10.0
GRACE_S = 1.0  # for an answer that comes at the deadline
CHARACTERS_SHOWN = 500
Content = bytes | Callable[[], Iterable[bytes]]
"""A body: bytes, or a function that yields them anew for every attempt."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Transport:
    """Sends requests with one key; safe to use from several threads."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float,
        retries: Retries,
        on_retry: OnRetry | None = None,
    ) -> None:
        self.url = _checked_address(url)
        if not _fits_header(api_key):  # the HTTP library's error would show it
            raise ConfigurationError("the API key has characters that no key has; copy it again")
        self._timeout_s, self._retries, self._on_retry = timeout_s, retries, on_retry
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "cstar-client"},
            timeout=self._timeout(),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def patience(self, *, deadline: float | None = None) -> Patience:
        """Return the patience for one operation."""
        return Patience(self._retries, self._on_retry, deadline=deadline)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: Content | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
        wait_s: float = 0,
        deadline: float | None = None,
    ) -> httpx.Response:
        """Return the answer; raises ApiError for a refusal, ConnectionFailed without an answer.

        What failed in passing is sent again if the method or the key makes that safe, or
        `repeatable` says so. `wait_s`: how long the service may hold the answer back. Raises
        Timeout instead of the last failure once the `deadline` (`time.monotonic`) is over.
        """
        sent = dict(headers or {})
        if wait_s >= 1:
            sent["Prefer"] = f"wait={int(wait_s)}"
        if idempotency_key is not None:
            if not _fits_header(idempotency_key):
                raise CstarError(f"{idempotency_key!r} is no idempotency key: ASCII alone")
            sent["Idempotency-Key"] = idempotency_key
        repeatable = repeatable or method in IDEMPOTENT or idempotency_key is not None
        patience = self.patience(deadline=deadline)
        while True:
            body = content() if callable(content) else content
            try:
                with self._no_answer():
                    answer = self._http.request(
                        method,
                        path,
                        params=_given(params),
                        headers=sent,
                        json=json,
                        content=body,
                        timeout=self._timeout(wait_s, deadline),
                    )
                if answer.is_success:
                    return answer
                raise _refusal(answer)
            except (ApiError, ConnectionFailed) as failure:
                patience.endure(failure, repeatable=repeatable)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """Open one answer to GET and read it piece by piece; whoever reads it goes on after a cut.

        Raises ApiError or ConnectionFailed, the latter also while it is read.
        """
        with (
            self._no_answer(),
            self._http.stream("GET", path, params=_given(params), headers=headers) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            yield answer

    def put_elsewhere(self, url: str, *, content: Content, length: int) -> None:
        """PUT a body once to an address outside the service, which is not shown the key."""
        body = content() if callable(content) else content
        headers = {"Content-Length": str(length)}
        with _no_answer(httpx.URL(url).host):
            answer = httpx.put(url, content=body, headers=headers, timeout=self._http.timeout)
        if not answer.is_success:
            raise _refusal(answer)

    def get(
        self, path: str, *, wait_s: float = 0, deadline: float | None = None, **params: Any
    ) -> Any:
        """Return a document; with `wait_s` only once it is settled or that time is over."""
        return document(self.send("GET", path, params=params, wait_s=wait_s, deadline=deadline))

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Any:
        """Create something and return its document; repeated, it is created once (a new key)."""
        key = idempotency_key or str(uuid4())
        return document(self.send("POST", path, json=body, idempotency_key=key))

    def _no_answer(self) -> AbstractContextManager[None]:
        return _no_answer(self._http.base_url.netloc.decode("ascii"))

    def _timeout(self, wait_s: float = 0, deadline: float | None = None) -> httpx.Timeout:
        """An answer that is held back on purpose is not late, one that comes after all is."""
        left_s = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
        most_s = left_s + GRACE_S
        usual_s = min(self._timeout_s, most_s)
        return httpx.Timeout(
            usual_s,
            connect=min(usual_s, CONNECT_TIMEOUT_S),
            read=min(self._timeout_s + wait_s, most_s),
        )


def document(answer: httpx.Response) -> Any:
    """Return the document of an answer; raises ApiError for what is none, such as a login page."""
    try:
        return answer.json()
    except ValueError as error:
        raise _refusal(answer) from error


@contextmanager
def _no_answer(place: str) -> Iterator[None]:
    """Raise ConnectionFailed in place of what the HTTP library raises."""
    try:
        yield
    except httpx.LocalProtocolError as error:  # the same again would be no better
        raise CstarError(f"the request cannot be sent: {error}") from error
    except httpx.TransportError as error:
        words = f"no answer from {place}: {error or type(error).__name__}"
        raise ConnectionFailed(words, sent=not isinstance(error, _NEVER_SENT)) from error


def _checked_address(url: str) -> str:
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{url!r} is no address: {error}") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise ConfigurationError(f"{url!r} is no address; it is like https://cstar.example.com")
    return url.rstrip("/")


def _fits_header(value: str) -> bool:
    return value.isascii() and value.isprintable() and value.strip() == value != ""


def _refusal(answer: httpx.Response) -> ApiError:
    wait_s = retry_after_s(answer.headers.get("retry-after"))
    return api_error(answer.status_code, _problem(answer), retry_after_s=wait_s)


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    """Return the problem document, or what there is in place of one: somebody else answered."""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(ValueError):
            return dict(answer.json())
    moved = answer.headers.get("location")
    where = f"{answer.url.host} sends to {moved}; is the address right? " if moved else ""
    return {"detail": f"{where}{answer.text[:CHARACTERS_SHOWN]}" or "not an answer of the service"}


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
