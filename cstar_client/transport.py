"""Requests to one service: authenticated, repeated where that is safe, refusals raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx

from cstar_client.errors import ApiError, ConfigurationError, ConnectionFailed, api_error
from cstar_client.retrying import OnRetry, Patience, Retries, retry_after_s

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
CONNECT_TIMEOUT_S = 10.0
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
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"{url!r} is no address; it begins with https:// or http://")
        self.url = url.rstrip("/")
        self._retries, self._on_retry = retries, on_retry
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "cstar-client"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def patience(self) -> Patience:
        """Return the patience for one operation."""
        return Patience(self._retries, self._on_retry)

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
    ) -> httpx.Response:
        """Return the answer; raises ApiError for a refusal, ConnectionFailed without an answer.

        What failed in passing is sent again if the method or the key makes that safe, or
        `repeatable` says so.
        """
        sent = dict(headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        repeatable = repeatable or method in IDEMPOTENT or idempotency_key is not None
        patience = self.patience()
        while True:
            body = content() if callable(content) else content
            try:
                with _no_answer():
                    answer = self._http.request(
                        method, path, params=_given(params), headers=sent, json=json, content=body
                    )
                if not answer.is_error:
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
            _no_answer(),
            self._http.stream("GET", path, params=_given(params), headers=headers) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            yield answer

    def put_elsewhere(self, url: str, *, content: Content, length: int) -> None:
        """PUT a body once to an address outside the service, which is not shown the key."""
        body = content() if callable(content) else content
        headers = {"Content-Length": str(length)}
        with _no_answer():
            answer = httpx.put(url, content=body, headers=headers, timeout=self._http.timeout)
        if answer.is_error:
            raise _refusal(answer)

    def get(self, path: str, *, wait_s: float = 0, **params: Any) -> Any:
        """Return a document; with `wait_s` only once it is settled or that time is over."""
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        return self.send("GET", path, params=params, headers=headers).json()

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Any:
        """Create something and return its document; repeated, it is created once (a new key)."""
        key = idempotency_key or str(uuid4())
        return self.send("POST", path, json=body, idempotency_key=key).json()


@contextmanager
def _no_answer() -> Iterator[None]:
    """Raise ConnectionFailed in place of what the HTTP library raises."""
    try:
        yield
    except httpx.TransportError as error:
        words = str(error) or type(error).__name__
        raise ConnectionFailed(words, sent=not isinstance(error, _NEVER_SENT)) from error


def _refusal(answer: httpx.Response) -> ApiError:
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    problem = answer.json() if is_problem else {"detail": answer.text[:CHARACTERS_SHOWN]}
    wait_s = retry_after_s(answer.headers.get("retry-after"))
    return api_error(answer.status_code, problem, retry_after_s=wait_s)


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
