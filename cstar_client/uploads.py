"""Uploads: a small file in one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from cstar_client.digests import chunks, field_value, sha256
from cstar_client.documents import File, Purpose
from cstar_client.transport import Transport

OnProgress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""


def put(
    transport: Transport, path: Path, purpose: Purpose, on_progress: OnProgress | None = None
) -> File:
    """Send a file in one request, with its digest (RFC 9530)."""
    total = path.stat().st_size

    def body() -> Iterator[bytes]:
        sent = 0
        for chunk in chunks(path):
            yield chunk
            sent += len(chunk)
            if on_progress is not None:
                on_progress(sent, total)

    answer = transport.send(
        "PUT",
        "/v1/files",
        params={"filename": path.name, "purpose": purpose},
        headers={"Content-Digest": field_value(sha256(path))},
        content=body,
    )
    return cast(File, answer.json())
