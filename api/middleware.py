"""What every request gets: an id, a span, a limit on bodies that are read into memory."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store import tracing
from store.context import working_for
from store.identifiers import new_id

HEADER = "X-Request-Id"
MAX_JSON_BYTES = 1 << 20
SERVER_ERROR = 500
_QUIET = {"GET", "HEAD"}  # polls would drown the rest
logger = logging.getLogger(__name__)
_SANE = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


class RequestMiddleware:
    """Accepts a sane `X-Request-Id` or makes one, and answers with it.

    All bodies but those of PUT are JSON held in memory; PUT streams and has limits of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["request_id"] = _chosen(headers.get(HEADER))
        if scope["method"] != "PUT":
            receive = _limited(receive)
        parent = headers.get(tracing.HEADER, "")  # never what this connection carried before
        with (
            working_for(request_id=request_id_of(scope)),
            tracing.span(scope["method"], role="server", parent=parent),
        ):
            await self._app(scope, receive, _Answer(scope, send))


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
            headers = MutableHeaders(scope=message)
            headers[HEADER] = request_id_of(self._scope)
            headers.update(self._scope["state"].get("headers", {}))
            self._tell(message["status"])
        await self._send(message)

    def _tell(self, status: int) -> None:
        method, route = self._scope["method"], self._scope.get("route")
        if tracing.traced():
            path = getattr(route, "path", "")
            tracing.describe(f"{method} {path}".strip(), status=status)
        if method not in _QUIET or status >= SERVER_ERROR:
            took = {"status": status, "took_ms": round((time.perf_counter() - self._began) * 1000)}
            logger.info("%s %s", method, self._scope["path"], extra=took)


def _limited(receive: Receive) -> Receive:
    received = 0

    async def receiver() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_JSON_BYTES:
            raise HTTPException(413, f"A JSON body has at most {MAX_JSON_BYTES} bytes.")
        return message

    return receiver
