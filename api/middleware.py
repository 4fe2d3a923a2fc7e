"""What every request gets: an id, a span, headers, a limit on bodies that are read into memory."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store import tracing
from store.context import working_for
from store.identifiers import new_id

HEADER = "X-Request-Id"
MAX_JSON_BYTES = 1 << 20
SERVER_ERROR = 500
_QUIET = {"GET", "HEAD"}  # polls would drown the rest
logger = logging.getLogger(__name__)
_STREAMING: set[object] = set()
_EVERYWHERE = (  # an answer is data: no browser is to run or frame it
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
_SANE = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


class RequestMiddleware:
    """Accepts a sane `X-Request-Id` or makes one, and answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["request_id"] = _chosen(headers.get(HEADER))
        parent = headers.get(tracing.HEADER, "")  # never what this connection carried before
        with (
            working_for(request_id=request_id_of(scope)),
            tracing.span(scope["method"], role="server", parent=parent),
        ):
            await self._app(scope, _limited(scope, receive), _Answer(scope, send))


def streams_body(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that reads its body in pieces and has a limit of its own."""
    _STREAMING.add(endpoint)
    return endpoint


def request_id_of(scope: Scope) -> str:
    """Return the id of a request."""
    return str(scope["state"]["request_id"])


def add_headers(scope: Scope, headers: Mapping[str, str]) -> None:
    """Have the answer to a request carry these headers, whatever it will be."""
    scope["state"].setdefault("headers", {}).update(headers)


def _chosen(presented: str | None) -> str:
    sane = presented is not None and _SANE.fullmatch(presented)
    return presented if presented and sane else new_id("req")


class _Answer:
    """Sends the answer with the request's id, and logs what changed something or failed."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._began = time.perf_counter()

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self._complete(message)
            self._tell(message["status"])
        await self._send(message)

    def _complete(self, message: Message) -> None:
        """Add what every answer carries, as ASGI has it: a poll is too short for more."""
        sent = list(message.get("headers", ()))
        said = {name for name, _ in sent}
        added = {HEADER: request_id_of(self._scope), **self._scope["state"].get("headers", {})}
        message["headers"] = [
            *sent,
            *((name, value) for name, value in _EVERYWHERE if name not in said),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in added.items()),
        ]

    def _tell(self, status: int) -> None:
        method, route = self._scope["method"], self._scope.get("route")
        if tracing.traced():
            path = getattr(route, "path", "")
            tracing.describe(f"{method} {path}".strip(), status=status)
        if method not in _QUIET or status >= SERVER_ERROR:
            took = {"status": status, "took_ms": round((time.perf_counter() - self._began) * 1000)}
            logger.info("%s %s", method, self._scope["path"], extra=took)


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Bound what is read into memory, by what is announced and by what comes.

    The route is known only when the body is asked for.
    """
    received = 0

    async def receiver() -> Message:
        nonlocal received
        if scope.get("endpoint") in _STREAMING:
            return await receive()
        announced = Headers(scope=scope).get("content-length", "") if received == 0 else ""
        if announced.isdecimal() and int(announced) > MAX_JSON_BYTES:
            raise _too_large()
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_JSON_BYTES:
            raise _too_large()
        return message

    return receiver


def _too_large() -> HTTPException:
    return HTTPException(413, f"A JSON body has at most {MAX_JSON_BYTES} bytes.")
