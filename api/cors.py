"""Which web pages may call the API: none, unless `CSTAR_CORS_ORIGINS` names their origins.

The rules are those of https://fetch.spec.whatwg.org/#http-cors-protocol. Keys travel in a header
that a page sets itself, so no browser's credentials are ever allowed.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import respond

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
_ADVICE = "The operator names the origins of the pages that may call (CSTAR_CORS_ORIGINS)."


class NamedOrigins:
    """Starlette's CORS middleware for the origins of the settings, which are known at start-up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        origins = _origins(scope)
        if origins and "origin" in Headers(scope=scope):
            await _Opened(self._app, Request(scope), origins)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Opened(CORSMiddleware):
    """Serves one request; a preflight is refused with a problem document, as all else is."""

    def __init__(self, app: ASGIApp, request: Request, origins: list[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=MAX_AGE_S,
        )
        self._request = request

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks for a page whether it may send a request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        detail = f"{bytes(answer.body).decode()}. {_ADVICE}"
        refused = respond(self._request, "cross_origin_refused", detail)
        for name in set(answer.headers) - set(refused.headers):
            refused.headers[name] = answer.headers[name]
        return refused


def _origins(scope: Scope) -> list[str]:
    if scope["type"] != "http":
        return []
    named: str | None = scope["app"].state.services.settings.cors_origins
    return [origin.strip() for origin in named.split(",")] if named else []
