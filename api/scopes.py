"""The scope that a request needs, from its route: `<tag>:read` to look, `<tag>:write` else.

Derived here and nowhere else, so a new endpoint is guarded by having a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

READING = frozenset({"GET", "HEAD"})


def required_scope(tags: Sequence[str | Enum], method: str) -> str:
    """Return the scope for a request with `method` to a route with these tags."""
    return f"{tags[0]}:{'read' if method.upper() in READING else 'write'}"


def known_scopes(routes: Sequence[BaseRoute]) -> list[str]:
    """Return every scope that some route under `/v1` needs."""
    found = {
        required_scope(route.tags, method)
        for context in iter_route_contexts(routes)
        if isinstance(route := context.original_route, APIRoute) and route.path.startswith("/v1/")
        for method in route.methods or ()
    }
    return sorted(found)
