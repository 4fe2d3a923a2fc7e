"""Lists as iterators: one page after another by its cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cstar_client.transport import Transport

PAGE_ROWS = 100


def rows(transport: Transport, path: str, **params: Any) -> Iterator[Any]:
    """Yield the rows of a list, page by page; rows added meanwhile are not among them."""
    cursor = params.pop("after", None)
    limit = params.pop("limit", PAGE_ROWS)
    while True:
        page = transport.get(path, after=cursor, limit=limit, **params)
        yield from page["data"]
        if not page["has_more"]:
            return
        cursor = page["last_id"]
