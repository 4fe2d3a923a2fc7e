"""What every request gets: an id, and a limit on bodies that are read into memory."""

from __future__ import annotations

import re

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store.identifiers import new_id

HEADER = "X-Request-Id"
MAX_JSON_BYTES = 1 << 20
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
        scope.setdefault("state", {})["request_id"] = _chosen(Headers(scope=scope).get(HEADER))
        if scope["method"] != "PUT":
            receive = _limited(receive)
        await self._app(scope, receive, _with_id(scope, send))


def request_id_of(scope: Scope) -> str:
    """Return the id of a request."""
    return str(scope["state"]["request_id"])


def _chosen(presented: str | None) -> str:
    sane = presented is not None and _SANE.fullmatch(presented)
    return presented if presented and sane else new_id("req")


def _with_id(scope: Scope, send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[HEADER] = request_id_of(scope)
        await send(message)

    return sender


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
