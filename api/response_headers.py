"""The headers that the OpenAPI document promises, by status."""

from __future__ import annotations

from typing import Any

from api.middleware import HEADER

_LOCATION, _CHALLENGE, _WAIT = "Location", "WWW-Authenticate", "Retry-After"
_DESCRIPTIONS = {
    HEADER: "Names the request in the logs: the one that was sent, or a new one",
    _LOCATION: "Where the new thing is, or where to ask how far it is",
    _CHALLENGE: "What is needed (RFC 6750)",
    _WAIT: "Seconds to wait before the request is sent again",
}
_BY_STATUS = {
    "200": [HEADER],
    "201": [HEADER, _LOCATION],
    "202": [HEADER, _LOCATION],
    "401": [_CHALLENGE],
    "429": [_WAIT],
    "503": [_WAIT],
    "default": [HEADER],
}


def header_components() -> dict[str, Any]:
    """Return the headers by name, for the `components` of the document."""
    return {
        name: {"description": description, "required": True, "schema": {"type": "string"}}
        for name, description in _DESCRIPTIONS.items()
    }


def promise_headers(responses: dict[str, Any]) -> None:
    """Add to the `responses` of an operation the headers that its answers always have."""
    for status, names in _BY_STATUS.items():
        if status in responses:
            promised = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
            responses[status]["headers"] = promised | responses[status].get("headers", {})
