"""The methods of a path: `Allow` must list all of them (RFC 9110, 15.5.6), not one route's."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path


def allowed_methods(request: Request) -> list[str]:
    """Return every method that some route of the application has for the request's path."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(request.url.path):
            methods |= route.methods or set()
    return sorted(methods)
