"""The methods of a path: `Allow` must list all of them (RFC 9110, 15.5.6), not one route's.

There is HEAD wherever there is GET (9.1): the same answer without its body (9.3.2).
"""

from __future__ import annotations

import anyio
from fastapi import Request
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def allowed_methods(request: Request) -> list[str]:
    """Return every method that the application has for the request's path."""
    methods = _routed(request.app.routes, request.scope["path"])
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


class HeadLikeGet:
    """Carries HEAD out as GET up to the head of the answer: a stream is not begun.

    A route that has HEAD itself is left to it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        asked = scope["type"] == "http" and scope["method"] == "HEAD"
        if asked and "HEAD" not in _routed(scope["app"].routes, scope["path"]):
            await self._up_to_the_head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _up_to_the_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {**scope, "method": "GET"}  # a copy: the server must know that it was HEAD

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["route"] = asked.get("route")
                await send(message)
                await send({"type": "http.response.body"})
                answering.cancel()

        with anyio.CancelScope() as answering:
            await self._app(asked, receive, send_head)


def _routed(routes: list[BaseRoute], path: str) -> set[str]:
    """Return every method that some route has for a path."""
    found: set[str] = set()
    for route in iter_route_contexts(routes):
        if route.path and route.path_regex.match(path):
            found |= route.methods or set()
    return found
