"""Which web pages may call the API: none, unless `CSTAR_CORS_ORIGINS` names their origins.

The rules are those of https://fetch.spec.whatwg.org/#http-cors-protocol. Keys travel in a header
that a page sets itself, so no browser's credentials are ever allowed.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Repr-Digest",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
)
MAX_AGE_S = 600


class NamedOrigins:
    """Starlette's CORS middleware for the origins of the settings, which are known at start-up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        origins = _origins(scope)
        if origins and "origin" in Headers(scope=scope):
            opened = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
                max_age=MAX_AGE_S,
            )
            await opened(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _origins(scope: Scope) -> list[str]:
    if scope["type"] != "http":
        return []
    named: str | None = scope["app"].state.services.settings.cors_origins
    return [origin.strip() for origin in named.split(",")] if named else []
