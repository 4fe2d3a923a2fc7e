"""Entity tags and conditions (RFC 9110, sections 8.8 and 13)."""

from __future__ import annotations


def none_match(header: str | None, etag: str) -> bool:
    """Return whether `If-None-Match` lists `etag` (weak comparison): the answer is then a 304."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
