"""JSON pointers (RFC 6901)."""

from __future__ import annotations

from collections.abc import Sequence


def json_pointer(parts: Sequence[str | int]) -> str:
    """Return the pointer of a path: `["a", 0]` is `/a/0`, nothing is the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
